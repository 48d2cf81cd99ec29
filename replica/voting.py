"""How a voter answers a candidate. Pure.

This is Raft's vote: a voter gives an epoch to one candidate only, and only to one whose log holds at least what
its own log holds. With a majority sealed, the candidate therefore holds everything that was ever committed. And it
gives none while the present primary may still answer reads on the strength of this voter's silence (its lease).
"""

from __future__ import annotations

from dataclasses import dataclass

from agent_core.control.cluster_map import Placement
from agent_core.position import Position


@dataclass(frozen=True, slots=True)
class Promise:
    """To follow no epoch below `epoch`.

    Attributes:
        epoch: 0 when nothing was ever promised.
        candidate: The node that it was given to: who asked for the seal, or who was found leading that epoch.
    """

    epoch: int = 0
    candidate: str = ""

    def given_to(self, node: str) -> int:
        """The epoch, if it was promised to this node; else 0."""
        return self.epoch if self.candidate == node else 0


@dataclass(frozen=True, slots=True)
class SealQuestion:
    """A candidate wants to lead `epoch`; its log ends at `last`."""

    epoch: int
    candidate: str
    last: Position


@dataclass(frozen=True, slots=True)
class Sealed:
    """Agreed; the promise must be durable before the candidate hears of it."""

    promise: Promise


@dataclass(frozen=True, slots=True)
class Refused:
    """Not agreed: what was promised already, where the voter's own log ends, and how long a lease binds it."""

    promised_epoch: int
    last: Position
    lease_seconds: float = 0.0


@dataclass(slots=True)
class PrimaryWatch:
    """What a voter knows of the present primary's lease.

    A voter that just started may have heard the primary a moment before it stopped, so it counts as having heard.

    Attributes:
        lease_seconds: How long after a heartbeat no other candidate is sealed.
        heard_at: When the primary was last heard, in seconds on the voter's clock.
        primary: Who it was; empty for a voter that only just started.
    """

    lease_seconds: float
    heard_at: float
    primary: str = ""

    def heard(self, now: float) -> None:
        """A heartbeat came."""
        self.heard_at = now

    def released(self) -> None:
        """The primary gave up its lease: it handed over or stepped down, or its process is gone."""
        self.heard_at = float("-inf")

    def binding_seconds(self, now: float) -> float:
        """For how long the lease still binds; 0 when it does not."""
        return max(0.0, self.heard_at + self.lease_seconds - now)


def decide(
    promise: Promise, own_last: Position, question: SealQuestion, lease_seconds: float = 0.0
) -> Sealed | Refused:
    """Answer a candidate.

    Args:
        promise: What was promised.
        own_last: The end of this voter's log, as it counts for votes (`agent_core.log.durable_mark.LogEnd`).
        question: What the candidate asks for.
        lease_seconds: For how long a lease of the present primary still binds this voter.

    A question for the very epoch that was promised is refused even to the same candidate: it may have lost its
    disk since, and would write that epoch's records a second time. It asks for a higher epoch; epochs are cheap.
    """
    if question.epoch <= promise.epoch or own_last > question.last or lease_seconds > 0:
        return Refused(promise.epoch, own_last, lease_seconds)
    return Sealed(Promise(question.epoch, question.candidate))


def presumed_primary(promise: Promise, placement: Placement, *, node_id: str, misled_by: str = "") -> str | None:
    """The node to follow: who was promised the highest epoch, or else whom the map names; None when it is neither.

    Args:
        promise: This node's.
        placement: The group's, as the map shows it.
        node_id: This node, which does not follow itself.
        misled_by: A node that was presumed and does not lead: another one is named, if any comes into question.
    """
    names = [promise.candidate, placement.primary or ""]
    if placement.epoch > promise.epoch:
        names.reverse()
    others = [name for name in names if name and name != node_id]
    return min(others, key=lambda name: name == misled_by, default=None)
