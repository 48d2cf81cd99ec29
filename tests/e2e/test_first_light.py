"""Three real processes carry real transcripts while each of them is killed in turn."""

from __future__ import annotations

from pathlib import Path

from agent_core.client import Client
from agent_core.transcripts import ImportedEntry, read_transcript
from ops.benchmarks.placement import let_lead
from ops.cluster_files import ClusterPlan
from ops.importing import import_files, transcript_files
from ops.local_cluster import LocalCluster
from ops.sample_transcripts import sample_paths
from tests.e2e.cluster_under_load import Written, assert_everywhere, load, roles
from tests.steady import STEADY

REAL = Path(__file__).parents[3] / "shared" / "data" / "transcripts"
WRITERS = 8
AS_SHIPPED = ClusterPlan(base_port=0, settings={"election": STEADY})
"""Beside the timing everything is the product's default, which other tests' clusters make smaller."""
ROLES = {"node-1": {"primary"}, "node-2": {"standby"}, "node-3": {"standby"}}


def real_files() -> list[Path]:
    """The real transcripts where they lie beside the project; else the product's own sample."""
    return transcript_files([REAL]) if REAL.is_dir() else sample_paths()


def entries_of(paths: list[Path]) -> Written:
    """The payloads of each session in these files."""
    expected: Written = {}
    for path in paths:
        for found in read_transcript(path):
            if isinstance(found, ImportedEntry):
                expected.setdefault(found.session_id, []).append(found.payload)
    return expected


async def test_every_acknowledged_entry_survives_the_kill_of_each_standby_in_turn_and_then_of_the_primary(
    tmp_path: Path,
) -> None:
    expected = entries_of(real_files())
    async with LocalCluster(tmp_path, AS_SHIPPED) as cluster:
        await let_lead(cluster, "node-1")
        addresses = [node.grpc_address for node in cluster.addresses]
        async with Client(addresses, timeout_seconds=60) as client:
            summary = await import_files(client, real_files())
            assert summary.entries_added == sum(len(payloads) for payloads in expected.values())
            again = await import_files(client, real_files())
            assert (again.entries_added, again.entries_already_there) == (0, summary.entries_added)
            async with load(client, writers=WRITERS) as running:
                for node in ("node-2", "node-3", "node-1"):
                    await running.more()
                    assert await roles(cluster) == ROLES
                    await cluster.kill(node)
                    await running.more()
                    await cluster.restart(node)
                    assert (await roles(cluster))[node] == {"standby"}
                await running.more()
        await assert_everywhere(cluster, {**expected, **running.written})
