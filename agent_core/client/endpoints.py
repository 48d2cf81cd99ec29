"""The connections of a client: one channel for each node that it turns to, and what it learns of further nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import grpc.aio

from agent_core.client.addresses import Addresses
from agent_core.client.discovery import Discovery
from agent_core.errors import NotPrimary, Unavailable
from agent_core.transport import client_options, close_channel

CONNECT_SECONDS = 2.0
"""How long a node may take to accept a connection before the next address is tried."""


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to one node, as every client of the project opens it."""
    # With the scheme a host is a name, whatever it is called: gRPC takes `unix:1` for a socket's path.
    return grpc.aio.insecure_channel(f"dns:///{address}", options=client_options())


class Endpoints:
    """Connects to the node in use, and turns to another one that serves.

    Args:
        addresses: One node or several, each `host:port`.
        discover: Learn the cluster's other nodes from the one that was reached; they come behind those given.

    Raises:
        ValueError: No address was given, or one is not `host:port`.
    """

    def __init__(self, addresses: str | Sequence[str], *, discover: bool) -> None:
        self._addresses = Addresses(addresses)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._discovery = Discovery(self._addresses, open_channel) if discover else None

    @property
    def current(self) -> str:
        """The address in use."""
        return self._addresses.current

    async def connected(self, timeout_seconds: float) -> grpc.aio.Channel:
        """The channel to the node in use, with its connection standing: what is sent on it leaves this process.

        Raises:
            Unavailable: The node does not take the connection; nothing was sent.
        """
        address = self.current
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = open_channel(address)
        try:
            async with asyncio.timeout(min(timeout_seconds, CONNECT_SECONDS)):
                await _stands(address, channel)
        except (TimeoutError, Unavailable) as error:
            self._addresses.unreachable(address)
            raise Unavailable(str(error) or f"{address} does not answer") from None
        if self._discovery is not None:
            self._discovery.reached(address, channel)
        return channel

    def failed(self, address: str) -> None:
        """Turn to the next address after `address` did not serve, unless another call has done so already."""
        self._addresses.failed(address)
        if self._discovery is not None:
            self._discovery.prove()

    def redirected(self, address: str, refusal: NotPrimary) -> bool:
        """Turn to the primary that the node at `address` named, or to the next address when it named none.

        Returns:
            Whether it named one.
        """
        named = self._addresses.redirected(address, refusal)
        if not named and self._discovery is not None:
            self._discovery.prove()
        return named

    async def close(self) -> None:
        """Close every channel; calls that run end at once."""
        if self._discovery is not None:
            await self._discovery.close()
        channels, self._channels = tuple(self._channels.values()), {}
        for channel in channels:
            await close_channel(channel)


async def _stands(address: str, channel: grpc.aio.Channel) -> None:
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise Unavailable(f"{address} refuses connections")
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
