"""Resyncs that an operator ordered, and who waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent_core.errors import Unavailable
from agent_core.position import Position
from replica.resync_needs import ResyncNeeds


@dataclass(frozen=True, slots=True)
class Resynced:
    """What a resync came to: the position that the shard contains, and how many of its pages differed."""

    position: Position
    pages: int


class ResyncOrders:
    """One group's open orders, at most one for each shard. Everything runs on the event loop."""

    def __init__(self, needs: ResyncNeeds) -> None:
        """Note the orders among `needs`."""
        self._needs = needs
        self._orders: dict[int, asyncio.Future[Resynced]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._closed = False

    def on_ordered(self, listener: Callable[[], None]) -> None:
        """Call `listener` with each new order."""
        self._listeners.append(listener)

    async def place(self, shard: int) -> Resynced:
        """Order the resync of a shard, or join whoever did, and wait for it; giving up calls nothing off.

        Raises:
            Unavailable: Nothing is resynced here any more.
        """
        if self._closed:
            raise _not_resynced()
        if shard not in self._orders:
            self._orders[shard] = asyncio.get_running_loop().create_future()
            self._needs.order(shard)
            for listener in self._listeners:
                listener()
        return await asyncio.shield(self._orders[shard])

    def fulfil(self, shard: int, resynced: Resynced) -> None:
        """A shard is equal to the primary's, whether that was ordered or not."""
        self._needs.fulfilled(shard)
        order = self._orders.pop(shard, None)
        if order is not None:
            order.set_result(resynced)

    def close(self) -> None:
        """Nothing will be resynced any more: whoever waits, or orders yet, is told so."""
        self._closed = True
        for order in self._orders.values():
            order.set_exception(_not_resynced())
            order.exception()  # looked at, so that it is not reported as forgotten where nobody waits any more
        self._orders.clear()


def _not_resynced() -> Unavailable:
    return Unavailable("this node no longer follows the group; the shard was not resynced")
