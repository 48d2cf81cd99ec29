"""A client that was given one node learns of the others from it, over real gRPC, and goes on there when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest

from agent_core.client import Client, Reader, endpoints
from agent_core.client.discovery import BESIDE_SECONDS
from agent_core.errors import NotPrimary, OutcomeUnknown, Unavailable
from agent_core.rpc.cluster_pb2 import (
    ClusterNode,
    GetClusterRequest,
    GetClusterResponse,
    GetLagRequest,
    GetLagResponse,
)
from agent_core.rpc.cluster_pb2_grpc import ClusterReadingServicer, add_ClusterReadingServicer_to_server
from ops.cluster_files import free_ports
from tests.integration.fake_primary import FakePrimary, serving
from tests.waiting import until

Context = grpc.aio.ServicerContext[Any, Any]
GOES_ON_SECONDS = 30.0


class FakeCluster(ClusterReadingServicer):
    """Tells of nodes.

    Attributes:
        told: The answer; None: it does not know the call.
        asked: How often it was asked.
        answer: Cleared: nobody is answered, until it is set.
    """

    def __init__(self, told: GetClusterResponse | None) -> None:
        self.told = told
        self.asked = self.answered = 0
        self.answer = asyncio.Event()
        self.answer.set()

    async def GetCluster(  # noqa: N802 - gRPC's name
        self, request: GetClusterRequest, context: Context
    ) -> GetClusterResponse:
        self.asked += 1
        await self.answer.wait()
        self.answered += 1
        if self.told is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED)
        return self.told

    async def GetLag(self, request: GetLagRequest, context: Context) -> GetLagResponse:  # noqa: N802 - gRPC's name
        raise NotImplementedError("a client does not ask for it by itself")


@dataclass
class Node:
    """A node of a cluster in this process."""

    address: str
    sessions: FakePrimary
    cluster: FakeCluster
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        await self._running.enter_async_context(
            serving(
                self.sessions,
                self.address,
                lambda server: add_ClusterReadingServicer_to_server(self.cluster, server),
            )
        )

    async def kill(self) -> None:
        await self._running.aclose()


@asynccontextmanager
async def running(
    count: int, *further: tuple[str, str], clusters: tuple[str, ...] = ()
) -> AsyncIterator[list[Node]]:
    """Nodes that tell of each other, and of further ones that do not run; all have the session `s1`.

    Args:
        count: How many.
        further: Their names and addresses.
        clusters: Which cluster each node says that it is of, if not all of one.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    listed = [*((f"node-{number}", address) for number, address in enumerate(addresses, 1)), *further]
    nodes = []
    for number, address in enumerate(addresses):
        told = GetClusterResponse(
            cluster_id=clusters[number] if clusters else "c",
            node_id=f"node-{number + 1}",
            nodes=[ClusterNode(node_id=name, grpc_address=at) for name, at in listed],
        )
        sessions = FakePrimary()
        sessions.add_session("s1")
        nodes.append(Node(address, sessions, FakeCluster(told)))
    async with AsyncExitStack() as stack:
        for node in nodes:
            await node.start()
            stack.push_async_callback(node.kill)
        yield nodes


async def learned(first: Node, *others: Node) -> None:
    """Wait until a client of `first` has been told of the others, and has been answered by them."""
    await until(lambda: first.cluster.answered and all(other.cluster.answered for other in others))


async def test_appends_reads_and_followers_go_on_at_a_node_that_the_dead_one_had_told() -> None:
    async with running(3) as (first, *others), Client(first.address, timeout_seconds=GOES_ON_SECONDS) as client:
        followed = client.subscribe("s1")
        await client.append("s1", "message", b"{}")
        assert (await anext(followed)).seq == 1
        await learned(first, *others)
        await first.kill()
        for node in others:
            node.sessions.add_session("s1", entries=5)
        assert (await client.append("s1", "message", b"{}")).seq == 6
        assert [(await anext(followed)).seq for _ in range(5)] == [2, 3, 4, 5, 6]
        assert (await client.get_session("s1")).entry_count == 6
        assert client.address in {node.address for node in others}


async def test_the_way_leads_back_to_the_given_node_when_the_told_ones_die() -> None:
    async with running(2) as (first, second), Client(first.address, timeout_seconds=GOES_ON_SECONDS) as client:
        await client.append("s1", "message", b"{}")
        await learned(first, second)
        await first.kill()
        await client.append("s1", "message", b"{}")
        assert client.address == second.address
        await first.start()
        await second.kill()
        await client.append("s1", "message", b"{}")
        assert client.address == first.address


async def test_a_node_that_hangs_is_left_for_one_that_it_had_told() -> None:
    async with running(2) as (first, second), Client(first.address, timeout_seconds=GOES_ON_SECONDS) as client:
        await client.append("s1", "message", b"{}")
        await learned(first, second)
        first.sessions.answer.clear()
        await client.append("s1", "message", b"{}")
        assert client.address == second.address
        first.sessions.answer.set()


