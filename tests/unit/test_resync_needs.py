"""Which shards wait for a resync, and what is acknowledged meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent_core.position import START, EpochStart, EpochTable, Position
from replica.receiving import Reset
from replica.resync_needs import ResyncNeeds
from replica.staging import ANY_BASE, StagedPages

HISTORY = EpochTable(START, (EpochStart(1, 1), EpochStart(2, 8)), Position(2, 10))

WITHIN = Position(2, 9)


@dataclass(frozen=True)
class Held:
    shard: int = 3
    holds: Position | None = WITHIN
    damage: str | None = None
    staged: StagedPages | None = None


def staged_at(position: Position, damage: str | None = None) -> Held:
    return Held(holds=position, damage=damage, staged=StagedPages(Path("s"), position, 1, 1, ANY_BASE))


def test_a_shard_within_the_log_needs_nothing() -> None:
    needs = ResyncNeeds({})
    assert needs.unfit([Held()], HISTORY) == {}
    assert needs.complete([Held()], HISTORY)
    assert needs.acknowledgeable(10) == 10


def test_a_reset_is_acknowledged_and_nothing_behind_it_until_the_shard_has_come() -> None:
    needs = ResyncNeeds({})
    assert needs.expect(Reset(3, 9), Position(2, 8))
    assert not needs.expect(Reset(4, 10), Position(2, 10))
    assert (needs.acknowledgeable(10), needs.reasons) == (9, {3: "record 9 resets it"})
    needs.resynced(3, Position(2, 8), epoch=2)
    assert needs.acknowledgeable(10) == 9
    needs.resynced(3, Position(2, 9), epoch=2)
    assert needs.acknowledgeable(10) == 10


def test_a_reset_that_the_log_was_cut_before_demands_nothing() -> None:
    needs = ResyncNeeds({3: 9, 4: 7})
    needs.cut_back(8)
    assert needs.reasons == {4: "record 7 resets it"}


def test_what_is_staged_stands_for_a_damaged_file() -> None:
    needs = ResyncNeeds({})
    assert needs.unfit([Held(damage="torn")], HISTORY) == {3: "torn"}
    assert needs.acknowledgeable(10) == 0
    assert needs.unfit([staged_at(Position(2, 10), damage="torn")], HISTORY) == {}
    assert needs.acknowledgeable(10) == 10


def test_what_is_past_the_log_is_fit_while_its_primary_is_followed_and_never_to_lead_with() -> None:
    needs = ResyncNeeds({})
    needs.epoch = 3
    ahead = staged_at(Position(3, 12))
    assert 3 in needs.unfit([ahead], HISTORY)
    needs.resynced(3, Position(3, 12), epoch=3)
    assert needs.unfit([ahead], HISTORY) == {}
    assert not needs.complete([ahead], HISTORY)
    # In the log's own last epoch it may lead: it resets the shard.
    assert needs.complete([staged_at(Position(2, 12))], HISTORY)
    needs.epoch = 4
    assert 3 in needs.unfit([ahead], HISTORY)


def test_an_order_stands_until_it_is_fulfilled() -> None:
    needs = ResyncNeeds({})
    needs.order(3)
    assert needs.acknowledgeable(10) == 0
    needs.resynced(3, Position(2, 10), epoch=2)
    # It is staged: a resync need not come twice, but if it is dropped the order still stands.
    assert needs.unfit([staged_at(Position(2, 10))], HISTORY) == {}
    assert needs.unfit([Held()], HISTORY) == {3: "an operator ordered its resync"}
    needs.fulfilled(3)
    assert needs.unfit([Held()], HISTORY) == {}
