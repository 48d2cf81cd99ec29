"""The operators' commands find the Raft leader by themselves, against control services in real gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from click.testing import CliRunner, Result

from agent_core.control import cluster_map as maps
from agent_core.control.cluster_map import ClusterMap, Member, Placement
from agent_core.errors import HeadwaterError, NotPrimary, OutcomeUnknown, Unavailable
from agent_core.rpc import control_pb2 as pb
from agent_core.rpc.control_pb2_grpc import ControlServicer, add_ControlServicer_to_server
from agent_core.rpc_errors import abort
from ops.cli.main import main
from tests.integration.fake_primary import Context
from tests.integration.test_cli import closed_port


class Control(ControlServicer):
    """One node of a cluster whose map a test sets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.map = ClusterMap(0, "", 0, (), ())
        self.leader = ""
        self.asked: list[str] = []
        self.refusals: list[HeadwaterError] = []
        self.next_leader: str | None = None
        self.moves = True

    async def Attend(  # type: ignore[override] # noqa: N802 - gRPC's name; nobody attends here
        self, request_iterator: object, context: Context
    ) -> None:
        raise AssertionError("operators do not attend")

    async def GetMap(self, request: pb.GetMapRequest, context: Context) -> pb.GetMapResponse:  # noqa: N802 - gRPC's name
        return pb.GetMapResponse(cluster_map=maps.to_json(self.map).encode(), raft_leader=self.leader)

    async def Switchover(  # noqa: N802 - gRPC's name
        self, request: pb.SwitchoverRequest, context: Context
    ) -> pb.GetMapResponse:
        self.asked.append(f"{request.group} to {request.to}")
        await self._refuse(context)
        if self.map.placements[0].primary != request.to:
            self.map = moved(self.map, request.to)
        return await self.GetMap(pb.GetMapRequest(), context)

    async def SetDraining(  # noqa: N802 - gRPC's name
        self, request: pb.SetDrainingRequest, context: Context
    ) -> pb.GetMapResponse:
        self.asked.append(f"draining {request.node_id} {request.draining}")
        await self._refuse(context)
        answer = await self.GetMap(pb.GetMapRequest(), context)
        if self.moves:
            self.map = moved(self.map, "b")
        return answer

    async def _refuse(self, context: Context) -> None:
        if self.refusals:
            if self.next_leader is not None:
                self.leader = self.next_leader
            await abort(context, self.refusals.pop())


def moved(cluster_map: ClusterMap, to: str) -> ClusterMap:
    epoch = cluster_map.placements[0].epoch + 1
    return ClusterMap(cluster_map.version + 1, "c", 4, cluster_map.members, (Placement(epoch, to),))


class Cluster:
    """Node a, which a test asks, and node b."""

    def __init__(self) -> None:
        self.nodes = {name: Control(name) for name in "ab"}
        self.addresses: dict[str, str] = {}

    def form(self, leader: str) -> None:
        members = tuple(
            Member(name, address, f"127.0.0.1:{port}", True, "127.0.0.1:3" if port == 1 else None)
            for port, (name, address) in enumerate(self.addresses.items(), 1)
        )
        for node in self.nodes.values():
            node.map = ClusterMap(1, "c", 4, members, (Placement(3, "a"),))
            node.leader = leader


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made, servers = Cluster(), []
    for name, node in made.nodes.items():
        server = grpc.aio.server()
        add_ControlServicer_to_server(node, server)
        made.addresses[name] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        servers.append(server)
    made.form("b")
    yield made
    for server in servers:
        await server.stop(0)


async def headwater(cluster: Cluster, *arguments: str) -> Result:
    """Run a command that asks node a, in a thread of its own."""
    return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--node", cluster.addresses["a"]])


