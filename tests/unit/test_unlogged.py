"""What a crash left in a shard and not in the log is logged only by the node that committed it."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_core.database.schema import shard_path
from agent_core.database.thread import DatabaseThread
from agent_core.log.log import ReplicationLog
from agent_core.position import Position
from primary.unlogged import log_unlogged
from replica.apply import ShardApplier
from tests.unit.resync.harness import Thread, resync_of, source_of
from tests.unit.shard_histories import CLUSTER, SHARD, History
from tests.unit.standby_harness import GROUP, LAYOUT


@pytest.fixture
async def thread(tmp_path: Path) -> AsyncIterator[Thread]:
    path = shard_path(tmp_path / "standby", LAYOUT.shard_file_name(SHARD))
    path.parent.mkdir(parents=True)
    thread = await DatabaseThread.start(
        lambda: ShardApplier.open(path, cluster_id=CLUSTER, shard=SHARD), name="applying"
    )
    yield thread
    await thread.close()


@pytest.mark.parametrize("led_epoch", [0, 1, 2])
async def test_what_a_resync_brought_one_past_the_log_is_no_record_of_this_node(
    tmp_path: Path, history: History, thread: Thread, led_epoch: int
) -> None:
    await resync_of(thread).run(source_of(history).serve)
    assert history.position == Position(1, 1)
    crashed = tmp_path / "crashed"
    shutil.copytree(tmp_path / "standby", crashed)  # as a kill leaves it: closing would empty the WAL
    log = ReplicationLog.open(crashed / "log", cluster_id=CLUSTER, group=GROUP)
    left = log_unlogged(crashed, LAYOUT, GROUP, log, led_epoch=led_epoch)
    if led_epoch == 1:
        assert (left, log.last) == (frozenset(), Position(1, 1))  # had it led, this would be its transaction
    else:
        assert (left, log.last) == (frozenset({SHARD}), Position(0, 0))
    log.close()
