"""What the demonstration's end says, and the exit code that follows from it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ops.cli import demo
from ops.cli.main import main
from ops.demo import DemoOutcome

EVERYWHERE = {"node-1": 10, "node-2": 10, "node-3": 10}


def test_it_holds_when_every_node_has_exactly_what_was_acknowledged_in_identical_shards() -> None:
    outcome = DemoOutcome(10, EVERYWHERE, identical=True)
    assert outcome.held
    assert str(outcome) == "demo: 10 entries acknowledged, 10 on each standby, shards identical: yes"


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (DemoOutcome(10, EVERYWHERE, identical=False), "10 on each standby, shards identical: no"),
        (
            DemoOutcome(10, {"node-1": 10, "node-2": 9}, identical=True),
            "9/10 on each standby, shards identical: yes",
        ),
        (DemoOutcome(11, EVERYWHERE, identical=True), "10 on each standby, shards identical: yes"),
        (DemoOutcome(9, EVERYWHERE, identical=True), "10 on each standby, shards identical: yes"),
    ],
)
def test_what_does_not_hold_is_told_and_is_exit_code_1(
    outcome: DemoOutcome, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not outcome.held

    async def run_demo(*_: object, **__: object) -> DemoOutcome:
        return outcome

    monkeypatch.setattr(demo, "run_demo", run_demo)
    ended = CliRunner().invoke(main, ["demo", "--seconds", "1"])
    assert ended.exit_code == 1
    assert ended.stdout == f"demo: {outcome.acknowledged} entries acknowledged, {told}\n"
