"""The product's decisions as the simulated nodes take them; `bugs.py` overrides one at a time."""

from __future__ import annotations

from agent_core.position import Position
from agent_core.quorum import CommitTracker
from primary.electing.lease import Lease
from primary.opening import EpochOpening
from replica.voting import PrimaryWatch, Promise, Refused, Sealed, SealQuestion, decide


class Decisions:
    """All as the product does it.

    Attributes:
        promises_before_answering: A voter answers once its promise is durable.
        cuts_back: A standby cuts its log back to where it parts from its primary's.
        steps_down_when_its_voter_seals: A primary acknowledges nothing once its own voter sealed another.
        remembers_primaries: A voter that starts may have heard its primary a moment ago.
    """

    promises_before_answering = True
    cuts_back = True
    steps_down_when_its_voter_seals = True
    remembers_primaries = True

    def answer(
        self, promise: Promise, last: Position, question: SealQuestion, lease_seconds: float
    ) -> Sealed | Refused:
        """How a voter answers a candidate."""
        return decide(promise, last, question, lease_seconds)

    def binding_seconds(self, watch: PrimaryWatch, now: float) -> float:
        """For how long the lease of the present primary binds a voter."""
        return watch.binding_seconds(now)

    def floor(self, promised_epoch: int) -> int:
        """Below which epoch a standby refuses what comes."""
        return promised_epoch

    def tracker(self, primary: str, voters: frozenset[str], opening_lsn: int) -> CommitTracker:
        """Counts what is committed."""
        return CommitTracker(primary, voters, opening_lsn)

    def lease(self, primary: str, voters: frozenset[str], lease_seconds: float) -> Lease:
        """Until when a primary answers reads."""
        return Lease(primary, voters, lease_seconds)

    def applicable_lsn(self, committed_lsn: int, last_lsn: int) -> int:
        """Up to where a standby applies its log, which ends at `last_lsn`."""
        return min(committed_lsn, last_lsn)

    def may_install(self, *, committed: bool) -> bool:
        """Whether what a resync brought goes into the shard."""
        return committed

    def opening(self, voters: frozenset[str], last: Position, promised_epoch: int) -> EpochOpening:
        """Collects a candidate's votes."""
        return EpochOpening(voters=voters, last=last, promised_epoch=promised_epoch)
