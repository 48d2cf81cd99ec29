"""How long the resync of a reset waits for the reset to be committed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from replica import reset_patience
from replica.receiving import Reset
from replica.reset_patience import ResetPatience
from replica.resync_needs import ResyncNeeds
from tests.waiting import until


@dataclass
class Resets:
    """A group that loses patience quickly."""

    needs: ResyncNeeds
    patience: ResetPatience
    lost: list[None]

    def come(self, shard: int, lsn: int) -> None:
        assert self.needs.expect(Reset(shard, lsn), None)
        self.patience.begin(shard)


@pytest.fixture
def resets(monkeypatch: pytest.MonkeyPatch) -> Resets:
    monkeypatch.setattr(reset_patience, "RESET_PATIENCE_SECONDS", 0.02)
    needs, lost = ResyncNeeds({}), list[None]()
    return Resets(needs, ResetPatience(needs, on_lost=lambda: lost.append(None)), lost)


async def test_resets_that_are_not_committed_in_time_are_overdue_in_their_order(resets: Resets) -> None:
    resets.come(3, 12)
    resets.come(1, 15)
    assert resets.patience.overdue() == []
    await until(lambda: len(resets.lost) == 2)
    assert resets.patience.overdue() == [3, 1]


async def test_one_that_becomes_overdue_while_another_is_resynced_stays_so(resets: Resets) -> None:
    resets.come(3, 12)
    await until(lambda: resets.patience.overdue() == [3])
    resets.come(1, 15)
    await until(lambda: len(resets.lost) == 2)
    resets.patience.resynced(3)
    assert resets.patience.overdue() == [1]


async def test_one_that_was_resynced_or_cut_off_in_time_is_not(resets: Resets) -> None:
    resets.come(3, 12)
    resets.come(1, 15)
    resets.needs.cut_back(14)
    await until(lambda: len(resets.lost) == 1)
    assert resets.patience.overdue() == [3]


async def test_a_later_reset_of_the_shard_has_its_own_time(resets: Resets) -> None:
    resets.come(3, 12)
    await until(lambda: len(resets.lost) == 1)
    resets.needs.cut_back(11)
    resets.come(3, 20)
    assert resets.patience.overdue() == []
    await until(lambda: resets.patience.overdue() == [3])
