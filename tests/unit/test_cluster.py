"""What a cluster's nodes may be, and how a wrong one is described."""

from __future__ import annotations

import pytest

from agent_core.cluster import Cluster, HostPort, InvalidCluster, NodeAddress, is_loopback
from agent_core.routing import ShardLayout


def node(number: int, *, voter: bool = True, raft: bool | None = None) -> NodeAddress:
    """A node; the first one alone keeps the map unless told otherwise."""
    member = number == 1 if raft is None else raft
    return NodeAddress(
        f"node-{number}",
        f"127.0.0.1:{7100 + number}",
        f"127.0.0.1:{7200 + number}",
        voter,
        f"127.0.0.1:{7300 + number}" if member else None,
    )


def cluster(*nodes: NodeAddress, cluster_id: str = "test", groups: int = 1) -> Cluster:
    return Cluster(cluster_id, ShardLayout(8, groups), nodes)


def problems_of(*nodes: NodeAddress, **arguments: object) -> tuple[str, ...]:
    with pytest.raises(InvalidCluster) as caught:
        cluster(*nodes, **arguments)  # type: ignore[arg-type] # passes cluster()'s own keywords on
    return caught.value.problems


def test_a_cluster_knows_its_nodes_and_voters() -> None:
    subject = cluster(node(1), node(2), node(3, voter=False), groups=2)
    assert [voter.node_id for voter in subject.voters()] == ["node-1", "node-2"]
    assert subject.node("node-3").http_address == "127.0.0.1:7203"


@pytest.mark.parametrize("voters", range(1, 8))
def test_one_to_seven_voters_are_allowed(voters: int) -> None:
    assert len(cluster(*map(node, range(1, voters + 1))).voters()) == voters


def test_eight_voters_are_too_many_but_eight_nodes_are_not() -> None:
    (problem,) = problems_of(*map(node, range(1, 9)))
    assert problem.startswith("nodes names 8 voters; allowed are 1 to 7")
    assert len(cluster(*map(node, range(1, 8)), node(8, voter=False)).nodes) == 8


def test_readers_alone_make_no_cluster() -> None:
    problems = problems_of(node(1, voter=False))
    assert any("nodes names 0 voters" in problem for problem in problems)


@pytest.mark.parametrize("members", [0, 2, 4])
def test_one_three_or_five_nodes_keep_the_map(members: int) -> None:
    (problem,) = problems_of(*(node(number, raft=number <= members) for number in range(1, 6)))
    assert problem.startswith(f"nodes names {members} raft addresses; allowed: 1, 3, 5")


def test_loopback_is_told_from_other_addresses() -> None:
    assert is_loopback("127.0.0.1:1")
    assert is_loopback("[::1]:1")
    assert is_loopback("localhost:1")
    assert not is_loopback("10.0.0.7:1")
    assert not is_loopback("node-1:1")


def test_two_nodes_cannot_share_a_name() -> None:
    (problem,) = problems_of(node(1), NodeAddress("node-1", "127.0.0.1:1", "127.0.0.1:2"))
    assert problem == "nodes[1].id is 'node-1', as is nodes[0].id; each must be different"


def test_two_servers_cannot_share_an_address_even_if_written_differently() -> None:
    problems = problems_of(
        NodeAddress("node-1", "localhost:7101", "localhost:7101", raft_address="localhost:1"),
        NodeAddress("node-2", "localhost:07101", "localhost:7202"),
    )
    assert problems == (
        "nodes[0].http is 'localhost:7101', as is nodes[0].grpc; each must be different",
        "nodes[1].grpc is 'localhost:07101', as is nodes[0].grpc; each must be different",
    )


def test_every_problem_is_reported_at_once() -> None:
    problems = problems_of(NodeAddress("no de", "nowhere", "127.0.0.1:99999", raft_address="x"), cluster_id="")
    assert [problem.split(" is ")[0] for problem in problems] == [
        "cluster.id",
        "nodes[0].id",
        "nodes[0].grpc",
        "nodes[0].http",
        "nodes[0].raft",
    ]


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("localhost:1", "localhost", 1), ("10.0.0.7:65535", "10.0.0.7", 65535), ("[::1]:7101", "::1", 7101)],
)
def test_addresses_are_host_and_port(address: str, host: str, port: int) -> None:
    assert HostPort.parse(address) == (host, port)


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":80", "host:0", "host:65536", "::1:80", "a b:80", "0.0.0.0:80", "[::]:80"]
)
def test_what_no_other_node_could_reach_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="allowed is host:port"):
        HostPort.parse(address)


def test_asking_for_an_unknown_node_names_those_there_are() -> None:
    with pytest.raises(KeyError, match="the cluster has node-1"):
        cluster(node(1)).node("node-2")
