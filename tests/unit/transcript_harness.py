"""Transcripts written for a test, and what importing makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from agent_core.transcripts import ImportedEntry, ImportedSession, read_transcript


def write(path: Path, *records: object) -> Path:
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


def read(path: Path) -> tuple[list[ImportedSession], list[ImportedEntry]]:
    events = list(read_transcript(path))
    return (
        [event for event in events if isinstance(event, ImportedSession)],
        [event for event in events if isinstance(event, ImportedEntry)],
    )


def payload(entry: ImportedEntry) -> dict[str, Any]:
    whole: dict[str, Any] = orjson.loads(entry.payload)
    return whole
