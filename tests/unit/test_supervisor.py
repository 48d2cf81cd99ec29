from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.control.cluster_map import Placement
from agent_core.control.commands import RecordPrimary
from agent_core.position import Position
from primary.electing.exchange import (
    Action,
    AskToHandOver,
    Nominate,
    Probe,
    Record,
    Refusal,
)
from tests.unit.supervised_cluster import NODES, TIMEOUT, Cluster


def nominations(actions: list[Action]) -> list[tuple[int, str]]:
    return [(action.group, action.node) for action in actions if isinstance(action, Nominate)]


def test_a_new_clusters_groups_are_spread_over_its_nodes() -> None:
    nodes = Cluster(Placement(), Placement(), Placement())
    assert sorted(nominations(nodes.poll())) == [(0, "a"), (1, "b"), (2, "c")]


def test_a_new_cluster_waits_for_every_voter_for_the_failure_timeout_only() -> None:
    nodes = Cluster(Placement(), attending=("a", "b"))
    assert nodes.poll() == []
    nodes.now += TIMEOUT
    nodes.report("a", "b")
    assert nominations(nodes.poll()) == [(0, "a")]


def test_nobody_is_nominated_without_a_majority() -> None:
    nodes = Cluster(Placement(), attending=("a",))
    nodes.wait(5)
    assert nodes.poll() == []


def test_a_healthy_primary_stays() -> None:
    nodes = Cluster(Placement(3, "b"))
    nodes.wait(5)
    assert nodes.poll() == []


def test_a_killed_primary_is_replaced_as_soon_as_its_port_refuses() -> None:
    nodes = Cluster(Placement(3, "a"))
    nodes.die("a")
    assert nodes.tick() == [Probe("a")]
    nodes.supervisor.probed("a", refused=True)
    assert nominations(nodes.poll()) == [(0, "b")]


def test_the_voter_with_the_furthest_log_is_nominated() -> None:
    nodes = Cluster(Placement(3, "a"))
    nodes.logs |= {"a": Position(3, 9), "b": Position(3, 7), "c": Position(3, 8)}
    nodes.die("a")
    nodes.tick()
    nodes.supervisor.probed("a", refused=True)
    assert nominations(nodes.poll()) == [(0, "c")]


def test_a_primary_that_only_left_the_supervisor_is_not_replaced_while_its_standbys_hear_it() -> None:
    nodes = Cluster(Placement(3, "a"))
    nodes.wait(0.5)
    nodes.supervisor.leave("a")
    nodes.supervisor.probed("a", refused=False)
    nodes.now += 0.2
    nodes.report("b", "c")
    assert nominations(nodes.poll()) == []


def test_a_primary_that_the_raft_leaders_node_alone_does_not_hear_stays() -> None:
    nodes = Cluster(Placement(3, "a"))
    nodes.supervisor.leave("a")
    nodes.attending.discard("a")
    nodes.follows["c"] = False
    for _ in range(50):
        nodes.now += 0.1
        nodes.supervisor.probed("a", refused=False)
        nodes.report("b", "c")
        assert nominations(nodes.poll()) == []
    nodes.follows["b"] = False
    nodes.now += TIMEOUT
    nodes.report("b", "c")
    assert nominations(nodes.poll()) == [(0, "b")], "it stepped down, or died"


def test_a_primary_that_its_standbys_do_not_hear_for_the_failure_timeout_is_replaced() -> None:
    nodes = Cluster(Placement(3, "a"))
    assert nominations(nodes.poll()) == []
    for step in range(20):
        nodes.silent |= {"b": step / 10, "c": step / 10}
        nodes.now += 0.1
        nodes.report("b", "c")
        if found := nominations(nodes.poll()):
            break
    assert found == [(0, "b")]
    assert 0.9 * TIMEOUT <= nodes.now - 100 <= 1.5 * TIMEOUT


def test_a_new_supervisor_does_not_wait_again_for_what_the_voters_have_waited_for() -> None:
    nodes = Cluster(Placement(3, "a"), attending=("b", "c"))
    nodes.silent |= {"b": TIMEOUT, "c": TIMEOUT}
    nodes.report("b", "c")
    assert nominations(nodes.poll()) == [(0, "b")]


def test_a_primary_that_came_back_without_its_epoch_leads_to_an_election() -> None:
    nodes = Cluster(Placement(3, "a"))
    nodes.leads["a"].clear()
    nodes.logs |= {"a": Position(3, 9)}
    nodes.report("a")
    assert nominations(nodes.poll()) == [(0, "a")]


def test_whoever_won_an_epoch_is_recorded_with_compare_and_set() -> None:
    nodes = Cluster(Placement(3, "a"))
    nodes.leads["b"] = {0: 5}
    nodes.report("b")
    assert nodes.tick() == [Record(RecordPrimary(0, 3, 5, "b"))]
    nodes.now += 0.1
    assert nodes.tick() == [], "it is on its way"
    nodes.now += TIMEOUT
    assert nodes.tick() == [Record(RecordPrimary(0, 3, 5, "b"))], "the proposal was lost"


