"""Why a record of an earlier epoch is not committed by count alone: figure 8 of the Raft paper, step by step.

By chance this comes about too rarely for a test: two of the seeds 1 to 3,999 lost a committed record, with the rule
left out that catches the counting itself.
"""

from __future__ import annotations

import pytest

from agent_core.position import START, EpochStart, EpochTable, Position, shared_point
from primary.opening import Ask, Opened, Vote
from replica.voting import Promise, Sealed, SealQuestion
from tests.simulation.bugs import CommitsAnOldEpochByCount
from tests.simulation.decisions import Decisions

VOTERS = frozenset("abcde")


class Voters:
    """Five voters' logs, as the epoch of each record, and their promises."""

    def __init__(self, decisions: Decisions) -> None:
        self.logs: dict[str, list[int]] = {name: [] for name in VOTERS}
        self._decisions = decisions
        self._promises = dict.fromkeys(VOTERS, Promise())

    def table(self, name: str) -> EpochTable:
        epochs = self.logs[name]
        starts = tuple(EpochStart(epoch, epochs.index(epoch) + 1) for epoch in sorted(set(epochs)))
        return EpochTable(START, starts, Position(epochs[-1], len(epochs)) if epochs else START)

    def elect(self, candidate: str, epoch: int, *reached: str) -> None:
        """`candidate` comes to lead `epoch` by the seals of those it reaches; its log gets the first record."""
        last = self.table(candidate).last
        opening = self._decisions.opening(VOTERS, last, epoch - 1)
        assert isinstance(opening.next_step(), Ask)
        for name in reached:
            question = SealQuestion(opening.epoch, candidate, last)
            answer = self._decisions.answer(self._promises[name], self.table(name).last, question, 0.0)
            assert isinstance(answer, Sealed), f"{name} refuses {candidate}"
            self._promises[name] = answer.promise
            opening.answer(name, opening.epoch, Vote(True, opening.epoch, self.table(name).last))
        assert opening.next_step() == Opened(epoch)
        self.logs[candidate].append(epoch)

    def follow(self, standby: str, primary: str, lsn: int) -> None:
        """`standby` cuts its log to what it shares with `primary`'s, and holds that one's up to `lsn` durably."""
        shared = shared_point(self.table(primary), self.table(standby))
        assert shared is not None
        self.logs[standby] = self.logs[standby][: shared.lsn] + self.logs[primary][shared.lsn : lsn]


@pytest.mark.parametrize(("decisions", "loses"), [(Decisions(), False), (CommitsAnOldEpochByCount(), True)])
def test_counting_an_old_epochs_record_loses_it_to_a_primary_that_never_held_it(
    decisions: Decisions, *, loses: bool
) -> None:
    voters = Voters(decisions)
    voters.elect("a", 1, *"abcde")
    for standby in "bcde":
        voters.follow(standby, "a", 1)
    voters.logs["a"].append(1)
    voters.follow("b", "a", 2)  # a client's write, and then their network is cut
    written = Position(1, 2)

    voters.elect("e", 2, *"cde")  # and is cut off before anybody has its first record
    voters.elect("a", 3, *"abc")
    tracker = decisions.tracker("a", VOTERS, opening_lsn=3)
    voters.follow("c", "a", 2)
    for name, log in voters.logs.items():
        if name in "abc":
            tracker.durable(name, len(log))
    acknowledged = tracker.committed_lsn >= written.lsn

    voters.elect("e", 4, *"bcde")  # `a` is dead; the log of `e` ends in a later epoch than those of `b` and `c`
    for standby in "abcd":
        voters.follow(standby, "e", 3)
    assert not any(voters.table(name).contains(written) for name in VOTERS)
    assert acknowledged == loses, "what is acknowledged must be there"
