"""How long a primary may answer reads without asking anybody. Pure: no clock, no socket.

A heartbeat goes out with the moment of its sending on the primary's clock, and comes back with the standby's
next report. A voter seals no other candidate within the lease time after it heard a heartbeat; it heard it after
it was sent. So as long as a majority has echoed heartbeats that were sent within the lease time, no other node can
have been sealed by a majority, and what this primary has in memory is the newest there is (Ongaro, "Consensus:
bridging theory and practice", section 6.4.1). This assumes that no clock runs faster than another by more than
`DRIFT`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_core.quorum import majority

DRIFT = 0.05
"""By how much of the lease time two clocks may drift apart while it lasts."""


@dataclass(slots=True)
class Lease:
    """One primary's lease on one group in one epoch.

    Attributes:
        primary: The node that leads.
        voters: All voters of the group, the primary among them.
        lease_seconds: How long a voter that heard the primary seals nobody else.
    """

    primary: str
    voters: frozenset[str]
    lease_seconds: float
    _echoed: dict[str, float] = field(default_factory=dict)

    def echoed(self, node: str, sent_at: float) -> None:
        """A standby answered a heartbeat that this primary had sent at `sent_at`, by its own clock in seconds."""
        if node in self.voters:
            self._echoed[node] = max(sent_at, self._echoed.get(node, sent_at))

    def valid_until(self) -> float:
        """The moment on the primary's clock at which the lease ends; minus infinity when there was none."""
        others = majority(len(self.voters)) - 1
        if others == 0:
            return float("inf")
        newest = sorted((at for node, at in self._echoed.items() if node != self.primary), reverse=True)
        if len(newest) < others:
            return float("-inf")
        return newest[others - 1] + self.lease_seconds * (1 - DRIFT)

    def remaining_seconds(self, now: float) -> float:
        """How long the lease is still valid; at most the lease time, also where nobody must be asked."""
        return min(max(0.0, self.valid_until() - now), self.lease_seconds)

    def valid(self, now: float) -> bool:
        """Whether a read that begins and ends at `now` is linearizable."""
        return now < self.valid_until()
