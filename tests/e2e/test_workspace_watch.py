"""`headwater workspace sync` follows a folder while the cluster lives, and while its primary is killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent_core.client.workspaces import Workspaces
from agent_core.errors import HeadwaterError
from ops.benchmarks.placement import let_lead
from ops.local_cluster import LocalCluster
from ops.workspace.folder import Folder
from tests.e2e.cluster_under_load import differing
from tests.plans import small_plan

DEADLINE_SECONDS = 60


@asynccontextmanager
async def following(folder: Path, node: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command as a process, until its folder needs no following."""
    # As at a terminal: what a shell runs in its background, as tests may, begins with interrupts ignored.
    interruptible = ("env", "--default-signal=INT")
    command = (*interruptible, sys.executable, "-m", "ops.cli.main", "workspace", "sync", str(folder), *options)
    process = await asyncio.create_subprocess_exec(
        *command, "--workspace", "w", "--node", node, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def indexed(node: str) -> dict[str, str]:
    """What a node holds, by path; nothing while it cannot say."""
    try:
        async with Workspaces(node, timeout_seconds=2) as index:
            return {one.path: one.content_hash async for one in index.documents("w")}
    except HeadwaterError:
        return {}


async def until_equal(folder: Path, nodes: list[str]) -> None:
    """Wait until every node's index holds what the folder holds."""
    wanted = Folder(folder).scan().hashes
    async with asyncio.timeout(DEADLINE_SECONDS):
        for node in nodes:
            while await indexed(node) != wanted:
                await asyncio.sleep(0.05)


async def test_a_watched_folder_is_followed_also_past_the_death_of_the_primary(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "folder"
    (folder / "d").mkdir(parents=True)
    (folder / "a.md").write_text("---\nkind: note\n---\n[[b]]")
    async with LocalCluster(tmp_path / "cluster", small_plan()) as cluster:
        await let_lead(cluster, "node-1")
        nodes = [node.grpc_address for node in cluster.addresses]
        async with following(folder, nodes[1]) as process:
            await until_equal(folder, nodes)
            (folder / "d" / "b.md").write_text("b")
            await until_equal(folder, nodes)
            (folder / "d").rename(folder / "e")
            (folder / "a.md").write_text("---\nkind: note\n---\n[[b]] changed")
            await until_equal(folder, nodes)
            async with Workspaces(nodes[2]) as index:
                assert (await index.document("w", "a.md")).links[0].target_path == "e/b.md"
            await cluster.kill("node-1")
            (folder / "e" / "b.md").unlink()
            (folder / "c.md").write_text("written while nobody led")
            await until_equal(folder, nodes[1:])
            await cluster.restart("node-1")
            (folder / "last.md").write_text("and the last")
            await until_equal(folder, nodes)
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await process.communicate()
            assert process.returncode == 130
        assert await differing(cluster) == []


async def test_a_command_whose_workspace_is_taken_over_ends_and_says_by_whom(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / f"{folder.name}.md").write_text(folder.name)
    async with LocalCluster(tmp_path / "cluster", small_plan()) as cluster:
        nodes = [node.grpc_address for node in cluster.addresses]
        async with following(one, nodes[0]) as former, asyncio.timeout(DEADLINE_SECONDS):
            await until_equal(one, nodes)
            async with following(two, nodes[1], "--take-over") as present:
                await until_equal(two, nodes)
                (one / "late.md").write_text("must not arrive")
                _, said = await former.communicate()
                assert former.returncode == 5
                assert f":{two}', last heard " in said.decode()
                assert said.decode().startswith("headwater: workspace 'w' was taken over by ")
                (two / "next.md").write_text("arrives")
                await until_equal(two, nodes)
                assert present.returncode is None
