"""Session ids and idempotency keys that depend on nothing but what a file holds.

They are part of the data: changing how they are made would import everything a second time.
"""

from __future__ import annotations

import re
from pathlib import Path

import xxhash

from agent_core.routing import SESSION_ID_PATTERN

_READABLE_CHARACTERS = 100
"""Of an id that is not allowed as it stands; with the hash it stays within the 128 of a session id."""


def session_id_from(name: str) -> str:
    """A name as a valid session id: unchanged if it is one, else what is allowed of it and a hash of all of it."""
    if SESSION_ID_PATTERN.fullmatch(name):
        return name
    return _readable_with_hash(name, name.encode(errors="surrogateescape"))


def session_id_of_file(path: Path, first_line: bytes) -> str:
    """The id for a file that names no session: its name without suffix, and a hash of its first record.

    The same file in another folder is the same session; another file of the same name is not.
    """
    return _readable_with_hash(path.stem, first_line)


def child_session_id(parent_session_id: str, agent: str) -> str:
    """The id of a sub-agent's own session."""
    return session_id_from(f"{parent_session_id}:agent-{agent}")


def content_hash(*parts: bytes) -> str:
    """A 128-bit hash over parts, each with its length, in hexadecimal."""
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(b"%d:" % len(part))
        state.update(part)
    return state.hexdigest()


class EntryKeys:
    """Idempotency keys for one reading of one file.

    A record with an id of its own gets its key from its content alone, wherever it stands: a log that was copied
    into another, as resuming a session does, adds nothing. If the same bytes come again within the file, that is
    another entry, so occurrences are counted (about 100 bytes of memory a record). Any other record gets its key
    from its place and content: a file may grow, and a broken line may be mended, while all other keys stay.
    """

    def __init__(self, format_name: str) -> None:
        self._format = format_name
        self._occurrences: dict[int, int] = {}

    def of_identified(self, session_id: str, raw: bytes) -> str:
        """The key of a record that has an id of its own."""
        digest = content_hash(self._format.encode(), session_id.encode(), b"identified", raw)
        short = int(digest[:16], 16)
        occurrence = self._occurrences.get(short, 0) + 1
        self._occurrences[short] = occurrence
        return f"{self._format}:{digest}" if occurrence == 1 else f"{self._format}:{digest}:{occurrence}"

    def of_placed(self, session_id: str, place: int, raw: bytes) -> str:
        """The key of a record that is known by its place in the file."""
        return f"{self._format}:{content_hash(self._format.encode(), session_id.encode(), b'%d' % place, raw)}"


def _readable_with_hash(name: str, hashed: bytes) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:_READABLE_CHARACTERS] or "session"
    return f"{readable}-{xxhash.xxh3_64_hexdigest(hashed)}"
