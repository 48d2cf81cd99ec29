"""Three hundred seeds of the simulation, and what makes a seed worth having: that it replays."""

from __future__ import annotations

import pytest

from tests.simulation.decisions import Decisions
from tests.simulation.simulation import Failed, Simulation, simulate
from tests.simulation.world import Violation

SEEDS_PER_TEST = 50


@pytest.mark.parametrize("first", range(1, 301, SEEDS_PER_TEST))
def test_no_seed_finds_a_violation(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        simulate(seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_replays_exactly(seed: int) -> None:
    first, second = Simulation(seed), Simulation(seed)
    assert first.run() == second.run()
    assert first.world.trace() == second.world.trace()


def test_a_failing_seed_shows_its_last_events_and_how_to_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Simulation) -> bool:
        raise Violation("something impossible")

    monkeypatch.setattr(Simulation, "_quiet", fail)
    with pytest.raises(Failed) as failed:
        simulate(7, Decisions())
    text = str(failed.value)
    assert "elected" in text
    assert "Violation: something impossible" in text
    assert text.endswith("make simulate SEEDS=1 FIRST=7")
