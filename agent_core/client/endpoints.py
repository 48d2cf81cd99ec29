"""Which node the client talks to: the configured addresses, and what a node said about where the primary is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import grpc
import grpc.aio

from agent_core.errors import NotPrimary, Unavailable
from agent_core.transport import client_options, close_channel

ADDRESS_PATTERN = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
MAX_PORT = 65535
CONNECT_SECONDS = 2.0
"""How long a node may take to accept a connection before the next address is tried."""
MAX_CHANNELS = 64
"""Addresses that a client ever talks to; redirections past it are not followed."""


def check_address(address: str) -> str:
    """Return a node's address.

    Raises:
        ValueError: It is not `host:port`.
    """
    match = ADDRESS_PATTERN.fullmatch(address)
    if match is None or not 0 < int(match["port"]) <= MAX_PORT:
        raise ValueError(f"a node's address is written host:port, for example 127.0.0.1:7101; got {address!r}")
    return address


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to one node, as every client of the project opens it."""
    return grpc.aio.insecure_channel(address, options=client_options())


def primary_address(error: NotPrimary) -> str | None:
    """The address of the primary that a node named in its refusal: the message's last word that is `host:port`."""
    for word in reversed(str(error).split()):
        candidate = word.strip("'\"`,;()").rstrip(".")
        match = ADDRESS_PATTERN.fullmatch(candidate)
        if match is not None and 0 < int(match["port"]) <= MAX_PORT:
            return candidate
    return None


class Endpoints:
    """The addresses to try, the one in use, and one channel for each that was used.

    Raises:
        ValueError: No address was given, or one is not `host:port`.
    """

    def __init__(self, addresses: str | Sequence[str]) -> None:
        given = (addresses,) if isinstance(addresses, str) else tuple(addresses)
        if not given:
            raise ValueError("a client needs the address of at least one node")
        self._configured = tuple(check_address(address) for address in given)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._next = 0
        self.current = self._configured[0]

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
                state = channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise Unavailable(f"{address} refuses connections")
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            raise Unavailable(f"{address} does not answer") from None
        return channel

    def failed(self, address: str) -> None:
        """Turn to the next configured address after `address` did not serve.

        Does nothing when another call has turned away from it already.
        """
        if address == self.current:
            self._next = (self._next + 1) % len(self._configured)
            self.current = self._configured[self._next]

    def redirected(self, address: str, refusal: NotPrimary) -> bool:
        """Turn to the primary that the node at `address` named, or to the next address when it named none.

        Returns:
            Whether it named one.
        """
        named = primary_address(refusal)
        if (
            named is None
            or named == address
            or (named not in self._channels and len(self._channels) >= MAX_CHANNELS)
        ):
            self.failed(address)
            return False
        if address == self.current:
            self.current = named
        return True

    async def close(self) -> None:
        """Close every channel; calls that run end at once."""
        channels, self._channels = tuple(self._channels.values()), {}
        for channel in channels:
            await close_channel(channel)
