from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_core.control.cluster_map import ClusterMap, Member, Placement
from agent_core.errors import Unavailable
from ops.cluster_files import ClusterPlan, lay_out
from ops.control.view import MapView
from ops.group_context import GroupContext, Peers, SharedHeartbeats
from replica.reading.pool import ReadPool
from replica.reading.positions import AppliedPositions

NAMES = ("node-1", "node-2", "node-3")


def placed(version: int, placement: Placement) -> ClusterMap:
    members = tuple(Member(name, "127.0.0.1:1", "127.0.0.1:2", True, None) for name in NAMES)
    return ClusterMap(version, "test", 16, members, (placement,))


@pytest.fixture
async def context(tmp_path: Path) -> GroupContext:
    configuration = lay_out(tmp_path, ClusterPlan(base_port=0))["node-3"]
    peers = Peers(configuration.cluster_map)
    return GroupContext.open(
        configuration,
        0,
        peers=peers,
        heartbeats=SharedHeartbeats.of(configuration, peers),
        positions=AppliedPositions(1),
        view=MapView(),
        pool=ReadPool(tmp_path, configuration.cluster_map.layout),
        executor=ThreadPoolExecutor(1),
    )


async def test_nobody_is_followed_before_anybody_led(context: GroupContext) -> None:
    with pytest.raises(Unavailable, match="has no primary yet"):
        context.presumed_primary()


async def test_a_node_never_follows_itself(context: GroupContext) -> None:
    await context.voter.adopt(1, "node-3")
    context.view.learn(placed(1, Placement(1, "node-3")))
    with pytest.raises(Unavailable):
        context.presumed_primary()


async def test_whoever_was_promised_a_higher_epoch_is_followed_before_the_map_knows(
    context: GroupContext,
) -> None:
    context.view.learn(placed(1, Placement(1, "node-1")))
    await context.voter.adopt(2, "node-2")
    assert context.presumed_primary() == "node-2"


async def test_a_candidate_that_does_not_lead_gives_way_to_the_primary_of_the_map(context: GroupContext) -> None:
    context.view.learn(placed(1, Placement(1, "node-1")))
    await context.voter.adopt(2, "node-2")
    named = [context.presumed_primary(misled=misled) for misled in (False, True, True)]
    assert named == [
        "node-2",
        "node-1",
        "node-2",
    ]


async def test_a_map_that_comes_after_a_vain_try_is_believed(context: GroupContext) -> None:
    await context.voter.adopt(1, "node-1")
    assert context.presumed_primary() == "node-1"
    context.view.learn(placed(1, Placement(2, "node-2")))
    assert context.presumed_primary(misled=True) == "node-2"