def test_a_refused_nomination_is_made_anew_after_a_pause() -> None:
    nodes = Cluster(Placement(3, "a"))
    nodes.die("a")
    nodes.tick()
    nodes.supervisor.probed("a", refused=True)
    (nomination,) = [action for action in nodes.poll() if isinstance(action, Nominate)]
    assert nodes.tick() == []
    nodes.answered[nomination.node] = nomination.number
    nodes.logs["c"] = Position(3, 12)
    nodes.report("b", "c")
    assert nodes.tick() == []
    nodes.now += 0.2
    assert nominations(nodes.poll()) == [(0, "c")]
    assert nodes.supervisor.refusals == 1


def test_a_nominee_that_does_not_answer_is_given_up() -> None:
    nodes = Cluster(Placement(3, "a"))
    nodes.die("a")
    nodes.tick()
    nodes.supervisor.probed("a", refused=True)
    assert nominations(nodes.poll()) == [(0, "b")]
    nodes.now += TIMEOUT
    nodes.report("b", "c")
    nodes.tick()
    nodes.now += 0.2
    assert nominations(nodes.poll()) == [(0, "c")]


def test_among_equals_whoever_failed_last_comes_last() -> None:
    """However few groups it leads: a node that cannot lead would be nominated for ever."""
    nodes = Cluster(Placement(), Placement(3, "a"), Placement(3, "a"))
    nominated = []
    for _ in range(6):
        (nomination,) = [action for action in nodes.poll() if isinstance(action, Nominate)]
        nominated.append(nomination.node)
        nodes.answered[nomination.node] = nomination.number
        nodes.report(*NODES)
        assert nodes.tick() == []
        nodes.now += 0.2
        nodes.report(*NODES)
    assert nominated == ["b", "c", "a", "b", "c", "a"]


def test_a_node_whose_term_ended_while_it_attended_comes_last_among_equals() -> None:
    nodes = Cluster(Placement(3, "a"), Placement(3, "b"), Placement(3, "b"), Placement(3, "c"), Placement(3, "c"))
    nodes.leads["a"].clear()
    nodes.report("a")
    assert nominations(nodes.poll()) == [(0, "b")]


def test_a_failure_is_forgotten_once_the_group_is_led_well() -> None:
    nodes = Cluster(Placement(3, "a"), Placement(3, "c"))
    nodes.leads["a"].clear()
    nodes.report("a")
    nodes.poll()
    nodes.leads["b"][0] = 4
    nodes.learn(Placement(4, "b"), Placement(3, "c"))
    nodes.report(*NODES)
    assert nodes.tick() == []
    nodes.die("b")
    nodes.tick()
    nodes.supervisor.probed("b", refused=True)
    assert nominations(nodes.poll()) == [(0, "a")]


def test_a_node_that_cannot_lead_is_not_nominated() -> None:
    nodes = Cluster(Placement())
    nodes.able["a"] = False
    nodes.logs["a"] = Position(1, 5)
    nodes.report("a")
    assert nominations(nodes.poll()) == []  # before the first election it may only be starting
    nodes.now += 1.0
    nodes.report(*NODES)
    assert nominations(nodes.poll()) == [(0, "b")]


def test_a_switchover_asks_the_primary_and_then_nominates_the_heir() -> None:
    nodes = Cluster(Placement(3, "a"))
    assert nodes.supervisor.hand_over(0, "c", nodes.now) is None
    (asked,) = nodes.tick()
    assert isinstance(asked, AskToHandOver)
    assert (asked.node, asked.group, asked.to) == ("a", 0, "c")
    nodes.leads["a"].clear()
    nodes.report("a")
    assert nominations(nodes.poll()) == [(0, "c")]


def test_a_switchover_that_cannot_be_says_why() -> None:
    nodes = Cluster(Placement(3, "a"), attending=("a", "b"))
    assert nodes.supervisor.hand_over(1, "b", nodes.now) == Refusal(
        "group is 1; this cluster has the groups 0 to 0"
    )
    assert "allowed are the voters a, b, c" in str(nodes.supervisor.hand_over(0, "d", nodes.now))
    away = nodes.supervisor.hand_over(0, "c", nodes.now)
    assert away == Refusal("c does not attend at the Raft leader; a primary must be reachable", passing=True)
    nodes.able["b"] = False
    nodes.report("b")
    unable = nodes.supervisor.hand_over(0, "b", nodes.now)
    assert unable == Refusal("b cannot lead now: shards of it wait for a resync, or its disk failed", passing=True)


def test_a_wish_that_came_to_nothing_can_be_had_again() -> None:
    nodes = Cluster(Placement(3, "a"))
    assert nodes.supervisor.hand_over(0, "c", nodes.now) is None
    nodes.tick()
    assert nodes.supervisor.heir(0) == "c"
    nodes.leads["a"][0] = 4
    nodes.learn(Placement(4, "a"))
    assert nodes.supervisor.heir(0) == ""
    nodes.report(*NODES)
    assert nodes.supervisor.hand_over(0, "c", nodes.now) is None
    assert [type(action) for action in nodes.tick()] == [AskToHandOver]


