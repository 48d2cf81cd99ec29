"""The appends of one client that were not settled yet: what to send next, and what an answer means.

Pure decisions: no socket, no task, no clock. The order of a session's appends is kept, whatever is refused or lost
on the way:

- A session's appends are in flight in one batch at a time. The next ones wait until that batch is answered for
  the session, so a refused append never meets a later one that is under way.
- A refused append that may be repeated goes back before all later ones of its session, after a pause.
- An append is not repeated when a later one of its session, out of the same batch, was acknowledged meanwhile:
  it would come to stand behind it. It ends with the refusal that it got.
- When the stream breaks, everything unanswered is sent again in the order in which it was called for.

Request ids rise in the order of the calls, and so do deadlines, because every append has the same timeout:
`_unsettled`, in its order of insertion, is the original order and the order of expiry at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from agent_core.backoff import Backoff
from agent_core.client.model import Appended
from agent_core.errors import HeadwaterError, OutcomeUnknown, Unavailable
from agent_core.rpc.session_pb2 import AppendRequest

MAX_BATCH_APPENDS = 512
MAX_BATCH_BYTES = 1 << 20
APPEND_OVERHEAD_BYTES = 16
"""What an append takes on the wire beyond its fields: its number and its frame within the batch, rounded up."""


class Completion(Protocol):
    """Where an append's outcome goes; `asyncio.Future` is one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: Appended, /) -> None:
        """The append was acknowledged."""

    def set_exception(self, error: BaseException, /) -> None:
        """The append failed, or its outcome is not known."""


class State(IntEnum):
    """Where an append stands."""

    WAITING = 0
    IN_FLIGHT = 1
    REFUSED = 2
    SETTLED = 3


class PendingAppend:
    """One append on its way.

    Args:
        request: What is sent; its request id is set by the queue.
        deadline: When its caller stops waiting, in seconds of the clock that `elapse` is told.
        completion: Where the outcome goes.

    Attributes:
        lost: It was sent before, and what became of it is not known.
        refusal: The error with which it was last refused.
        backoff: The pauses between its attempts; None: it was never refused.
        abandoned: Its caller went away; it is not sent again.
    """

    __slots__ = (
        "abandoned",
        "backoff",
        "completion",
        "deadline",
        "lost",
        "refusal",
        "request",
        "request_id",
        "session_id",
        "size",
        "state",
    )

    def __init__(self, request: AppendRequest, deadline: float, completion: Completion) -> None:
        self.request = request
        self.session_id = request.session_id
        self.size = request.ByteSize() + APPEND_OVERHEAD_BYTES
        self.deadline = deadline
        self.completion = completion
        self.request_id = 0
        self.state = State.WAITING
        self.lost = False
        self.abandoned = False
        self.refusal: HeadwaterError | None = None
        self.backoff: Backoff | None = None


class SessionLane:
    """A session of which something is in flight, or was refused and pauses."""

    __slots__ = ("acknowledged_id", "batch", "held", "in_flight", "refused", "resume_at")

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.in_flight = 0
        self.acknowledged_id = 0
        self.refused: list[PendingAppend] = []
        self.held: list[PendingAppend] = []
        self.resume_at = 0.0


