"""Keeps the order of a session's appends on one stream when some of them are refused.

A caller that sends several appends of a session without waiting relies on their order. If the first is refused
for now and the second taken, the first can only come to stand behind it, or never. So what follows a refused
append is refused too, until the caller is known to have seen that. It is known from the request ids, which
rise on a stream: only someone who saw a refusal sends the same request again.

An unknown outcome counts as a refusal. Whether the write keeps its place is not known either: another primary
may have led meanwhile whose history lacks it.

Pure: ids in, decisions out.
"""

from __future__ import annotations

MAX_REFUSED_SESSIONS = 1 << 16
"""Past it the stream must end; its caller then sends everything again, in order, on a new one."""


class AppendOrder:
    """The sessions of one stream of which an append was refused and not sent again yet."""

    def __init__(self) -> None:
        self._refused: dict[str, int] = {}

    @property
    def full(self) -> bool:
        """Whether too many sessions are kept in mind."""
        return len(self._refused) >= MAX_REFUSED_SESSIONS

    def awaits_repeat(self, session_id: str) -> bool:
        """Whether an append of a session was refused and not sent again yet."""
        return session_id in self._refused

    def admits(self, session_id: str, request_id: int) -> bool:
        """Whether an append may go on; if not, it must be refused, and counts as refused.

        The first request that comes again settles it: its caller has seen every refusal up to it, and chose
        what to repeat.
        """
        highest = self._refused.get(session_id)
        if highest is None:
            return True
        if request_id <= highest:
            del self._refused[session_id]
            return True
        self._refused[session_id] = request_id
        return False

    def refused(self, session_id: str, request_id: int) -> None:
        """An append was refused, and its caller may repeat it."""
        self._refused[session_id] = max(request_id, self._refused.get(session_id, 0))
