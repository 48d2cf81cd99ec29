from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

from ops.leading import LeadingGroup, TermEnded


async def test_a_primary_whose_voter_sealed_another_before_it_began_never_begins() -> None:
    """It could acknowledge with this very vote what the other does not hold."""
    context, registry = MagicMock(group=0, node_id="a", tracer=None), MagicMock()
    context.cluster.voters.return_value = [SimpleNamespace(node_id=name) for name in "abc"]
    context.configuration.election = SimpleNamespace(lease_seconds=0.6, failure_timeout_seconds=1.0)
    context.voter.floor = 7
    leading = LeadingGroup(context, registry, epoch=6, unlogged=frozenset(), on_begun=AsyncMock())
    assert await leading.run() == TermEnded("epoch 7 was promised to another primary")
    assert leading.tracker is None
    registry.step_down.assert_called_once_with(0)
