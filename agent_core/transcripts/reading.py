"""Reading a transcript of any known format."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agent_core.transcripts.claude_code import FORMAT as CLAUDE_CODE
from agent_core.transcripts.claude_code import ClaudeCodeLog
from agent_core.transcripts.imported import BrokenLine, ImportedEntry, ImportedSession, UnreadableTranscript
from agent_core.transcripts.json_lines import JsonLinesLog
from agent_core.transcripts.lines import Line, read_lines
from agent_core.transcripts.payloads import PayloadTooLarge
from agent_core.transcripts.recognise import recognise
from agent_core.transcripts.swe_agent import read_trajectory


def read_transcript(path: Path) -> Iterator[ImportedSession | ImportedEntry | BrokenLine]:
    """Read a file: each session before its first entry, all else in the file's order.

    A file of lines is read twice, record by record, and never held in memory; what is held grows by about 100
    bytes a record. A trajectory is held whole, up to `MAX_DOCUMENT_BYTES`; so is, while it is recognised, a file
    whose first line is broken.

    Args:
        path: A regular file.

    Raises:
        UnreadableTranscript: While iterating: the file cannot be read, is no transcript, or is past a bound.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableTranscript(f"{path} is not a regular file")
        with path.open("rb") as stream:
            recognised = recognise(path, stream)
            if recognised.document is not None:
                yield from read_trajectory(path, recognised.document)
            else:
                log = ClaudeCodeLog(path) if recognised.format_name == CLAUDE_CODE else JsonLinesLog(path)
                yield from _read_log(path, stream, log)
    except OSError as error:
        raise UnreadableTranscript(f"{path} cannot be read: {error.strerror or error}") from error


def _read_log(
    path: Path, stream: BinaryIO, log: ClaudeCodeLog | JsonLinesLog
) -> Iterator[ImportedSession | ImportedEntry | BrokenLine]:
    for line in read_lines(stream):
        if isinstance(line, Line):
            log.observe(line)
    log.observed()
    announced: set[str] = set()
    for line in read_lines(stream):
        if not isinstance(line, Line):
            yield BrokenLine(path, line.number, line.reason)
            continue
        try:
            entry = log.entry(line)
        except PayloadTooLarge as problem:
            yield BrokenLine(path, line.number, str(problem))
            continue
        if entry.session_id not in announced:
            announced.add(entry.session_id)
            yield log.session(entry.session_id)
        yield entry
