"""Wakes everything that waits for one group: its log has grown, or its committed lsn has risen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Doorbell:
    """Rung by the writer, heard by every stream. Everything runs on the event loop.

    Each listener has an event of its own and clears it before it looks, so no ring is missed and many rings
    before one look cost one look.
    """

    def __init__(self) -> None:
        self._listeners: set[asyncio.Event] = set()

    def ring(self) -> None:
        """Something is new."""
        for listener in self._listeners:
            listener.set()

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """An event that every ring sets."""
        event = asyncio.Event()
        self._listeners.add(event)
        try:
            yield event
        finally:
            self._listeners.discard(event)
