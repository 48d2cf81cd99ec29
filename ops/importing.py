"""Brings transcripts from files into a cluster, many appends in flight; repeating it adds nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agent_core.client import Client
from agent_core.client.model import Appended
from agent_core.transcripts import BrokenLine, ImportedEntry, ImportedSession, UnreadableTranscript, read_transcript

APPENDS_IN_FLIGHT = 256


@dataclass(slots=True)
class ImportSummary:
    """What an import came to."""

    files: int = 0
    sessions: int = 0
    entries_added: int = 0
    entries_already_there: int = 0
    problems: list[str] = field(default_factory=list)


def transcript_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and every `.jsonl` and `.traj` below the directories."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(found for found in path.rglob("*") if found.suffix in {".jsonl", ".traj"})
        else:
            files.append(path)
    return files


async def import_files(
    client: Client, files: Iterable[Path], *, on_entry: Callable[[Path], None] = lambda _path: None
) -> ImportSummary:
    """Import files one after the other; what cannot be read is reported and passed over.

    Raises:
        HeadwaterError: The cluster refused a write, or its outcome is unknown; importing again is safe.
    """
    summary = ImportSummary()
    for path in files:
        summary.files += 1
        in_flight: set[asyncio.Task[Appended]] = set()
        try:
            for found in read_transcript(path):
                match found:
                    case ImportedSession():
                        await _create(client, found)
                        summary.sessions += 1
                    case BrokenLine(broken_path, line, reason):
                        summary.problems.append(f"{broken_path}:{line}: {reason}")
                    case ImportedEntry():
                        in_flight.add(asyncio.create_task(_append(client, found)))
                        on_entry(path)
                        if len(in_flight) >= APPENDS_IN_FLIGHT:
                            in_flight = await _settle(in_flight, summary, asyncio.FIRST_COMPLETED)
        except UnreadableTranscript as error:
            summary.problems.append(str(error))
        await _settle(in_flight, summary, asyncio.ALL_COMPLETED)
    return summary


async def _create(client: Client, session: ImportedSession) -> None:
    await client.create_session(
        session_id=session.session_id,
        workspace=session.workspace,
        title=session.title,
        provider=session.provider,
        model=session.model,
        parent_session_id=session.parent_session_id,
        created_at_ms=session.created_at_ms,
        metadata=session.metadata,
    )


async def _append(client: Client, entry: ImportedEntry) -> Appended:
    return await client.append(
        entry.session_id,
        entry.kind,
        entry.payload,
        idempotency_key=entry.idempotency_key,
        created_at_ms=entry.created_at_ms,
    )


async def _settle(
    in_flight: set[asyncio.Task[Appended]], summary: ImportSummary, until: str
) -> set[asyncio.Task[Appended]]:
    if not in_flight:
        return in_flight
    done, pending = await asyncio.wait(in_flight, return_when=until)
    for task in done:
        if task.result().duplicate:
            summary.entries_already_there += 1
        else:
            summary.entries_added += 1
    return pending
