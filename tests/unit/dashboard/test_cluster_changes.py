"""What the dashboard concludes from how several nodes see the cluster, and from how that changes."""

from __future__ import annotations

from ops.cluster_view import ClusterResponse
from ops.dashboard.cluster.changes import changes
from ops.dashboard.cluster.chart import LEAST_SECONDS, lag_chart
from ops.dashboard.cluster.lag_history import LagSample
from ops.dashboard.cluster.picture import Picture, draw
from ops.dashboard.cluster.tables import groups, size
from tests.unit.dashboard.views import view


def picture(*views: ClusterResponse, failures: dict[str, str] | None = None) -> Picture:
    drawn = draw({seen.node_id: seen for seen in views}, failures or {})
    assert drawn is not None
    return drawn


def sentences(before: Picture, after: Picture) -> list[str]:
    return [change.sentence for change in changes(before, after)]


def led(primary: str, epoch: int, *nodes: str, failures: dict[str, str] | None = None) -> Picture:
    return picture(*(view(node, {0: (primary, epoch)}) for node in nodes), failures=failures)


def test_without_a_view_there_is_no_picture() -> None:
    assert draw({}, {"node-1": "gone"}) is None


def test_a_primary_that_nobody_asked_is_known_from_its_standbys() -> None:
    drawn = led("node-1", 3, "node-2", "node-3")
    (group,) = drawn.groups
    assert [(member.node_id, member.role) for member in group.members] == [
        ("node-1", "primary"), ("node-2", "standby"), ("node-3", "standby")
    ]  # fmt: skip
    assert (group.epoch, group.committed_lsn) == (3, 10)
    assert [node.answers for node in drawn.nodes] == [None, True, True]
    assert "leads, heard by 2" in groups(drawn, {})


def test_a_node_that_does_not_answer_stays_in_its_groups() -> None:
    failures = {"node-1": "it refuses connections"}
    drawn = led("node-2", 2, "node-3", failures=failures)
    assert [member.node_id for member in drawn.groups[0].members] == ["node-2", "node-1", "node-3"]
    assert groups(drawn, failures).count("does not answer") == 1


def test_a_node_of_which_nobody_tells_is_said_to_be_not_asked() -> None:
    drawn = led("node-1", 1, "node-2")
    assert groups(drawn, {}).count("not asked") == 1
    assert "heard by 1" in groups(drawn, {})


def test_a_node_with_an_older_view_does_not_bring_back_the_old_primary() -> None:
    drawn = picture(view("node-2", {0: ("node-1", 1)}), view("node-3", {0: ("node-3", 2)}))
    assert (drawn.groups[0].primary, drawn.groups[0].epoch) == ("node-3", 2)


def test_nothing_happened_between_two_pictures_that_are_alike() -> None:
    assert sentences(led("node-1", 1, "node-2"), led("node-1", 1, "node-2")) == []


def test_another_primary_after_the_old_one_died_is_a_fail_over() -> None:
    after = led("node-2", 2, "node-3", failures={"node-1": "it refuses connections"})
    assert sentences(led("node-1", 1, "node-2", "node-3"), after) == [
        "Group 0: fail-over from node-1 to node-2, epoch 1 → 2",
        "node-1 stopped answering: it refuses connections",
    ]


def test_another_primary_while_the_old_one_lives_is_a_change() -> None:
    after = led("node-2", 2, "node-1", "node-3")
    assert sentences(led("node-1", 1, "node-2", "node-3"), after) == [
        "Group 0: change of primary from node-1 to node-2, epoch 1 → 2"
    ]


def test_the_same_primary_in_a_higher_epoch_leads_again() -> None:
    assert sentences(led("node-1", 1, "node-2"), led("node-1", 2, "node-2")) == [
        "Group 0: node-1 leads again, in epoch 2"
    ]


def test_nodes_that_go_and_come_back_and_drain_are_noted() -> None:
    gone = led("node-1", 1, "node-2", failures={"node-3": "gone"})
    back = led("node-1", 1, "node-2", "node-3")
    draining = picture(view("node-2", {0: ("node-1", 1)}, draining=["node-1"]))
    assert sentences(back, gone) == ["node-3 stopped answering: gone"]
    assert sentences(gone, back) == ["node-3 is back"]
    assert sentences(led("node-1", 1, "node-2"), draining) == ["node-1 is draining: it shall lead nothing"]


def test_a_standby_that_loses_its_primary_and_finds_one_is_noted() -> None:
    lost = picture(view("node-2", {0: ("node-1", 1)}, connected=False))
    follows = led("node-1", 1, "node-2")
    assert sentences(follows, lost) == ["Group 0: node-2 lost its primary"]
    assert sentences(lost, follows) == ["Group 0: node-2 follows node-1"]


def test_another_raft_leader_is_noted() -> None:
    before = led("node-1", 1, "node-2")
    after = picture(view("node-2", {0: ("node-1", 1)}, raft_leader="node-3"))
    assert sentences(before, after) == ["Raft leader: node-1 → node-3"]


def test_names_of_nodes_are_escaped() -> None:
    assert "<script>" not in groups(picture(view("node-2", {0: ("<script>", 1)})), {})


def test_the_chart_shows_the_last_minutes_of_each_standby() -> None:
    options = lag_chart({"node-2": [LagSample(0.0, 9.0), LagSample(1000.0, 0.01)], "node-3": []}, 1001.0)
    assert [series["name"] for series in options["series"]] == ["node-2", "node-3"]
    assert options["series"][0]["data"] == [[1_000_000, 0.01]]
    assert options["yAxis"]["max"] == LEAST_SECONDS
    assert options["useUTC"] is True, "as all times of the dashboard are"


def test_sizes_are_told_in_the_unit_that_fits() -> None:
    assert [size(count) for count in (None, 0, 2048, 15 << 20, 3 << 30)] == [
        "–",
        "0 B",
        "2.0 KiB",
        "15 MiB",
        "3.0 GiB",
    ]
