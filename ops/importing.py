"""Brings transcripts from files into a cluster, many appends in flight; repeating it adds nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agent_core.client import Client
from agent_core.client.model import Appended
from agent_core.errors import InvalidRequest, SessionNotFound
from agent_core.transcripts import BrokenLine, ImportedEntry, ImportedSession, UnreadableTranscript, read_transcript

APPENDS_IN_FLIGHT = 256

Outcome = Appended | BrokenLine
"""What became of an entry: it is in the cluster, or the cluster does not accept it."""


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
            found = (below for below in path.rglob("*") if below.suffix in {".jsonl", ".traj"})
            files += sorted(below for below in found if not below.is_dir())
        else:
            files.append(path)
    return files


async def import_files(
    client: Client, files: Iterable[Path], *, on_entry: Callable[[Path], None] = lambda _path: None
) -> ImportSummary:
    """Import files one after the other; what cannot be read or is not accepted is reported and passed over.

    Raises:
        HeadwaterError: The cluster cannot write, or an outcome is unknown; importing again is safe.
    """
    summary = ImportSummary()
    for path in files:
        summary.files += 1
        await _import_file(client, path, summary, on_entry)
    return summary


async def _import_file(
    client: Client, path: Path, summary: ImportSummary, on_entry: Callable[[Path], None]
) -> None:
    in_flight: set[asyncio.Task[Outcome]] = set()
    broken: list[BrokenLine] = []
    try:
        for found in read_transcript(path):
            match found:
                case ImportedSession():
                    await _create(client, found, path, summary)
                case BrokenLine():
                    broken.append(found)
                case ImportedEntry():
                    in_flight.add(asyncio.create_task(_append(client, found, path)))
                    on_entry(path)
                    if len(in_flight) >= APPENDS_IN_FLIGHT:
                        in_flight = await _settle(in_flight, summary, broken, asyncio.FIRST_COMPLETED)
        in_flight = await _settle(in_flight, summary, broken, asyncio.ALL_COMPLETED)
    except UnreadableTranscript as error:
        summary.problems.append(str(error))
        in_flight = await _settle(in_flight, summary, broken, asyncio.ALL_COMPLETED)
    finally:
        broken.sort(key=lambda one: one.line)
        summary.problems += [f"{one.path}:{one.line}: {one.reason}" for one in broken]
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)


async def _create(client: Client, session: ImportedSession, path: Path, summary: ImportSummary) -> None:
    try:
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
    except InvalidRequest as error:
        summary.problems.append(f"{path}: session {session.session_id}: {error}")
    else:
        summary.sessions += 1


async def _append(client: Client, entry: ImportedEntry, path: Path) -> Outcome:
    try:
        return await client.append(
            entry.session_id,
            entry.kind,
            entry.payload,
            idempotency_key=entry.idempotency_key,
            created_at_ms=entry.created_at_ms,
        )
    except (InvalidRequest, SessionNotFound) as error:
        return BrokenLine(path, entry.line, f"session {entry.session_id}: {error}")


async def _settle(
    in_flight: set[asyncio.Task[Outcome]], summary: ImportSummary, broken: list[BrokenLine], until: str
) -> set[asyncio.Task[Outcome]]:
    if not in_flight:
        return in_flight
    done, pending = await asyncio.wait(in_flight, return_when=until)
    for task in done:
        outcome = task.result()
        if isinstance(outcome, BrokenLine):
            broken.append(outcome)
        elif outcome.duplicate:
            summary.entries_already_there += 1
        else:
            summary.entries_added += 1
    return pending