class AppendQueue:
    """Everything that one client wants appended.

    Args:
        max_in_flight: Appends that may be unanswered at one time; what comes on top waits its turn.
        max_in_flight_bytes: The same bound in bytes; a single append may exceed it.
        new_backoff: Makes the pauses of an append that is refused for the first time.

    Attributes:
        acknowledged: Appends that ended well, since the beginning.
        sent_again: Appends that were sent more than once, counted each time.
    """

    def __init__(self, *, max_in_flight: int, max_in_flight_bytes: int, new_backoff: Callable[[], Backoff]) -> None:
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self._new_backoff = new_backoff
        self._unsettled: dict[int, PendingAppend] = {}
        self._waiting: deque[PendingAppend] = deque()
        self._lanes: dict[str, SessionLane] = {}
        self._pausing: set[str] = set()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._last_request_id = 0
        self._batches = 0
        self.acknowledged = 0
        self.sent_again = 0

    def __len__(self) -> int:
        """How many appends are not settled."""
        return len(self._unsettled)

    @property
    def in_flight(self) -> int:
        """How many appends are sent and unanswered."""
        return self._in_flight

    @property
    def sendable(self) -> bool:
        """Whether `drain` may have something to send."""
        return bool(self._waiting) and self._room()

    def put(self, append: PendingAppend) -> None:
        """Take in one more append."""
        self._last_request_id += 1
        append.request_id = append.request.request_id = self._last_request_id
        self._unsettled[append.request_id] = append
        self._waiting.append(append)

    def drain(self) -> list[PendingAppend]:
        """Take out the next batch, in order; the caller sends it. Empty: nothing may be sent now."""
        self._batches += 1
        waiting, lanes, number = self._waiting, self._lanes, self._batches
        batch: list[PendingAppend] = []
        room = MAX_BATCH_BYTES
        while waiting and len(batch) < MAX_BATCH_APPENDS and self._room():
            append = waiting[0]
            if append.state != State.WAITING:
                waiting.popleft()
                continue
            if append.size > room and batch:
                break
            waiting.popleft()
            lane = lanes.get(append.session_id)
            if lane is None:
                lane = lanes[append.session_id] = SessionLane(number)
            elif lane.batch != number:
                lane.held.append(append)
                continue
            lane.in_flight += 1
            room -= append.size
            append.state = State.IN_FLIGHT
            self._in_flight += 1
            self._in_flight_bytes += append.size
            self.sent_again += append.lost or append.refusal is not None
            batch.append(append)
        return batch

    def succeed(self, request_id: int, appended: Appended, now: float) -> None:
        """Settle an append that the primary acknowledged; an id that is not in flight is passed over."""
        append = self._unsettled.get(request_id)
        if append is None or append.state != State.IN_FLIGHT:
            return
        self.acknowledged += 1
        lane = self._land(append)
        lane.acknowledged_id = max(lane.acknowledged_id, request_id)
        self._settle(append, appended)
        if not lane.in_flight:
            self._answered(append.session_id, lane, now)

    def refuse(self, request_id: int, error: HeadwaterError, now: float) -> None:
        """Take note of the primary's error, and settle the append unless it may be repeated."""
        append = self._unsettled.get(request_id)
        if append is None or append.state != State.IN_FLIGHT:
            return
        lane = self._land(append)
        append.refusal = error
        append.lost = append.lost or isinstance(error, OutcomeUnknown)
        if error.retry and not append.abandoned:
            append.state = State.REFUSED
            lane.refused.append(append)
        else:
            self._settle(append, error)
        if not lane.in_flight:
            self._answered(append.session_id, lane, now)

    def disconnect(self) -> None:
        """Take note that the stream is gone: what is unanswered is lost, and waits to be sent again."""
        for append in tuple(self._unsettled.values()):
            append.lost = append.lost or append.state == State.IN_FLIGHT
            append.state = State.WAITING
            if append.abandoned:
                self._settle(append, OutcomeUnknown("the caller went away"))
        self._waiting = deque(self._unsettled.values())
        self._lanes.clear()
        self._pausing.clear()
        self._in_flight = self._in_flight_bytes = 0

    def abandon(self, append: PendingAppend) -> None:
        """Take note that the caller went away; what was not sent will not be, what was sent may be written."""
        append.abandoned = True
        if append.state in (State.WAITING, State.REFUSED):
            self._settle(append, OutcomeUnknown("the caller went away"))

    def next_due(self) -> float | None:
        """When `elapse` has something to do next; None: not before another call."""
        oldest = next(iter(self._unsettled.values()), None)
        times = [self._lanes[session_id].resume_at for session_id in self._pausing]
        if oldest is not None:
            times.append(oldest.deadline)
        return min(times, default=None)

    def elapse(self, now: float, reasons: str = "") -> int:
        """Settle what is past its deadline, end the pauses that are over.

        Args:
            now: The time.
            reasons: Why no node took what was not sent, for its callers.

        Returns:
            How many appends ran out of time while they were in flight.
        """
        expired = []
        for append in self._unsettled.values():
            if append.deadline > now:
                break
            expired.append(append)
        unanswered = 0
        for append in expired:
            in_flight = append.state == State.IN_FLIGHT
            append.lost = append.lost or in_flight
            lane = self._land(append) if in_flight else None
            self._settle(append, _unacknowledged(append, reasons))
            unanswered += in_flight
            if lane is not None and not lane.in_flight:
                self._answered(append.session_id, lane, now)
        for session_id in tuple(self._pausing):
            if self._lanes[session_id].resume_at <= now:
                self._reopen(session_id)
        return unanswered

    def close(self, reason: str) -> None:
        """Settle everything: nothing will be sent any more."""
        for append in tuple(self._unsettled.values()):
            if append.state == State.IN_FLIGHT or append.lost:
                self._settle(append, OutcomeUnknown(f"{reason}; the append was sent and may have been written"))
            else:
                self._settle(append, Unavailable(f"{reason}; the append was not written"))
        self.disconnect()

    def _room(self) -> bool:
        return self._in_flight < self._max_in_flight and self._in_flight_bytes < self._max_in_flight_bytes

    def _land(self, append: PendingAppend) -> SessionLane:
        lane = self._lanes[append.session_id]
        lane.in_flight -= 1
        self._in_flight -= 1
        self._in_flight_bytes -= append.size
        return lane

    def _settle(self, append: PendingAppend, outcome: Appended | HeadwaterError) -> None:
        append.state = State.SETTLED
        del self._unsettled[append.request_id]
        completion = append.completion
        if completion.done():
            return
        if isinstance(outcome, Appended):
            completion.set_result(outcome)
        else:
            completion.set_exception(outcome)

    def _answered(self, session_id: str, lane: SessionLane, now: float) -> None:
        """The session's batch is answered: repeat what was refused, or let the next ones go."""
        if lane.refused:
            lane.refused = [append for append in lane.refused if append.state == State.REFUSED]
            for append in lane.refused:
                overtaken = append.request_id < lane.acknowledged_id
                # A write of unknown outcome has its place in the session already; it cannot be overtaken.
                if overtaken and not isinstance(append.refusal, OutcomeUnknown):
                    self._settle(append, _unacknowledged(append))
            lane.refused = [append for append in lane.refused if append.state == State.REFUSED]
        if not lane.refused:
            del self._lanes[session_id]
            if lane.held:
                self._waiting.extendleft(reversed(lane.held))
            return
        lane.resume_at = now + max(self._pause_seconds(append) for append in lane.refused)
        self._pausing.add(session_id)

    def _pause_seconds(self, append: PendingAppend) -> float:
        if append.backoff is None:
            append.backoff = self._new_backoff()
        return append.backoff.next_delay()

    def _reopen(self, session_id: str) -> None:
        self._pausing.remove(session_id)
        lane = self._lanes.pop(session_id)
        self._waiting.extendleft(reversed(lane.held))
        refused = [append for append in lane.refused if append.state == State.REFUSED]
        refused.sort(key=lambda append: append.request_id, reverse=True)
        for append in refused:
            append.state = State.WAITING
        self._waiting.extendleft(refused)


def _unacknowledged(append: PendingAppend, reasons: str = "") -> HeadwaterError:
    """The error of an append that is given up: what is known of it, and never more."""
    if append.lost:
        return OutcomeUnknown(
            f"no acknowledgement came in time for an append to session {append.session_id!r}; it may have been "
            f"written, and repeating it with idempotency key {append.request.idempotency_key!r} is safe"
        )
    if append.refusal is not None:
        return append.refusal
    untaken = f"no node took an append to session {append.session_id!r} in time; it was not written"
    return Unavailable(f"{untaken} ({reasons})" if reasons else untaken)
