from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

import pytest

from agent_core.position import Position
from ops.leading import LeadingGroup, TermEnded
from primary.electing.tenure import Tenure


def leading_group(*, floor: int = 0) -> LeadingGroup:
    """One that leads epoch 6 of three voters, and whose shards never open."""
    context = MagicMock(group=0, node_id="a", tracer=None)
    context.cluster.voters.return_value = [SimpleNamespace(node_id=name) for name in "abc"]
    context.configuration.election = SimpleNamespace(lease_seconds=0.6, failure_timeout_seconds=1.0)
    context.configuration.replication.heartbeat_seconds = 0.001
    context.voter.floor = floor
    return LeadingGroup(context, MagicMock(), epoch=6, unlogged=frozenset(), on_begun=AsyncMock())


async def test_a_primary_whose_voter_sealed_another_before_it_began_never_begins() -> None:
    """It could acknowledge with this very vote what the other does not hold."""
    leading = leading_group(floor=7)
    assert await leading.run() == TermEnded("epoch 7 was promised to another primary")
    assert leading.tracker is None
    leading._registry.step_down.assert_called_once_with(0)  # type: ignore[attr-defined] # a mock


async def test_a_primary_that_can_no_longer_watch_its_quorum_does_not_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would never step down."""
    leading = leading_group()
    monkeypatch.setattr(leading, "_begin", AsyncMock())
    monkeypatch.setattr(leading, "_tidy", AsyncMock())
    monkeypatch.setattr(Tenure, "is_over", MagicMock(side_effect=ValueError("an odd value")))
    with pytest.raises(ValueError, match="an odd value"):
        await leading.run()


async def test_a_primary_that_acknowledges_alone_keeps_the_log_that_no_quorum_holds() -> None:
    """The log's base counts as committed wherever one is read."""
    leading = leading_group()
    leading.writer = MagicMock(visible_position=Position(6, 90), database=SimpleNamespace(shards={}))
    leading.tracker = MagicMock(committed_lsn=40)
    leading.streams = MagicMock(needs=list, holds=list)
    log = MagicMock(size_bytes=0, last=Position(6, 90))
    leading.context.log = log
    leading.context.configuration.storage.log_retention_mib = 1024
    await leading._tidy()
    log.drop_through.assert_called_once_with(40)
