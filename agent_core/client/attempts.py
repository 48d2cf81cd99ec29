"""How a client spaces its attempts."""

from __future__ import annotations

from agent_core.backoff import Backoff
from agent_core.transport import ROUTE_DIRECT, ROUTE_KEY


def new_backoff() -> Backoff:
    """Pauses from 20 to 100 ms: short beside a fail-over, and no load on a node that is starting."""
    return Backoff(first_seconds=0.02, longest_seconds=0.1)


DIRECT = ((ROUTE_KEY, ROUTE_DIRECT),)
"""The metadata of a client's calls."""
