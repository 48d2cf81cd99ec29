"""Which node the dashboard reads from."""

from __future__ import annotations

from ops.dashboard.node_client.choice import MAX_PROBE_SECONDS, PROBE_SECONDS, NodeChoice
from tests.unit.dashboard.views import NODES, view

ADDRESSES = [f"{node}:7201" for node in NODES]


def informed(primaries: dict[int, tuple[str, int]] | None = None) -> NodeChoice:
    """A choice that one standby has told of the cluster."""
    choice = NodeChoice(ADDRESSES)
    choice.learn("node-2:7201", view("node-2", primaries or {0: ("node-1", 1)}))
    return choice


def order(choice: NodeChoice) -> list[str]:
    return [node.name for node in choice.order()]


def test_a_primary_is_read_last_though_it_was_named_first() -> None:
    assert order(informed()) == ["node-2", "node-3", "node-1"]


def test_a_primary_is_read_when_no_standby_answers() -> None:
    choice = informed()
    choice.failed("node-2:7201", "gone", 0.0)
    choice.failed("node-3:7201", "gone", 0.0)
    assert order(choice)[0] == "node-1"


def test_a_node_that_failed_is_read_again_once_it_answered() -> None:
    choice = informed()
    choice.failed("node-2:7201", "gone", 0.0)
    assert order(choice)[0] == "node-3"
    choice.answered("node-2:7201", age_seconds=0.0, reading=False)
    assert order(choice)[0] == "node-2"


def test_it_stays_with_the_node_that_it_reads() -> None:
    choice = informed()
    choice.answered("node-3:7201", age_seconds=0.0)
    assert order(choice)[0] == "node-3"


def test_a_node_that_became_primary_is_left() -> None:
    choice = informed()
    choice.answered("node-3:7201", age_seconds=0.0)
    choice.learn("node-2:7201", view("node-2", {0: ("node-3", 2)}))
    assert order(choice) == ["node-1", "node-2", "node-3"]


def test_an_older_view_does_not_make_a_deposed_primary_lead_again() -> None:
    choice = informed({0: ("node-3", 2)})
    choice.learn("node-1:7201", view("node-1", {0: ("node-1", 1)}))
    assert choice.primary_of(0) == ("node-3", 2)


def test_a_stale_node_is_left_for_a_fresh_one() -> None:
    choice = informed()
    choice.answered("node-2:7201", age_seconds=60.0)
    assert order(choice)[0] == "node-3"


def test_where_every_node_leads_something_the_one_that_leads_least_is_read() -> None:
    primaries = {0: ("node-1", 1), 1: ("node-1", 1), 2: ("node-2", 1), 3: ("node-2", 1), 4: ("node-3", 1)}
    assert order(informed(primaries))[0] == "node-3"


def test_other_nodes_are_learnt_from_the_one_that_was_named() -> None:
    choice = NodeChoice(["node-2:7201"])
    choice.learn("node-2:7201", view("node-2", {0: ("node-1", 1)}))
    assert order(choice) == ["node-2", "node-3", "node-1"]


def test_a_node_named_by_another_spelling_of_its_address_is_known_once() -> None:
    choice = NodeChoice(["localhost:9"])
    choice.learn("localhost:9", view("node-2", {0: ("node-1", 1)}))
    assert sorted(node.address for node in choice.nodes) == ["localhost:9", "node-1:7201", "node-3:7201"]


def test_one_node_is_asked_until_it_is_known_who_leads() -> None:
    choice = NodeChoice(ADDRESSES)
    assert [node.address for node in choice.to_watch(0.0)] == ["node-1:7201"]
    choice.failed("node-1:7201", "gone", 0.0)
    assert [node.address for node in choice.to_watch(0.0)] == ["node-2:7201"]


def test_a_primary_is_not_watched_while_a_standby_lives() -> None:
    choice = informed()
    assert {node.name for node in choice.to_watch(0.0)} == {"node-2", "node-3"}
    choice.failed("node-2:7201", "gone", 0.0)
    choice.failed("node-3:7201", "gone", 0.0)
    assert {node.name for node in choice.to_watch(0.0)} == {"node-1"}


def test_a_node_that_keeps_failing_is_asked_ever_less_often_up_to_a_bound() -> None:
    choice = informed()
    waits, now = [], 0.0
    for _ in range(6):
        choice.failed("node-2:7201", "gone", now)
        due = next(
            now + wait / 2
            for wait in range(1, 100)
            if any(node.name == "node-2" for node in choice.to_watch(now + wait / 2))
        )
        waits.append(due - now)
        now = due
    assert waits == [PROBE_SECONDS, 2, MAX_PROBE_SECONDS, MAX_PROBE_SECONDS, MAX_PROBE_SECONDS, MAX_PROBE_SECONDS]
