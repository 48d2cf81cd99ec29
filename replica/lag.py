"""A standby's own measure of its lag, from what it last heard. Pure.

It does not need the primary to be alive: when nothing is heard any more, the seconds grow.
"""

from __future__ import annotations

from agent_core.lag import CatchUpClock, Lag
from agent_core.stream import HEARTBEAT_SECONDS


class StandbyLag:
    """What one standby knows about how far it is behind.

    Attributes:
        heard_at: When the primary was last heard; None before the first time.
        last_lsn: The end of the primary's log as last heard.
    """

    def __init__(self, now: float, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._clock = CatchUpClock(now)
        self._silence_seconds = 2 * heartbeat_seconds
        self._applied_lsn = 0
        self._bytes_behind = 0
        self.heard_at: float | None = None
        self.last_lsn = 0

    def hear(self, *, last_lsn: int, bytes_behind: int, now: float) -> None:
        """The primary says where its log ends, and how many bytes of it are still to come."""
        self.heard_at = now
        self.last_lsn = last_lsn
        self._bytes_behind = bytes_behind
        self._clock.saw(last_lsn, now)

    def apply(self, applied_lsn: int) -> None:
        """The shards contain everything up to `applied_lsn`."""
        self._applied_lsn = applied_lsn
        self._clock.reached(applied_lsn)

    def restart(self, applied_lsn: int) -> None:
        """The log was begun anew, or cut back; the shards contain everything up to `applied_lsn`."""
        self._applied_lsn = applied_lsn
        self._clock.restart(applied_lsn)

    def measure(self, *, unapplied_bytes: int, now: float) -> Lag:
        """The lag at this moment.

        Args:
            unapplied_bytes: Bytes of the standby's own log that are not applied yet.
            now: The present, on the clock of every other call.
        """
        transactions = max(0, self.last_lsn - self._applied_lsn)
        heard = self.heard_at is not None and now - self.heard_at <= self._silence_seconds
        seconds = 0.0 if transactions == 0 and heard else self._clock.seconds(now)
        return Lag(transactions, self._bytes_behind + unapplied_bytes, seconds)
