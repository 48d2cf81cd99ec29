"""What a simulated primary's memory holds: sessions, and appends that are on their way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent_core.position import Position
from tests.simulation.storage import Entry

Answer = Callable[[str, int, Position], None]
"""Told the outcome of an append, `acknowledged`, `unknown` or `not primary`, with its seq and position."""


@dataclass(slots=True)
class Append:
    """An append that is queued or written."""

    entry: Entry
    waiters: list[Answer]
    seq: int = 0


@dataclass(slots=True)
class Transaction:
    """What was written at once and is not visible yet."""

    position: Position
    appends: list[Append]


@dataclass(slots=True)
class Actors:
    """What the primary's memory holds of every session."""

    visible: dict[str, list[str]] = field(default_factory=dict)
    seqs: dict[Entry, int] = field(default_factory=dict)
    on_their_way: dict[Entry, Append] = field(default_factory=dict)

    def show(self, entry: Entry) -> int:
        """Let an entry be seen; its seq."""
        keys = self.visible.setdefault(entry.session, [])
        keys.append(entry.key)
        self.seqs[entry] = len(keys)
        return len(keys)
