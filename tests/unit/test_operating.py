"""What an operator may ask for, and what the demonstration of a fail-over says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent_core.control.cluster_map import ClusterMap, Member
from ops.demo import DemoOutcome, DemoProgress
from ops.failover_demo import FailoverOutcome
from ops.operating import why_not_drainable


def cluster(*draining: str) -> ClusterMap:
    """Voters a and b, and a reader."""
    members = tuple(
        Member(name, "127.0.0.1:7001", "127.0.0.1:7101", name != "reader", None, draining=name in draining)
        for name in ("a", "b", "reader")
    )
    return ClusterMap(version=1, cluster_id="c", shard_count=4, members=members, placements=())


def test_a_node_that_another_voter_can_stand_in_for_may_be_drained() -> None:
    assert why_not_drainable(cluster(), "a") is None
    assert why_not_drainable(cluster("a"), "a") is None


def test_the_last_voter_that_leads_is_not_drained_since_readers_never_lead() -> None:
    assert why_not_drainable(cluster("b"), "a") == (
        "a is the only voter that is not draining, so nobody could take its groups; undrain another"
    )


def test_a_reader_may_always_be_drained() -> None:
    assert why_not_drainable(cluster("a", "b"), "reader") is None


def test_a_node_that_the_cluster_does_not_have_is_named_with_those_it_has() -> None:
    assert why_not_drainable(cluster(), "d") == "node is 'd'; this cluster has the nodes a, b, reader"


def test_the_longest_pause_is_between_two_acknowledgements_since_it_was_watched_for() -> None:
    progress = DemoProgress()
    progress.acknowledge(0.01, 1e9)
    progress.watch_for_pause()
    for now in (0.1, 0.75, 0.8):
        progress.acknowledge(0.01, 1e9 + now)
    assert progress.longest_pause == pytest.approx(0.65)
    assert progress.acknowledged == 4


OUTCOME = FailoverOutcome("node-1", "node-2", 0.618, DemoOutcome(10, {"node-1": 10, "node-2": 10}, identical=True))


def test_a_failover_holds_when_every_node_has_exactly_what_was_acknowledged() -> None:
    assert OUTCOME.held
    assert str(OUTCOME) == (
        "failover-demo: node-1 killed, node-2 took over, 0.62 s without an acknowledgement; 10 entries "
        "acknowledged, 10 on each node, shards identical: yes"
    )


@pytest.mark.parametrize(
    "count",
    [
        DemoOutcome(10, {"node-1": 9, "node-2": 10}, identical=True),
        DemoOutcome(10, {"node-1": 10, "node-2": 10}, identical=False),
        DemoOutcome(11, {"node-1": 10, "node-2": 10}, identical=True),
    ],
)
def test_a_failover_that_lost_doubled_or_changed_something_does_not_hold(count: DemoOutcome) -> None:
    assert not replace(OUTCOME, count=count).held


def test_a_failover_that_elected_nobody_else_does_not_hold() -> None:
    assert not replace(OUTCOME, elected="node-1").held
