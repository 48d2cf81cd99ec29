"""What a cluster's nodes and placement may be, and how a wrong one is described."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent_core.cluster import Cluster, HostPort, InvalidCluster, NodeAddress
from agent_core.routing import ShardLayout


def node(number: int, *, voter: bool = True) -> NodeAddress:
    return NodeAddress(f"node-{number}", f"127.0.0.1:{7100 + number}", f"127.0.0.1:{7200 + number}", voter)


def cluster(
    *nodes: NodeAddress, placement: Mapping[int, str] | None = None, cluster_id: str = "test", groups: int = 1
) -> Cluster:
    if placement is None:
        placement = dict.fromkeys(range(groups), "node-1")
    return Cluster(cluster_id, ShardLayout(8, groups), nodes, placement)


def problems_of(*nodes: NodeAddress, **arguments: object) -> tuple[str, ...]:
    with pytest.raises(InvalidCluster) as caught:
        cluster(*nodes, **arguments)  # type: ignore[arg-type] # passes cluster()'s own keywords on
    return caught.value.problems


def test_a_cluster_knows_its_voters_nodes_and_primaries() -> None:
    subject = cluster(node(1), node(2), node(3, voter=False), placement={0: "node-1", 1: "node-2"}, groups=2)
    assert [voter.node_id for voter in subject.voters()] == ["node-1", "node-2"]
    assert subject.node("node-3").http_address == "127.0.0.1:7203"
    assert subject.primary_of(1) == node(2)


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


def test_a_reader_cannot_be_primary() -> None:
    (problem,) = problems_of(node(1), node(2, voter=False), placement={0: "node-2"})
    assert problem == "groups.primaries.0 is 'node-2', a reader; allowed are the voters node-1"


def test_an_unknown_primary_is_named_with_those_that_could_be() -> None:
    (problem,) = problems_of(node(1), node(2), placement={0: "node-9"})
    assert problem == "groups.primaries.0 is 'node-9'; allowed are the voters node-1, node-2"


def test_every_group_needs_a_primary_and_no_other_group_has_one() -> None:
    problems = problems_of(node(1), placement={0: "node-1", 7: "node-1"}, groups=2)
    assert problems == (
        "groups.primaries.7 names a group that is not there; allowed are the groups 0 to 1",
        "groups.primaries.1 is missing",
    )


def test_two_nodes_cannot_share_a_name() -> None:
    (problem,) = problems_of(node(1), NodeAddress("node-1", "127.0.0.1:1", "127.0.0.1:2"))
    assert problem == "nodes[1].id is 'node-1', as is nodes[0].id; each must be different"


def test_two_servers_cannot_share_an_address_even_if_written_differently() -> None:
    problems = problems_of(
        NodeAddress("node-1", "localhost:7101", "localhost:7101"),
        NodeAddress("node-2", "localhost:07101", "localhost:7202"),
    )
    assert problems == (
        "nodes[0].http is 'localhost:7101', as is nodes[0].grpc; each must be different",
        "nodes[1].grpc is 'localhost:07101', as is nodes[0].grpc; each must be different",
    )


def test_every_problem_is_reported_at_once() -> None:
    problems = problems_of(
        NodeAddress("no de", "nowhere", "127.0.0.1:99999"), cluster_id="", placement={0: "node-1"}
    )
    assert [problem.split(" is ")[0] for problem in problems] == [
        "cluster.id",
        "nodes[0].id",
        "nodes[0].grpc",
        "nodes[0].http",
        "groups.primaries.0",
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


def test_placement_cannot_be_changed_from_outside() -> None:
    placement = {0: "node-1"}
    subject = cluster(node(1), placement=placement)
    placement[0] = "node-9"
    assert subject.primary_of(0).node_id == "node-1"
