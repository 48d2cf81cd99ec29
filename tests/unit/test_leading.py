from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from agent_core.position import START
from ops.leading import LeadingGroup, TermEnded


async def test_a_primary_whose_voter_sealed_another_before_it_began_never_begins() -> None:
    """Its opening record would be acknowledged by a majority that overlaps with nothing of the other's."""
    stepped_down: list[int] = []
    context = SimpleNamespace(
        group=0,
        log=SimpleNamespace(base=START),
        positions=SimpleNamespace(advance=lambda _group, _position: None),
        node_id="a",
        tracer=None,
        cluster=SimpleNamespace(voters=lambda: [SimpleNamespace(node_id=name) for name in "abc"]),
        configuration=SimpleNamespace(
            election=SimpleNamespace(lease_seconds=0.6, failure_timeout_seconds=1.0),
            replication=SimpleNamespace(heartbeat_seconds=0.1),
        ),
        voter=SimpleNamespace(floor=7, on_raised=lambda _listener: None),
    )
    registry = SimpleNamespace(step_down=stepped_down.append)
    leading = LeadingGroup(cast("Any", context), cast("Any", registry), epoch=6, unlogged=frozenset())
    assert await leading.run() == TermEnded("epoch 7 was promised to another primary")
    assert leading.tracker is None
    assert stepped_down == [0]