async def test_a_primary_that_was_named_tells_of_the_others_too() -> None:
    async with (
        running(3) as (first, second, third),
        Client(first.address, timeout_seconds=GOES_ON_SECONDS) as client,
    ):
        refusal = NotPrimary(f"group 0 is led by node-2 at {second.address}")
        first.sessions.refuse = lambda _append: refusal
        await client.append("s1", "message", b"{}")
        await learned(second, third)
        await first.kill()
        await second.kill()
        await client.append("s1", "message", b"{}")
        assert client.address == third.address


async def test_an_append_does_not_wait_for_what_is_learned_beside_it() -> None:
    async with running(2) as (first, second):
        first.cluster.answer.clear()
        async with Client(first.address) as client:
            await client.append("s1", "message", b"{}")
            await until(lambda: first.cluster.asked)
            await client.append("s1", "message", b"{}")
        assert second.cluster.asked == 0
        first.cluster.answer.set()


async def test_a_client_asks_a_node_once_however_many_calls_it_makes() -> None:
    async with running(2) as (first, second), Client(first.address) as client:
        await client.append("s1", "message", b"{}")
        await learned(first, second)
        for _ in range(20):
            await client.get_session("s1")
        await asyncio.sleep(2 * BESIDE_SECONDS)  # for a question that must not come
        assert (first.cluster.asked, second.cluster.asked) == (1, 1)


async def test_addresses_that_lead_nowhere_are_not_turned_to(monkeypatch: pytest.MonkeyPatch) -> None:
    (closed,) = free_ports(1)
    unusable = (("node-8", "node-8.nowhere.invalid:7101"), ("node-9", f"127.0.0.1:{closed}"))
    opened = []

    def counting(address: str) -> grpc.aio.Channel:
        opened.append(address)
        return real(address)

    real = endpoints.open_channel
    monkeypatch.setattr(endpoints, "open_channel", counting)
    async with running(1, *unusable) as (only,), Client(only.address, timeout_seconds=GOES_ON_SECONDS) as client:
        await client.append("s1", "message", b"{}")
        await until(lambda: len(opened) >= 3)
        await only.kill()
        waiting = asyncio.create_task(client.append("s1", "message", b"{}"))
        addresses = set()
        for _ in range(100):
            addresses.add(client.address)
            await asyncio.sleep(0.005)
        await only.start()
        assert (await waiting).seq == 2
        assert addresses == {only.address}


async def test_a_client_never_goes_on_in_another_cluster() -> None:
    async with running(2, clusters=("mine", "another")) as (first, second):
        async with Client(first.address, timeout_seconds=1) as client:
            await client.append("s1", "message", b"{}")
            await learned(first, second)
            await first.kill()
            with pytest.raises((Unavailable, OutcomeUnknown)):  # the latter: it was sent when the node ended
                await client.append("s1", "message", b"{}")
            assert client.address == first.address
        assert second.sessions.taken == []


async def test_a_client_that_shall_not_learn_asks_nothing() -> None:
    async with running(2) as (first, second), Client(first.address, timeout_seconds=1, discover=False) as client:
        await client.append("s1", "message", b"{}")
        await asyncio.sleep(2 * BESIDE_SECONDS)  # for a question that must not come
        assert first.cluster.asked == second.cluster.asked == 0
        await first.kill()
        with pytest.raises((Unavailable, OutcomeUnknown)):  # the latter: it was sent when the node ended
            await client.append("s1", "message", b"{}")


async def test_a_reader_learns_where_it_is_told_to_and_else_keeps_to_the_node_that_was_chosen() -> None:
    async with running(2) as (first, second):
        async with Reader(first.address) as reader:
            await reader.cluster()
            await asyncio.sleep(2 * BESIDE_SECONDS)  # for a question that must not come
            assert (first.cluster.asked, second.cluster.asked) == (1, 0)
        async with Reader(first.address, timeout_seconds=GOES_ON_SECONDS, discover=True) as reader:
            await reader.cluster()
            await learned(second)
            await first.kill()
            assert (await reader.cluster()).node_id == "node-2"


async def test_a_node_that_tells_nothing_is_used_as_it_is() -> None:
    async with running(1) as (node,), Client(node.address) as client:
        node.cluster.told = None
        await client.append("s1", "message", b"{}")
        await until(lambda: node.cluster.answered)
        assert (await client.append("s1", "message", b"{}")).seq == 2


async def test_several_dead_nodes_are_all_named() -> None:
    first, second = (f"127.0.0.1:{port}" for port in free_ports(2))
    both = f"{first} refuses connections; {second} refuses connections"
    named = f"({both}|{second} refuses connections; {first} refuses connections)"
    async with Client([first, second], timeout_seconds=0.5) as client:
        with pytest.raises(Unavailable, match=f"^{named}$"):
            await client.get_session("s1")
        with pytest.raises(Unavailable, match=rf"not written \({named}\)$"):
            await client.append("s1", "message", b"{}")
        with pytest.raises(Unavailable, match=f"^{named}$"):
            await anext(client.subscribe("s1"))
    async with Reader([first, second], timeout_seconds=0.5) as reader:
        with pytest.raises(Unavailable, match=f"^{named}$"):
            await reader.query("SELECT 1")
