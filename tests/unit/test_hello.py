"""What a standby's hello tells of its log is what the primary reads out of it."""

from __future__ import annotations

import pytest

from agent_core.position import START, EpochStart, EpochTable, Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import epoch_table, to_message
from primary.greeting import Greeting, greet


def hello(table: EpochTable) -> pb.Hello:
    return pb.Hello(
        base=to_message(table.base),
        last=to_message(table.last),
        epochs=[pb.EpochStart(epoch=start.epoch, first_lsn=start.first_lsn) for start in table.starts],
    )


DIVERGED = EpochTable(Position(1, 10), (EpochStart(2, 11),), Position(2, 15))
"""A log that was begun anew after 1:10, and then took records that no other log has."""


@pytest.mark.parametrize(
    "table",
    [EpochTable(START, (), START), EpochTable(Position(2, 9), (), Position(2, 9)), DIVERGED],
)
def test_a_table_of_epochs_arrives_as_it_was(table: EpochTable) -> None:
    assert epoch_table(hello(table)) == table


def test_a_log_whose_every_record_diverged_is_cut_back_to_its_base_instead_of_resynced() -> None:
    ours = EpochTable(START, (EpochStart(1, 1), EpochStart(3, 11)), Position(3, 40))
    theirs = epoch_table(hello(DIVERGED))
    assert greet(ours, theirs, committed_lsn=40) == Greeting(Position(1, 10), resync_required=False)


@pytest.mark.parametrize(
    "base", [Position(1, 9), Position(1, 11), Position(3, 10)], ids=["before", "past", "of a later epoch"]
)
def test_a_base_that_the_first_epoch_does_not_follow_is_refused(base: Position) -> None:
    with pytest.raises(ValueError, match="does not follow the base"):
        epoch_table(hello(EpochTable(base, DIVERGED.starts, DIVERGED.last)))


def test_a_log_without_records_ends_at_its_base() -> None:
    with pytest.raises(ValueError, match="must end at its base"):
        epoch_table(hello(EpochTable(Position(1, 3), (), Position(1, 4))))
