"""The lag of standbys over time, of silent ones too."""

from __future__ import annotations

import pytest

from ops.dashboard.cluster.lag_history import LagHistory
from ops.dashboard.cluster.picture import draw
from tests.unit.dashboard.views import view


def look(history: LagHistory, now: float, *silent: str, primary: str = "node-1", **lags: float) -> None:
    """One look, at which these standbys told their lags and the silent ones nothing."""
    views = {
        f"node-{number}": view(f"node-{number}", {0: (primary, 1)}, lag_seconds=lag)
        for number, lag in ((name.removeprefix("node_"), lag) for name, lag in lags.items())
    }
    picture = draw(views, dict.fromkeys(silent, "it did not answer in time"))
    assert picture is not None
    history.add(now, picture, views)


def seconds(history: LagHistory, node: str) -> list[float]:
    return [round(sample.seconds, 3) for sample in history.samples.get(node, ())]


def test_standbys_that_answer_are_as_far_behind_as_they_say() -> None:
    history = LagHistory()
    look(history, 100.0, node_2=0.0, node_3=0.25)
    look(history, 101.0, node_2=0.5, node_3=0.0)
    assert seconds(history, "node-2") == [0.0, 0.5]
    assert seconds(history, "node-3") == [0.25, 0.0]


def test_the_lag_of_a_silent_standby_grows_from_when_it_last_had_everything_and_falls_when_it_is_back() -> None:
    history = LagHistory()
    look(history, 100.0, node_2=0.0, node_3=0.5)
    look(history, 103.0, "node-3", node_2=0.0)
    look(history, 106.0, "node-3", node_2=0.0)
    look(history, 107.0, node_2=0.0, node_3=2.0)
    look(history, 108.0, node_2=0.0, node_3=0.0)
    assert seconds(history, "node-3") == [0.5, 3.5, 6.5, 2.0, 0.0]


def test_a_primary_has_no_line_until_it_is_gone_and_then_begins_at_nothing() -> None:
    history = LagHistory()
    look(history, 50.0, node_1=3.0, node_3=0.0, primary="node-2")
    look(history, 100.0, node_2=0.0, node_3=0.0)
    assert seconds(history, "node-1") == [3.0]
    look(history, 101.0, "node-1", node_3=0.0, primary="node-2")
    look(history, 103.0, "node-1", node_3=0.0, primary="node-2")
    assert seconds(history, "node-1") == [3.0, 1.0, 3.0]


@pytest.mark.parametrize("silent", [(), ("node-3",)])
def test_a_standby_that_became_primary_has_no_further_samples(silent: tuple[str, ...]) -> None:
    history = LagHistory()
    look(history, 100.0, node_2=0.0, node_3=0.0)
    look(history, 101.0, *silent, node_2=0.0, primary="node-2")
    assert seconds(history, "node-2") == [0.0]