async def test_a_switch_over_asked_of_any_node_is_carried_out_by_the_raft_leader(cluster: Cluster) -> None:
    done = await headwater(cluster, "switchover", "--group", "0", "--to", "b")
    assert done.exit_code == 0
    assert done.stdout.startswith("group 0: a → b in epoch 4, ")
    assert (cluster.nodes["a"].asked, cluster.nodes["b"].asked) == ([], ["0 to b"])


async def test_who_leads_already_is_told_so(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        node.map = moved(node.map, "b")
    done = await headwater(cluster, "switchover", "--group", "0", "--to", "b")
    assert (done.exit_code, done.stdout) == (0, "group 0: b leads it already, in epoch 4\n")
    as_json = await headwater(cluster, "switchover", "--group", "0", "--to", "b", "--json")
    assert json.loads(as_json.stdout)["moved"] is False


async def test_a_leader_that_was_deposed_meanwhile_is_followed_by_the_next(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        node.leader = "a"
    cluster.nodes["a"].refusals = [NotPrimary("this node is not the Raft leader; b is")]
    cluster.nodes["a"].next_leader = "b"
    done = await headwater(cluster, "switchover", "--group", "0", "--to", "b")
    assert done.exit_code == 0
    assert cluster.nodes["b"].asked == ["0 to b"]


@pytest.mark.parametrize("lost", [OutcomeUnknown("the connection broke"), NotPrimary("another node leads")])
async def test_what_a_lost_leader_may_have_carried_out_is_asked_for_again(
    cluster: Cluster, lost: HeadwaterError
) -> None:
    cluster.nodes["b"].refusals = [lost]
    done = await headwater(cluster, "switchover", "--group", "0", "--to", "b")
    assert done.exit_code == 0
    assert cluster.nodes["b"].asked == ["0 to b", "0 to b"]


async def test_a_leader_that_still_leads_is_not_asked_twice(cluster: Cluster) -> None:
    cluster.nodes["b"].refusals = [Unavailable("group 0 was not handed over to b within 10 s; a leads it")]
    done = await headwater(cluster, "switchover", "--group", "0", "--to", "b")
    assert done.exit_code == 3
    assert "was not handed over" in done.stderr
    assert cluster.nodes["b"].asked == ["0 to b"]


async def test_without_a_raft_leader_the_members_are_named(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.operating.LEADER_SECONDS", 0.1)
    cluster.form("")
    done = await headwater(cluster, "undrain", "a")
    assert done.exit_code == 3
    assert "the Raft members a have no leader" in done.stderr


async def test_a_leader_that_is_named_but_dead_counts_as_none(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.operating.LEADER_SECONDS", 0.1)
    cluster.addresses["b"] = closed_port()
    cluster.form("b")
    done = await headwater(cluster, "switchover", "--group", "0", "--to", "b")
    assert done.exit_code == 3
    assert "the Raft members a have no leader" in done.stderr


async def test_before_the_cluster_is_formed_nothing_is_asked_of_it(cluster: Cluster) -> None:
    cluster.nodes["a"].map = ClusterMap(0, "", 0, (), ())
    done = await headwater(cluster, "drain", "a")
    assert done.exit_code == 3
    assert "the cluster is being formed" in done.stderr


async def test_a_drain_that_moves_nothing_in_time_says_how_to_call_it_off(cluster: Cluster) -> None:
    cluster.nodes["b"].moves = False
    done = await headwater(cluster, "drain", "a", "--timeout", "0.3")
    assert done.exit_code == 1
    assert "a still leads group 0 after 0.3 s" in done.stderr
    assert "`headwater undrain a` calls it off" in done.stderr


async def test_a_drain_shows_what_is_left_until_nothing_is(cluster: Cluster) -> None:
    draining = asyncio.create_task(headwater(cluster, "drain", "a"))
    async with asyncio.timeout(10):
        while not cluster.nodes["b"].asked:
            await asyncio.sleep(0.01)
    cluster.nodes["a"].map = moved(cluster.nodes["a"].map, "b")
    done = await draining
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "group 0: a → b")
    assert cluster.nodes["b"].asked == ["draining a True"]
