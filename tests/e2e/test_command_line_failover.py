"""The command line goes on when the node that it was given is killed, as the client library does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent_core.client import Client
from ops.benchmarks.placement import let_lead
from ops.local_cluster import LocalCluster
from ops.sample_transcripts import sample_paths
from tests.e2e.relay import GET_CLUSTER, relay_before
from tests.plans import small_plan
from tests.waiting import until

HEADWATER = (sys.executable, "-P", "-m", "ops.cli.main")
SESSION = "followed"
HEARS_WITHIN_SECONDS = 30.0


async def headwater(nodes: str, *arguments: str) -> str:
    """What a command prints that was told the nodes by the environment; it succeeds."""
    process = await asyncio.create_subprocess_exec(
        *HEADWATER,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HEADWATER_NODE": nodes},
    )
    printed, told = await process.communicate()
    assert process.returncode == 0, (arguments, told.decode())
    return printed.decode()


@asynccontextmanager
async def tailed(nodes: list[str]) -> AsyncIterator[list[int]]:
    """The seqs that `headwater tail` prints, each as it comes; the nodes are named one by one."""
    named = [argument for node in nodes for argument in ("--node", node)]
    process = await asyncio.create_subprocess_exec(
        *HEADWATER, "tail", SESSION, "--json", *named, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    printed, seqs = process.stdout, list[int]()

    async def read() -> None:
        while line := await printed.readline():
            seqs.append(json.loads(line)["seq"])

    reading = asyncio.create_task(read())
    try:
        yield seqs
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading


async def test_commands_go_on_at_another_node_when_the_one_named_first_is_killed(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        await let_lead(cluster, "node-1")
        addresses = [node.grpc_address for node in cluster.addresses]
        nodes = ",".join(addresses)
        await headwater(nodes, "append", SESSION, "before", "--create")
        async with tailed(addresses) as seqs:
            await until(lambda: seqs == [1], seconds=HEARS_WITHIN_SECONDS)
            await cluster.kill("node-1")
            for text in ("while nobody leads, or another", "after"):
                await headwater(nodes, "append", SESSION, text)
            await until(lambda: len(seqs) >= 3, seconds=HEARS_WITHIN_SECONDS)
            await cluster.restart("node-1")
            await let_lead(cluster, "node-1")
            await headwater(nodes, "append", SESSION, "back")
            await cluster.kill("node-1")
            await headwater(nodes, "append", SESSION, "once more")
            await until(lambda: len(seqs) >= 5, seconds=HEARS_WITHIN_SECONDS)
            assert seqs == [1, 2, 3, 4, 5]


async def test_one_address_is_enough_once_the_other_nodes_were_learned_from_it(tmp_path: Path) -> None:
    """The address is a relay's, which tells when the client and the command have been told of the other nodes."""
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        await let_lead(cluster, "node-1")
        async with (
            relay_before(cluster.address("node-1").grpc_address) as relay,
            Client(relay.address, timeout_seconds=HEARS_WITHIN_SECONDS) as client,
        ):
            await client.create_session(session_id=SESSION)
            await until(lambda: relay.passed_on[GET_CLUSTER] == 1)
            async with tailed([relay.address]) as seqs:
                await client.append(SESSION, "message", {"text": "before"})
                await until(lambda: seqs == [1] and relay.passed_on[GET_CLUSTER] == 2, seconds=HEARS_WITHIN_SECONDS)
                await cluster.kill("node-1")
                for number in range(10):
                    await client.append(SESSION, "message", {"number": number})
                assert client.address in {cluster.address(node).grpc_address for node in ("node-2", "node-3")}
                await until(lambda: len(seqs) >= 11, seconds=HEARS_WITHIN_SECONDS)
                assert seqs == list(range(1, 12))


async def test_every_kind_of_command_passes_over_a_dead_node(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        await let_lead(cluster, "node-2")
        await cluster.kill("node-1")
        nodes = ",".join(node.grpc_address for node in cluster.addresses)
        imported = json.loads(await headwater(nodes, "import", "--json", *map(str, sample_paths())))
        assert imported["problems"] == []
        moved = json.loads(await headwater(nodes, "switchover", "--group", "0", "--to", "node-3", "--json"))
        assert (moved["from"], moved["to"], moved["moved"]) == ("node-2", "node-3", True)
        drained = json.loads(await headwater(nodes, "drain", "node-3", "--json"))
        assert drained["moved"] == [{"group": 0, "to": "node-2"}]
        await headwater(nodes, "undrain", "node-3")
        listed = await headwater(nodes, "sessions", "--json")
        assert len(listed.splitlines()) == imported["sessions"]
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.md").write_text("# A note\n")
        await headwater(nodes, "workspace", "sync", str(tmp_path / "notes"), "--workspace", "notes", "--once")
        assert "A note" in await headwater(nodes, "workspace", "show", "--workspace", "notes", "a.md")
        assert "1" in await headwater(nodes, "query", "SELECT count(*) FROM documents", "--csv")
