"""Which format a file has, by what it holds.

A trajectory is one JSON document, usually over many lines; the other formats have one JSON object on each line.
So a file whose first line is no JSON object by itself is tried as a whole, and is read by lines if that fails: then
its first line is merely broken.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent_core.transcripts import claude_code, json_lines, swe_agent
from agent_core.transcripts.imported import MAX_DOCUMENT_BYTES, UnreadableTranscript
from agent_core.transcripts.lines import DamagedLine, Line, NotARecord, Record, parse_record, read_lines

RECORDS_LOOKED_AT = 64
"""Of so many records at the top of a file one must be Claude Code's for the file to be its log."""

_KNOWN = "Claude Code logs, SWE-agent trajectories and JSON Lines are read"


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file's format, and the document if it is one.

    Attributes:
        format_name: `claude-code`, `swe-agent` or `json-lines`.
        document: A trajectory; None for a file of lines.
    """

    format_name: str
    document: Record | None = None


def recognise(path: Path, stream: BinaryIO) -> Recognised:
    """Find out a file's format.

    Raises:
        UnreadableTranscript: It has none that is read, or is one document past `MAX_DOCUMENT_BYTES`.
    """
    first = next(read_lines(stream), None)
    if first is None:
        raise UnreadableTranscript(f"{path} is empty; {_KNOWN}")
    problem = ""
    if isinstance(first, DamagedLine) or swe_agent.is_swe_agent(first.record):
        try:
            document = _whole_document(path, stream)
        except NotARecord as reason:
            problem = f"; as one document it is {reason}"
        else:
            if swe_agent.is_swe_agent(document):
                return Recognised(swe_agent.FORMAT, document)
            raise UnreadableTranscript(f"{path} is a JSON document without a `history` of messages; {_KNOWN}")
    return Recognised(_format_of_lines(path, stream, problem))


def _format_of_lines(path: Path, stream: BinaryIO, problem: str) -> str:
    records = 0
    for line in read_lines(stream):
        if not isinstance(line, Line):
            continue
        if claude_code.is_claude_code(line.record):
            return claude_code.FORMAT
        records += 1
        if records == RECORDS_LOOKED_AT:
            break
    if records == 0:
        raise UnreadableTranscript(f"{path} is no transcript: no line of it is a JSON object{problem}; {_KNOWN}")
    return json_lines.FORMAT


def _whole_document(path: Path, stream: BinaryIO) -> Record:
    """The file as one JSON object.

    Raises:
        NotARecord: It is none.
        UnreadableTranscript: It looks like one, but is too large to be read whole.
    """
    size = os.fstat(stream.fileno()).st_size
    stream.seek(0)
    if size > MAX_DOCUMENT_BYTES:
        opening = stream.readline(1 << 20)
        if opening.lstrip().startswith(b"{") and opening.rstrip().endswith((b"{", b"[", b",")):
            raise UnreadableTranscript(
                f"{path} is one JSON document of {size} bytes; at most {MAX_DOCUMENT_BYTES} are read"
            )
        raise NotARecord(f"larger than {MAX_DOCUMENT_BYTES} bytes")
    return parse_record(stream.read(MAX_DOCUMENT_BYTES).strip())