def test_a_primary_that_refuses_to_hand_over_stays() -> None:
    nodes = Cluster(Placement(3, "a"))
    nodes.supervisor.hand_over(0, "c", nodes.now)
    (asked,) = nodes.tick()
    assert isinstance(asked, AskToHandOver)
    nodes.answered["a"] = asked.number
    nodes.report("a")
    nodes.tick()
    nodes.wait(3)
    assert nodes.poll() == []


def test_a_draining_node_hands_its_groups_to_different_nodes() -> None:
    nodes = Cluster(Placement(3, "a"), Placement(3, "a"))
    nodes.learn(Placement(3, "a"), Placement(3, "a"), draining="a")
    asked = [action for action in nodes.tick() if isinstance(action, AskToHandOver)]
    assert {(action.group, action.to) for action in asked} == {(0, "b"), (1, "c")}


def handed_over(actions: list[Action]) -> set[tuple[int, str]]:
    return {(action.group, action.to) for action in actions if isinstance(action, AskToHandOver)}


def test_a_draining_node_waits_a_moment_for_a_node_that_is_about_to_follow() -> None:
    """Else whoever follows first gets all of its groups."""
    nodes = Cluster(Placement(3, "a"), Placement(3, "a"))
    nodes.follows["c"] = False
    nodes.report("c")
    nodes.learn(Placement(3, "a"), Placement(3, "a"), draining="a")
    assert nodes.tick() == []
    nodes.now += TIMEOUT / 2
    nodes.follows["c"] = True
    nodes.report(*NODES)
    assert handed_over(nodes.tick()) == {(0, "b"), (1, "c")}


def test_a_draining_node_waits_for_the_failure_timeout_only() -> None:
    nodes = Cluster(Placement(3, "a"), Placement(3, "a"))
    nodes.follows["c"] = False
    nodes.report("c")
    nodes.learn(Placement(3, "a"), Placement(3, "a"), draining="a")
    assert nodes.tick() == []
    nodes.now += TIMEOUT
    nodes.report(*NODES)
    assert handed_over(nodes.tick()) == {(0, "b"), (1, "b")}


@pytest.mark.parametrize("why", ["it does not attend", "it cannot lead"])
def test_a_draining_node_does_not_wait_for_who_cannot_take_a_group(why: str) -> None:
    nodes = Cluster(Placement(3, "a"), attending=("a", "b") if why == "it does not attend" else NODES)
    nodes.follows["c"] = nodes.able["c"] = False
    nodes.report("c")
    nodes.learn(Placement(3, "a"), draining="a")
    assert handed_over(nodes.tick()) == {(0, "b")}


@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_however_hand_overs_interleave_and_fail_a_drained_nodes_groups_end_up_evenly_spread(
    chance: Random, groups_each: int
) -> None:
    """All standbys follow; each step of a hand-over comes about in its own time, and some nominations fail."""
    placements = [Placement(3, name) for name in NODES] * groups_each
    nodes = Cluster(*placements)
    nodes.learn(*placements, draining="a")
    under_way: list[Action] = []
    while any(placement.primary == "a" for placement in nodes.map.placements):
        nodes.now += 0.01
        nodes.report(*NODES)
        under_way += nodes.tick()
        chance.shuffle(under_way)
        match under_way.pop() if under_way and chance.random() < 0.5 else None:
            case AskToHandOver(node, group):
                nodes.leads[node].pop(group, None)
            case Nominate(node, group, number):
                nodes.answered[node] = number
                if chance.random() < 0.7:
                    nodes.leads[node][group] = nodes.map.placements[group].epoch + 1
            case Record(command):
                changed = list(nodes.map.placements)
                changed[command.group] = Placement(command.epoch, command.primary)
                nodes.learn(*changed, draining="a")
    led = Counter(placement.primary for placement in nodes.map.placements)
    assert abs(led["b"] - led["c"]) <= 1


def test_a_draining_node_is_nominated_when_its_log_alone_is_far_enough() -> None:
    nodes = Cluster(Placement(3, "b"))
    nodes.learn(Placement(3, "b"), draining="a")
    nodes.logs |= {"a": Position(3, 9), "c": Position(3, 8)}
    nodes.die("b")
    nodes.tick()
    nodes.supervisor.probed("b", refused=True)
    assert nominations(nodes.poll()) == [(0, "a")]


def test_a_wish_leads_to_one_hand_over_even_if_another_node_wins() -> None:
    """Else a primary that wins because its log alone is far enough would be asked again in every epoch."""
    nodes = Cluster(Placement(3, "a"))
    assert nodes.supervisor.hand_over(0, "c", nodes.now) is None
    nodes.tick()
    nodes.leads["a"][0] = 4
    nodes.learn(Placement(4, "a"))
    nodes.report(*NODES)
    assert nodes.tick() == []
