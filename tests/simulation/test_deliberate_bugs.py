"""The simulation catches what it is for: each bug, switched on alone, is found within a bounded number of seeds."""

from __future__ import annotations

import re

import pytest

from tests.simulation import bugs
from tests.simulation.decisions import Decisions
from tests.simulation.simulation import Failed, simulate

SEEDS = 250

LOST = "was committed before|shares its history only up to|acknowledged as entry"
LEASE = "there before the read"


@pytest.mark.parametrize(
    ("bug", "found_as", "overtakes_only"),
    [
        (bugs.SkipsTheDurablePromise, f"two primaries|{LOST}", None),
        (bugs.AcknowledgesBeforeTheQuorum, "which is not committed", None),
        (bugs.FollowsLowerEpochs, LOST, None),
        (bugs.VotesForAShorterLog, LOST, None),
        (bugs.AppliesBeforeTheCommit, "to its shard, which is not committed", None),
        (bugs.InstallsAResyncBeforeItsCommit, "to its shard, which is not committed", None),
        (bugs.KeepsAPartedLog, f"holds another record|hold durably|to its shard, which is not|{LOST}", None),
        (bugs.ReusesAnEpoch, "two primaries", None),
        (bugs.CommitsAnOldEpochByCount, "of an earlier epoch than its own", None),
        (bugs.AcknowledgesAfterItsVoterSealedAnother, "after it promised", None),
        (bugs.ServesReadsAfterTheLease, LEASE, True),
        (bugs.ForgetsThatItMayHaveHeardThePrimary, LEASE, True),
        (bugs.IgnoresTheLease, LEASE, True),
    ],
)
def test_each_deliberate_bug_is_caught(bug: type[Decisions], found_as: str, overtakes_only: bool | None) -> None:
    for seed in range(1, SEEDS + 1):
        try:
            simulate(seed, bug(), overtakes_only=overtakes_only)
        except Failed as failed:
            if re.search(found_as, str(failed).partition(f"seed {seed} failed")[2]):
                return
    pytest.fail(f"{bug.__name__} was not caught in {SEEDS} seeds")
