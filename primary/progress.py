"""One standby as its primary sees it: how far it is, and how much more may be sent to it.

           hello                welcome
    gone ────────▶ probing ──┬──────────▶ streaming
      ▲               ▲      │                │
      │               │      └─▶ resyncing    │
      │               │ hello      │          │
      │               └────────────┘          │
      └─────────── end of the stream ─────────┘

A standby that resyncs has no stream; it comes back with a hello. Pure: no socket, no log, no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from agent_core.errors import InvalidRequest
from agent_core.lag import CatchUpClock, Lag
from agent_core.stream import WINDOW_BYTES


class StandbyState(StrEnum):
    """What the primary does for a standby."""

    PROBING = "probing"
    """It said hello; where the two logs part is being found."""
    STREAMING = "streaming"
    """Records go out to it."""
    RESYNCING = "resyncing"
    """The log did not reach it; it fetches whole shards and says hello anew."""
    GONE = "gone"
    """It has no stream."""


@dataclass(slots=True)
class StandbyProgress:
    """One standby of one group in one epoch.

    Attributes:
        node: The standby.
        now: When the primary began to look at it.
        window_bytes: What may be sent and not yet durable.
        state: See `StandbyState`.
        changed_at: When the state last changed.
        sent_lsn: The last record that was handed to the stream.
        durable_lsn: What the standby acknowledged as durable.
        applied_lsn: What the standby said that its shards contain.
        needed_after_lsn: It can go on as long as the log holds everything after this.
        in_flight_bytes: Sent, and not acknowledged yet.
        sent_bytes: Records sent since the start.
    """

    node: str
    now: float
    window_bytes: int = WINDOW_BYTES
    state: StandbyState = StandbyState.GONE
    changed_at: float = field(init=False)
    sent_lsn: int = 0
    durable_lsn: int = 0
    applied_lsn: int = 0
    needed_after_lsn: int = 0
    in_flight_bytes: int = 0
    sent_bytes: int = 0
    _in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    _clock: CatchUpClock = field(init=False)

    def __post_init__(self) -> None:
        self.changed_at = self.now
        self._clock = CatchUpClock(self.now)

    def become_probing(self, now: float) -> None:
        """It said hello on a new stream; nothing is in flight any more."""
        self._become(StandbyState.PROBING, now)

    def become_streaming(self, shared_lsn: int, now: float) -> None:
        """Records go out after the last one that both logs hold."""
        self._become(StandbyState.STREAMING, now)
        self.sent_lsn = self.needed_after_lsn = shared_lsn
        self.durable_lsn = min(self.durable_lsn, shared_lsn)
        self.applied_lsn = min(self.applied_lsn, shared_lsn)
        self._clock.restart(self.applied_lsn)

    def become_resyncing(self, base_lsn: int, now: float) -> None:
        """It was told to resync every shard; its log will begin after `base_lsn`."""
        self._become(StandbyState.RESYNCING, now)
        self.sent_lsn = self.needed_after_lsn = base_lsn
        self.durable_lsn = self.applied_lsn = 0

    def become_gone(self, now: float) -> None:
        """Its stream ended."""
        self._become(StandbyState.GONE, now)

    def may_send(self, size: int) -> bool:
        """Whether `size` bytes fit the window now. What is larger than the window is sent when nothing else is."""
        if self.state is not StandbyState.STREAMING:
            return False
        return not self._in_flight or self.in_flight_bytes + size <= self.window_bytes

    def holds(self, lsn: int) -> bool:
        """Whether it has acknowledged on this stream everything up to `lsn`."""
        return self.state is StandbyState.STREAMING and self.durable_lsn >= lsn

    def sent(self, through_lsn: int, size: int) -> None:
        """`size` bytes of records up to `through_lsn` were handed to the stream."""
        self.sent_lsn = through_lsn
        self.in_flight_bytes += size
        self.sent_bytes += size
        self._in_flight.append((through_lsn, size))

    def saw_log_end(self, last_lsn: int, now: float) -> None:
        """The primary's log ends at `last_lsn` now; needed for the lag in seconds."""
        self._clock.saw(last_lsn, now)

    def acknowledge(self, durable_lsn: int, applied_lsn: int) -> None:
        """The standby told how far it is. Numbers below the known ones are old news and change nothing.

        Raises:
            InvalidRequest: It claims what was never sent to it.
        """
        if self.state is not StandbyState.STREAMING:
            raise InvalidRequest(f"progress came while the standby is {self.state}; allowed is it while streaming")
        if durable_lsn > self.sent_lsn:
            raise InvalidRequest(f"durable_lsn is {durable_lsn}; allowed is what was sent, at most {self.sent_lsn}")
        if applied_lsn > self.sent_lsn:
            raise InvalidRequest(f"applied_lsn is {applied_lsn}; allowed is what was sent, at most {self.sent_lsn}")
        self.durable_lsn = max(self.durable_lsn, durable_lsn)
        self.applied_lsn = max(self.applied_lsn, applied_lsn)
        self.needed_after_lsn = max(self.needed_after_lsn, durable_lsn)
        while self._in_flight and self._in_flight[0][0] <= durable_lsn:
            self.in_flight_bytes -= self._in_flight.popleft()[1]
        self._clock.reached(self.applied_lsn)

    def lag(self, last_lsn: int, bytes_behind: int, now: float) -> Lag:
        """How far its shards are behind.

        Args:
            last_lsn: The end of the primary's log.
            bytes_behind: Bytes of log after `applied_lsn`.
            now: The present, on the clock of every other call.
        """
        transactions = max(0, last_lsn - self.applied_lsn)
        if transactions == 0:
            return Lag(0, 0, 0.0)
        return Lag(transactions, bytes_behind, self._clock.seconds(now))

    def _become(self, state: StandbyState, now: float) -> None:
        self.state = state
        self.changed_at = now
        self.in_flight_bytes = 0
        self._in_flight.clear()
