"""What is read from page images without SQLite."""

from __future__ import annotations

import pytest

from agent_core.database.build import PAGE_SIZE
from agent_core.database.pages import PageSnapshot, find_replication_row, page_digest
from agent_core.database.schema import read_position
from agent_core.errors import ShardDamaged
from agent_core.position import Position
from tests.unit.shard_histories import CLUSTER, SHARD, History


def test_the_replication_row_is_found_in_page_images_whatever_the_size_of_the_schema(history: History) -> None:
    for number in range(40):
        history.commit(f"CREATE TABLE wide_{number} ({', '.join(f'column_{c} TEXT' for c in range(60))})")
    history.vacuum()
    history.commit("UPDATE replication SET epoch = epoch")
    snapshot = PageSnapshot.open(history.path)
    row = find_replication_row(lambda number: snapshot.pages(number, 1))
    assert row == (CLUSTER, SHARD, snapshot.position)
    assert len(page_digest(snapshot.hashes(1, snapshot.page_count))) == 16
    snapshot.close()


@pytest.mark.parametrize(
    "position", [Position(1, 1), Position(127, 128), Position(1 << 20, 1 << 40), Position(2, 1 << 62)]
)
def test_positions_of_every_width_are_found_in_page_images(history: History, position: Position) -> None:
    history.commit()
    history.connection.execute("UPDATE replication SET epoch=?, lsn=?", position)
    snapshot = PageSnapshot.open(history.path)
    assert find_replication_row(lambda number: snapshot.pages(number, 1)) == (CLUSTER, SHARD, position)
    assert read_position(history.connection) == position
    snapshot.close()


@pytest.mark.parametrize(
    "image", [bytes(PAGE_SIZE), b"\xff" * PAGE_SIZE, bytes(100) + b"\x05" + bytes(PAGE_SIZE - 101)]
)
def test_images_that_hold_no_table_are_damage(image: bytes) -> None:
    with pytest.raises(ShardDamaged):
        find_replication_row(lambda _: image)
