"""How gRPC is set up between nodes and clients: limits of messages, keepalive, reconnecting, and a bounded end.

A client asks an idle connection every 2 s whether it still stands: a node that hangs or vanished without a word
would else be noticed only when something is sent, and a subscriber sends nothing. A gRPC server takes such pings,
more often than every five minutes on a stream that carries nothing, for abuse, and closes the connection with "too
many pings", unless it is told otherwise. So both sides' options stand here, made from the same interval.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc.aio
import structlog

log = structlog.get_logger(__name__)

Options = tuple[tuple[str, int], ...]

RESOLVE_AGAIN: Options = (("grpc.dns_min_time_between_resolutions_ms", 1_000),)
"""A container that is started anew has another address; gRPC would ask for it twice a minute at most."""

MAX_MESSAGE_BYTES = 64 << 20
"""The largest message between a client and a node."""
MAX_NODE_MESSAGE_BYTES = 4 << 20
"""The largest message between two nodes: replication sends 1 MiB of records or pages at a time."""

KEEPALIVE_MS = 2_000
KEEPALIVE_TIMEOUT_MS = 3_000
"""Then the connection is given up. gRPC's own threads answer: a busy node does, a stopped one does not."""

ROUTE_KEY = "headwater-route"
"""Metadata of a Sessions call; without it any node forwards what another one leads."""
ROUTE_DIRECT = "direct"
"""A client would rather be told the primary's address, if one node leads everything."""
ROUTE_FORWARDED = "forwarded"
"""Another node has sent this on: it must not go further."""

END_SECONDS = 5.0
"""How long the end of a server or channel may take, past the grace that its calls get."""


def client_options(*, keepalive_ms: int = KEEPALIVE_MS) -> Options:
    """Options of a client's channel to a node."""
    return (
        *_message_limits(MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # What gRPC waits by for a ping's answer, whatever the option before says; its default is a minute.
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # Pings go on for as long as a stream stands, however long it carries nothing.
        ("grpc.http2.max_pings_without_data", 0),
        # Two clients in one process must not share a connection: one stalled stream would stall the other.
        ("grpc.use_local_subchannel_pool", 1),
        # gRPC waits up to two minutes between attempts by default; a node that was restarted is back in one second.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        *RESOLVE_AGAIN,
    )


def server_options(*, keepalive_ms: int = KEEPALIVE_MS) -> Options:
    """Options of a node's server, for clients that ping every `keepalive_ms`."""
    return (
        *_message_limits(MAX_MESSAGE_BYTES),
        # Half the interval: a ping that the network delayed comes close before the next one.
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 2),
        # Two daemons on one port would otherwise share its connections in silence.
        ("grpc.so_reuseport", 0),
    )


NODE_CHANNEL_OPTIONS: Options = (
    ("grpc.max_receive_message_length", MAX_NODE_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_NODE_MESSAGE_BYTES),
    # A peer that restarts is found again at once; gRPC's own default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    *RESOLVE_AGAIN,
)
"""Options of a channel between nodes. No keepalive: its streams carry heartbeats."""


async def stop_server(server: grpc.aio.Server, grace_seconds: float | None = None) -> None:
    """End a server's calls after a grace, and the server; return in bounded time whatever gRPC does."""
    await _bounded(server.stop(grace_seconds), (grace_seconds or 0.0) + END_SECONDS, "server")


async def close_channel(channel: grpc.aio.Channel) -> None:
    """End a channel with its calls; return in bounded time whatever gRPC does."""
    await _bounded(channel.close(), END_SECONDS, "channel")


async def _bounded(ending: Coroutine[Any, Any, None], seconds: float, what: str) -> None:
    task = asyncio.ensure_future(ending)
    # Not wait_for: that waits for the cancelled task, which may be what hangs.
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if done:
        task.result()
    else:
        task.cancel()
        log.warning("gRPC did not end in time", what=what, seconds=seconds)


def _message_limits(size: int) -> Options:
    return ("grpc.max_send_message_length", size), ("grpc.max_receive_message_length", size)
