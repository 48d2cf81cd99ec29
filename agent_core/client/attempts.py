"""How a client spaces its attempts, and what it says of those that failed."""

from __future__ import annotations

from agent_core.backoff import Backoff
from agent_core.errors import HeadwaterError
from agent_core.transport import ROUTE_DIRECT, ROUTE_KEY

MAX_NAMED = 8
"""Nodes that one message names with their reasons."""


def new_backoff() -> Backoff:
    """Pauses from 20 to 100 ms: short beside a fail-over, and no load on a node that is starting."""
    return Backoff(first_seconds=0.02, longest_seconds=0.1)


DIRECT = ((ROUTE_KEY, ROUTE_DIRECT),)
"""The metadata of a client's calls."""


class Failures:
    """Why each node that was tried did not serve, to be told together: the last alone would hide the others."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def note(self, address: str, error: HeadwaterError) -> None:
        """Remember why the node at an address did not serve, instead of an earlier reason of its own."""
        self._reasons.pop(address, None)
        self._reasons[address] = str(error)
        if len(self._reasons) > MAX_NAMED:
            del self._reasons[next(iter(self._reasons))]

    def clear(self) -> None:
        """A node serves."""
        self._reasons.clear()

    def told(self, error: HeadwaterError) -> HeadwaterError:
        """The error that ends the attempts, with the reason of each node if several failed."""
        if len(self._reasons) < 2:
            return error
        return type(error)(str(self) if str(error) in self._reasons.values() else f"{error} ({self})")

    def __str__(self) -> str:
        """Each node with its reason; empty: none has failed."""
        return "; ".join(
            reason if reason.startswith(f"{address} ") else f"{address}: {reason}"
            for address, reason in self._reasons.items()
        )
