"""Which calls a node answers itself, and which it makes at another node for its caller."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core.cluster import NodeAddress
from agent_core.routing import ShardLayout
from agent_core.rpc.session_pb2 import GetSessionRequest, GetSessionResponse, Session
from agent_core.transport import ROUTE_DIRECT, ROUTE_FORWARDED, ROUTE_KEY
from primary.forwarding import ForwardingSessions

LAYOUT = ShardLayout(shard_count=4, shard_group_count=2)
ONE, TWO = (NodeAddress(name, f"{name}:1", f"{name}:2") for name in ("one", "two"))


class Answering:
    """A node's own service, or the stub of another's: says who answered."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def GetSession(  # noqa: N802 - the name in the proto
        self, _request: GetSessionRequest, _context: object = None, **_: object
    ) -> GetSessionResponse:
        return GetSessionResponse(session=Session(title=self._name))


class Context:
    """A call that came with or without a wish for its route."""

    def __init__(self, route: str | None) -> None:
        self._metadata = () if route is None else ((ROUTE_KEY, route),)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def time_remaining(self) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("route", "leaders", "answers"),
    [
        pytest.param(None, (None, None), "itself", id="this node leads all"),
        pytest.param(None, (ONE, ONE), "one", id="another node leads all"),
        pytest.param(None, (None, ONE), "one", id="this node leads some"),
        pytest.param(ROUTE_DIRECT, (ONE, ONE), "itself", id="direct, another node leads all"),
        pytest.param(ROUTE_DIRECT, (TWO, ONE), "one", id="direct, two other nodes lead"),
        pytest.param(ROUTE_DIRECT, (None, ONE), "one", id="direct, this node leads some"),
        pytest.param(ROUTE_FORWARDED, (TWO, ONE), "itself", id="forwarded already"),
    ],
)
async def test_a_caller_is_sent_on_only_if_it_asks_for_it_and_one_other_node_leads_everything(
    route: str | None, leaders: tuple[NodeAddress | None, ...], answers: str
) -> None:
    session_id = next(name for name in "abcdef" if LAYOUT.group_of(LAYOUT.shard_of(name)) == 1)
    local: Any = Answering("itself")

    async def moved() -> None:
        raise AssertionError("only append streams ask")

    def stub_of(node: NodeAddress) -> Any:
        return Answering(node.node_id)

    sessions = ForwardingSessions(
        local, LAYOUT, elsewhere=lambda group: leaders[group], moved=moved, stub_of=stub_of
    )
    context: Any = Context(route)
    response = await sessions.GetSession(GetSessionRequest(session_id=session_id), context)
    # What this node does not lead it answers with `not_primary`, which names the primary and its address.
    assert response.session.title == answers
