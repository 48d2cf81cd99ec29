"""How a client spaces its attempts."""

from __future__ import annotations

from agent_core.backoff import Backoff


def new_backoff() -> Backoff:
    """Pauses from 20 ms up to one second: short beside a fail-over, and no load on a node that is starting."""
    return Backoff(first_seconds=0.02, longest_seconds=1.0)
