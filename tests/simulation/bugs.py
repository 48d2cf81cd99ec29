"""Deliberate bugs, one class each: the product's decisions with one of them spoilt.

They show that the checkers see what they are for. None of them is a switch in the product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent_core.position import START, Position
from agent_core.quorum import Acknowledgement, CommitTracker
from primary.electing.lease import Lease
from primary.opening import EpochOpening
from replica.voting import PrimaryWatch, Promise, Refused, Sealed, SealQuestion, decide
from tests.simulation.decisions import Decisions


class SkipsTheDurablePromise(Decisions):
    """A voter answers a candidate without writing its promise to disk."""

    promises_before_answering = False


@dataclass(slots=True)
class _LocalTracker(CommitTracker):
    def safe_lsn(self, mode: Acknowledgement) -> int:
        del mode
        return self._durable.get(self.primary, 0)


class AcknowledgesBeforeTheQuorum(Decisions):
    """A primary acknowledges what its own log holds."""

    def tracker(self, primary: str, voters: frozenset[str], opening_lsn: int) -> CommitTracker:
        return _LocalTracker(primary, voters, opening_lsn)


class FollowsLowerEpochs(Decisions):
    """A standby accepts and acknowledges what a deposed primary sends."""

    def floor(self, promised_epoch: int) -> int:
        del promised_epoch
        return 0


class VotesForAShorterLog(Decisions):
    """A voter does not compare the candidate's log with its own."""

    def answer(
        self, promise: Promise, last: Position, question: SealQuestion, lease_seconds: float
    ) -> Sealed | Refused:
        verdict = decide(promise, START, question, lease_seconds)
        return replace(verdict, last=START) if isinstance(verdict, Refused) else verdict


class AppliesBeforeTheCommit(Decisions):
    """A standby applies everything that its log holds."""

    def applicable_lsn(self, committed_lsn: int, last_lsn: int) -> int:
        return max(committed_lsn, last_lsn)


class InstallsAResyncBeforeItsCommit(Decisions):
    """A standby brings into its shard what a resync brought, committed or not."""

    def may_install(self, *, committed: bool) -> bool:
        del committed
        return True


class KeepsAPartedLog(Decisions):
    """A standby keeps its records where its primary has others."""

    cuts_back = False


class _SameEpoch(EpochOpening):
    def __init__(self, *, voters: frozenset[str], last: Position, promised_epoch: int) -> None:
        super().__init__(voters=voters, last=last, promised_epoch=promised_epoch)
        self.epoch = max(1, self.promised_epoch)
        self.promised_epoch = self.epoch - 1


class ReusesAnEpoch(Decisions):
    """A candidate asks for the epoch that it knows of, and voters give one epoch more than once."""

    def opening(self, voters: frozenset[str], last: Position, promised_epoch: int) -> EpochOpening:
        return _SameEpoch(voters=voters, last=last, promised_epoch=promised_epoch)

    def answer(
        self, promise: Promise, last: Position, question: SealQuestion, lease_seconds: float
    ) -> Sealed | Refused:
        return decide(replace(promise, epoch=max(0, promise.epoch - 1)), last, question, lease_seconds)


class CommitsAnOldEpochByCount(Decisions):
    """A primary counts records of earlier epochs before the one that opened its own.

    Seeds catch the counting, by a rule of the checkers. What it leads to is played in `test_old_epoch.py`.
    """

    def tracker(self, primary: str, voters: frozenset[str], opening_lsn: int) -> CommitTracker:
        del opening_lsn
        return CommitTracker(primary, voters, opening_lsn=0)


@dataclass(slots=True)
class _EndlessLease(Lease):
    def valid(self, now: float) -> bool:
        del now
        return True


class ServesReadsAfterTheLease(Decisions):
    """A primary answers reads for as long as it takes itself for one."""

    def lease(self, primary: str, voters: frozenset[str], lease_seconds: float) -> Lease:
        return _EndlessLease(primary, voters, lease_seconds)


class AcknowledgesAfterItsVoterSealedAnother(Decisions):
    """A primary goes on although its own vote went to another node."""

    steps_down_when_its_voter_seals = False


class ForgetsThatItMayHaveHeardThePrimary(Decisions):
    """A voter that restarted seals another node at once, while the primary still counts on its silence."""

    remembers_primaries = False


class IgnoresTheLease(Decisions):
    """A voter seals another node although it heard the primary a moment ago."""

    def binding_seconds(self, watch: PrimaryWatch, now: float) -> float:
        del watch, now
        return 0.0
