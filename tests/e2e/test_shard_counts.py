"""The whole cluster with other numbers of shards and of groups than the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_core.client import Client
from ops.importing import import_files
from ops.local_cluster import LocalCluster
from ops.sample_transcripts import sample_paths
from tests.e2e.cluster_under_load import assert_everywhere, load
from tests.e2e.test_first_light import entries_of
from tests.plans import small_plan


@pytest.mark.parametrize(("shards", "groups"), [(8, 1), (8, 8), (128, 3)])
async def test_a_cluster_of_any_number_of_shards_and_groups_outlives_the_kill_of_a_node(
    tmp_path: Path, shards: int, groups: int
) -> None:
    expected = entries_of(sample_paths())
    plan = small_plan(cluster={"shard_count": shards, "shard_group_count": groups})
    async with LocalCluster(tmp_path, plan) as cluster:
        addresses = [node.grpc_address for node in cluster.addresses]
        async with Client(addresses, timeout_seconds=60) as client:
            summary = await import_files(client, sample_paths())
            assert summary.entries_added == sum(map(len, expected.values()))
            async with load(client, writers=8) as running:
                await running.more(100)
                await cluster.kill("node-3")
                await running.more(100)
                await cluster.restart("node-3")
                await running.more(100)
        await assert_everywhere(cluster, {**expected, **running.written})
