"""The supervisor says until when nobody need look: no failure may be noticed later for it."""

from __future__ import annotations

import pytest

from agent_core.control.cluster_map import Placement
from tests.unit.supervised_cluster import NODES, TIMEOUT, Cluster

RESTLESS = float("-inf")


def well_led() -> Cluster:
    nodes = Cluster(Placement(3, "a"), Placement(3, "b"))
    assert nodes.tick() == []
    return nodes


def test_groups_that_are_led_well_need_no_look_before_the_longest_silence_could_be_a_failure() -> None:
    nodes = well_led()
    assert nodes.supervisor.calm_until() == nodes.now + TIMEOUT
    nodes.silent["c"] = 0.3
    nodes.report("c")
    assert nodes.supervisor.calm_until() == pytest.approx(nodes.now + TIMEOUT - 0.3)


def test_no_look_before_that_would_do_anything_and_one_after_it_does() -> None:
    nodes = well_led()
    nodes.now += 0.2
    nodes.report("a", "c")
    until = nodes.supervisor.calm_until()
    while nodes.now < until - 0.01:
        nodes.now += 0.01
        assert nodes.tick() == []
        assert nodes.supervisor.calm()
    nodes.now = until
    nodes.silent |= {"a": TIMEOUT, "c": TIMEOUT}
    nodes.report("a", "c")
    assert nodes.tick()


def test_every_report_puts_off_the_next_look() -> None:
    nodes = well_led()
    nodes.now += 0.5
    nodes.report(*NODES)
    assert nodes.supervisor.calm_until() == nodes.now + TIMEOUT


def test_a_group_without_a_primary_lets_nobody_rest() -> None:
    nodes = Cluster(Placement(3, "a"), Placement())
    nodes.tick()
    assert nodes.supervisor.calm_until() == RESTLESS


def test_a_primary_that_does_not_attend_lets_nobody_rest() -> None:
    nodes = well_led()
    nodes.die("a")
    nodes.tick()
    assert nodes.supervisor.calm_until() == RESTLESS


def test_a_wish_for_another_primary_and_a_draining_one_let_nobody_rest() -> None:
    nodes = well_led()
    nodes.supervisor.hand_over(0, "b", nodes.now)
    assert nodes.tick()
    assert nodes.supervisor.calm_until() == RESTLESS
    nodes = well_led()
    nodes.learn(*nodes.map.placements, draining="a")
    nodes.tick()
    assert nodes.supervisor.calm_until() == RESTLESS


def test_nobody_rests_before_anything_is_known() -> None:
    assert Cluster().supervisor.calm_until() == RESTLESS
