"""Live follow while another node comes to lead: no entry is missed, none comes twice, nothing breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import httpx

from agent_core.client import Client, Reader
from agent_core.rpc.read_pb2 import FollowRequest
from agent_core.rpc.read_pb2_grpc import ReadingStub
from ops.local_cluster import LocalCluster
from ops.operating import Operator
from replica.reading.live_follow import IDLE_SECONDS
from tests.e2e.cluster_under_load import load, until
from tests.plans import small_plan

SESSION = "writer-0"
PROMPT_SECONDS = IDLE_SECONDS / 2
"""Who is not woken reads again after `IDLE_SECONDS`, and would bring an entry no sooner."""


class Followed:
    """What one follower was told: the entries' numbers in order, and how often that there are no more yet."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.quiet = 0

    async def by_events(self, address: str) -> None:
        async with (
            httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as http,
            http.stream("GET", f"/v1/sessions/{SESSION}/events") as events,
        ):
            name = ""
            async for line in events.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    assert name in {"entry", "caught_up"}, line
                    self.note([json.loads(line.removeprefix("data: "))["seq"]] if name == "entry" else [])
        raise AssertionError("the events ended")

    async def by_grpc(self, address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            async for event in ReadingStub(channel).Follow(FollowRequest(session_id=SESSION)):
                self.note([entry.seq for entry in event.entries])
        raise AssertionError("following ended")

    def note(self, seqs: list[int]) -> None:
        self.seqs += seqs
        self.quiet += not seqs

    @property
    def gapless(self) -> bool:
        return self.seqs == list(range(1, len(self.seqs) + 1))


@asynccontextmanager
async def followers(cluster: LocalCluster, *node_ids: str) -> AsyncIterator[list[Followed]]:
    """Two followers of each node, one over each interface; it fails with the first that breaks."""
    made: list[Followed] = []
    async with asyncio.TaskGroup() as tasks:
        running = []
        for node_id in node_ids:
            address = cluster.address(node_id)
            by_events, by_grpc = Followed(), Followed()
            made += [by_events, by_grpc]
            running.append(tasks.create_task(by_events.by_events(address.http_address)))
            running.append(tasks.create_task(by_grpc.by_grpc(address.grpc_address)))
        yield made
        for task in running:
            task.cancel()


async def primary_of(address: str) -> str:
    async with Operator(address) as operator:
        primary = (await operator.ask()).map.placements[0].primary
    assert primary is not None
    return primary


async def test_followers_of_a_standby_go_on_through_a_switch_over_and_the_death_of_the_primary(
    tmp_path: Path,
) -> None:
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        nodes = [node.node_id for node in cluster.addresses]
        first = await primary_of(cluster.address(nodes[0]).grpc_address)
        second, third = (node for node in nodes if node != first)
        addresses = [node.grpc_address for node in cluster.addresses]
        async with Client(addresses, timeout_seconds=60) as client, load(client, writers=1) as running:
            await running.more(20)
            async with followers(cluster, first, second, third) as followed:
                await running.more(20)
                async with Operator(addresses[0]) as operator:
                    await operator.switch_over(0, second)
                await running.more(20)
                after = running.acknowledged  # the load goes on
                await until(lambda: all(len(each.seqs) >= after for each in followed))
            # Of the next two nobody leads yet, and one will.
            async with followers(cluster, first, third) as left:
                await until(lambda: all(each.quiet for each in left))
                await cluster.kill(second)
                await running.more(20)
                running.stop()
                await until(lambda: all(len(each.seqs) >= running.acknowledged for each in left))
        assert await primary_of(cluster.address(third).grpc_address) in {first, third}
        assert all(each.gapless for each in [*followed, *left])


async def test_a_follower_that_waits_for_news_goes_on_in_the_next_epoch(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        nodes = [node.node_id for node in cluster.addresses]
        first = await primary_of(cluster.address(nodes[0]).grpc_address)
        others = [node for node in nodes if node != first]
        async with Client([node.grpc_address for node in cluster.addresses], timeout_seconds=60) as client:
            await client.create_session(session_id=SESSION)
            appended = await client.append(SESSION, "message", {"number": 1})
            for node in others:
                async with Reader(cluster.address(node).grpc_address) as reader:
                    assert [entry.seq async for entry in reader.transcript(SESSION, min_position=appended.position)]
            async with followers(cluster, *others) as followed:
                await until(lambda: all(each.seqs == [1] and each.quiet for each in followed))
                await cluster.kill(first)
                await client.append(SESSION, "message", {"number": 2})
                await until(lambda: all(each.seqs == [1, 2] for each in followed))


async def test_followers_on_every_node_hear_of_their_own_shard_at_once_and_read_for_no_other(
    tmp_path: Path,
) -> None:
    async with LocalCluster(tmp_path, small_plan()) as cluster:
        layout = cluster.configurations["node-1"].cluster_map.layout
        elsewhere = next(name for n in range(99) if layout.shard_of(name := f"s{n}") != layout.shard_of(SESSION))
        nodes = [node.node_id for node in cluster.addresses]
        async with Client([node.grpc_address for node in cluster.addresses], timeout_seconds=60) as client:
            for session_id in (SESSION, elsewhere):
                await client.create_session(session_id=session_id)
            appended = await client.append(SESSION, "message", {"number": 1})
            for node in nodes:
                async with Reader(cluster.address(node).grpc_address) as reader:
                    assert [entry.seq async for entry in reader.transcript(SESSION, min_position=appended.position)]
            async with followers(cluster, *nodes) as followed:
                await until(lambda: all(each.seqs == [1] and each.quiet for each in followed))
                before = [await shard_reads(cluster.address(node).http_address) for node in nodes]
                for number in range(100):
                    await client.append(elsewhere, "message", {"number": number})
                after = [await shard_reads(cluster.address(node).http_address) for node in nodes]
                assert sum(after) - sum(before) <= len(followed), "each may have looked once after IDLE_SECONDS"
                async with asyncio.timeout(PROMPT_SECONDS):
                    await client.append(SESSION, "message", {"number": 2})
                    await until(lambda: all(each.seqs == [1, 2] for each in followed))
                    await client.append(SESSION, "message", {"number": 3})
                    await until(lambda: all(each.seqs == [1, 2, 3] for each in followed))


async def shard_reads(address: str) -> int:
    """How often a node has read a shard."""
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as http:
        text = (await http.get("/metrics")).text
    (line,) = (line for line in text.splitlines() if line.startswith("headwater_shard_reads_total"))
    return int(float(line.split()[-1]))
