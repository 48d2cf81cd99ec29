"""What is refused, and what a refusal, an error or a kill leaves: the old state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_core.database.build import PAGE_SIZE, open_for_writing
from agent_core.database.pages import LOCK_PAGE, MAX_PAGE_COUNT
from agent_core.errors import ShardDamaged, Unavailable, WriteFailed, WrongCluster
from agent_core.log.record import Record, RecordKind
from agent_core.position import Position
from replica.apply import ShardApplier
from tests.unit.apply.harness import assert_identical, open_standby, rewritten
from tests.unit.shard_histories import CLUSTER, SHARD, History, pages_of

HOSTILE: dict[str, Callable[[Record], Record]] = {
    "page 0": lambda record: rewritten(record, 0),
    "the lock page": lambda record: rewritten(record, LOCK_PAGE)._replace(page_count=LOCK_PAGE + 5),
    "no frames": lambda record: record._replace(frames=b""),
    "a torn frame": lambda record: record._replace(frames=record.frames[:-1]),
    "half a frame more": lambda record: record._replace(frames=record.frames + bytes(2000)),
    "no pages left": lambda record: record._replace(page_count=0),
    "more pages than allowed": lambda record: record._replace(page_count=MAX_PAGE_COUNT + 1),
    "growth without pages": lambda record: record._replace(page_count=record.page_count + 1),
    "growth by far": lambda record: rewritten(record, MAX_PAGE_COUNT)._replace(page_count=MAX_PAGE_COUNT),
    "another shard": lambda record: record._replace(shard=SHARD + 1),
    "another kind": lambda record: record._replace(kind=RecordKind.RESET),
    "a lower epoch": lambda record: record._replace(position=Position(0, record.position.lsn)),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_record_that_no_primary_writes_is_refused_before_anything_is_written(
    standby: ShardApplier, history: History, hostile: Callable[[Record], Record]
) -> None:
    standby.apply(history.records)
    before, wal_bytes = pages_of(standby.path), standby.wal_bytes
    good = history.fill(2)
    with pytest.raises(ShardDamaged):
        standby.apply([hostile(good)])
    assert (standby.applied, standby.wal_bytes, standby.pages_written) == (
        Position(1, 1),
        wal_bytes,
        len(before) // PAGE_SIZE,
    )
    assert pages_of(standby.path) == before
    standby.apply([good])
    assert_identical(standby, history)


def test_an_error_within_the_transaction_leaves_the_old_state(standby: ShardApplier, history: History) -> None:
    standby.apply(history.records)
    before = pages_of(standby.path)
    assert standby._connection is not None
    standby._connection.execute(f"PRAGMA shard.max_page_count={standby.page_count + 1}")
    history.fill(100)
    with pytest.raises(WriteFailed, match="full"):
        standby.apply(history.records)
    assert standby.applied == Position(1, 1)
    assert pages_of(standby.path) == before
    standby._connection.execute(f"PRAGMA shard.max_page_count={MAX_PAGE_COUNT}")
    standby.apply(history.records)
    assert_identical(standby, history)


KILLED_WITHIN_A_TRANSACTION = """
import sys
from pathlib import Path
from agent_core.database.build import open_for_applying
connection = open_for_applying(Path(sys.argv[1]))
connection.execute("PRAGMA cache_size=10")
connection.execute("BEGIN IMMEDIATE")
for number in range(1, 200):
    connection.execute(
        "INSERT INTO sqlite_dbpage (pgno, data, schema) VALUES (?, zeroblob(4096), 'shard')", (number,)
    )
print("written", flush=True)
sys.stdin.read()
"""


def test_a_process_killed_within_a_transaction_leaves_the_old_state(tmp_path: Path, history: History) -> None:
    standby = open_standby(tmp_path / "standby.db")
    history.fill(30)
    standby.apply(history.records)
    before = pages_of(standby.path)
    standby.close()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_WITHIN_A_TRANSACTION, str(standby.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    again = open_standby(tmp_path / "standby.db")
    assert again.applied == history.position
    assert pages_of(again.path) == before
    again.close()


def test_a_shard_of_another_cluster_or_number_is_refused_and_left_alone(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    standby = open_standby(path)
    standby.apply(history.records)
    standby.close()
    before = path.read_bytes()
    for cluster_id, shard in (("another", SHARD), (CLUSTER, SHARD + 1)):
        with pytest.raises(WrongCluster, match="expects"):
            ShardApplier.open(path, cluster_id=cluster_id, shard=shard)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_damage_and_kept_until_a_resync(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    garbage = os.urandom(3 * PAGE_SIZE)
    path.write_bytes(garbage)
    standby = open_standby(path)
    assert standby.damage is not None
    assert "not a database" in standby.damage
    assert not standby.readable
    with pytest.raises(ShardDamaged, match="not a database"):
        standby.apply(history.records)
    assert path.read_bytes() == garbage


def test_a_file_with_other_pages_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "standby.db"
    script = """if True:
        import sys
        from sqlean import dbapi2
        connection = dbapi2.connect(sys.argv[1])
        connection.execute("PRAGMA page_size=1024")
        connection.execute("CREATE TABLE t (a)")
    """
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    standby = open_standby(path)
    assert standby.damage is not None
    assert "1024" in standby.damage


def test_a_file_whose_row_cannot_be_found_applies_nothing(tmp_path: Path, history: History) -> None:
    path = tmp_path / "standby.db"
    connection = open_for_writing(path)
    connection.execute("CREATE TABLE replication (id INTEGER PRIMARY KEY)")
    connection.close()
    standby = open_standby(path)
    assert standby.readable
    with pytest.raises(ShardDamaged, match="replication"):
        standby.apply(history.records)
    standby.close()


def test_a_missing_directory_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="shard 3 cannot be opened"):
        open_standby(tmp_path / "nowhere" / "standby.db")
