"""Takes a `text/event-stream` apart as it arrives. Pure.

By bytes and line feeds only: JSON may hold characters that other readers take for the end of a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 384 << 20
"""Larger than any entry that a node can be configured to take."""


class EventTooLarge(ValueError):
    """An event passed `MAX_EVENT_BYTES`."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event: its name, and its data with the lines joined."""

    name: str
    data: bytes


class EventStream:
    """Collects pieces of a stream; `feed` gives the events that have become whole."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """The events that this piece completes.

        Raises:
            EventTooLarge: What has come of an event is past the bound.
        """
        self._size += len(piece)
        self._rest += piece
        *lines, rest = self._rest.split(b"\n") if b"\n" in piece else [self._rest]
        self._rest = bytearray(rest)
        for line in lines:
            if not line:
                if self._data:
                    yield ServerSentEvent(self._name, b"\n".join(self._data))
                self._name, self._data, self._size = "", [], len(self._rest)
            elif line.startswith(b"event: "):
                self._name = line[7:].decode("ascii", "replace")
            elif line.startswith(b"data: "):
                self._data.append(bytes(line[6:]))
        if self._size > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event of the node is larger than {MAX_EVENT_BYTES} bytes")
