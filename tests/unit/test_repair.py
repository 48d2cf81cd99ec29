"""Which standbys are told to resync which shards."""

from __future__ import annotations

import pytest

from agent_core.errors import InvalidRequest, ShardDamaged
from agent_core.routing import ShardLayout
from agent_core.rpc.administration_pb2 import GroupStatus, ResyncShardsRequest, StatusResponse
from ops.administration import shards_to_resync
from ops.repair import Order, choose_orders
from ops.verify import compare
from tests.unit.test_cli_verify import digest

LAYOUT = ShardLayout(shard_count=4, shard_group_count=2)


def node(role: str) -> StatusResponse:
    return StatusResponse(
        shard_count=4, shard_group_count=2, groups=[GroupStatus(group=group, role=role) for group in range(2)]
    )


NODES = {"a": node("primary"), "b": node("standby"), "c": node("standby")}


def test_only_the_standbys_that_differ_from_the_primary_resync() -> None:
    found = [
        compare(0, {"a": digest("xy"), "b": digest("xy"), "c": digest("xy")}),
        compare(1, {"a": digest("xy"), "b": digest("xz"), "c": digest("xy")}),
        compare(2, {"a": digest("xy"), "b": digest("xz"), "c": digest("xyz")}),
    ]
    assert choose_orders(found, NODES) == ([Order("b", (1, 2)), Order("c", (2,))], [])


def test_a_standby_that_cannot_read_its_shard_resyncs_it() -> None:
    found = compare(3, {"a": digest("x"), "b": ShardDamaged("malformed"), "c": digest("x")})
    assert found.problem == "it could not be read everywhere: b: malformed"
    assert choose_orders([found], NODES) == ([Order("b", (3,))], [])


def test_what_the_primary_cannot_read_is_not_repaired_from_it() -> None:
    found = compare(3, {"a": ShardDamaged("malformed"), "b": digest("x"), "c": digest("x")})
    assert choose_orders([found], NODES) == ([], ["shard 3: its primary, a, could not read it"])


def test_without_the_primary_nothing_is_repaired() -> None:
    found = compare(3, {"b": digest("x"), "c": digest("y")})
    others = {name: status for name, status in NODES.items() if name != "a"}
    assert choose_orders([found], others) == (
        [],
        ["shard 3: its primary is not among the nodes; name it in --nodes"],
    )


def test_a_group_stands_for_all_of_its_shards() -> None:
    assert shards_to_resync(ResyncShardsRequest(shards=[1], groups=[0]), LAYOUT) == sorted(
        {1, *LAYOUT.shards_of(0)}
    )


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (ResyncShardsRequest(), "neither a shard nor a group"),
        (ResyncShardsRequest(shards=[5]), "shard is 5; allowed are 0 to 4"),
        (ResyncShardsRequest(groups=[2]), "group is 2; allowed are 0 to 1"),
    ],
)
def test_what_is_not_there_cannot_be_resynced(request_: ResyncShardsRequest, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        shards_to_resync(request_, LAYOUT)
