"""Compares a shard across nodes, page by page, at one position."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from agent_core.database.pages import PAGE_HASH_BYTES
from agent_core.position import Position
from agent_core.rpc.administration_pb2 import ShardDigestRequest, ShardDigestResponse, StatusRequest
from agent_core.rpc.administration_pb2_grpc import AdministrationStub
from agent_core.stream import from_message

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.administration_pb2_grpc import AdministrationAsyncStub

TRIES = 40
PAUSE_SECONDS = 0.25
PAGES_NAMED = 20


@dataclass(frozen=True, slots=True)
class ShardComparison:
    """One shard on several nodes.

    Attributes:
        shard: Its number.
        positions: What each node's file contains.
        page_count: Pages on the first node.
        differing_pages: Pages that are not the same everywhere, at most some.
        problem: Why it is not identical, in a sentence; None when it is.
    """

    shard: int
    positions: Mapping[str, Position]
    page_count: int
    differing_pages: tuple[int, ...] = ()
    problem: str | None = None


def compare(shard: int, digests: Mapping[str, ShardDigestResponse]) -> ShardComparison:
    """Judge one shard from each node's page hashes. Pure."""
    positions = {node: from_message(digest.position) for node, digest in digests.items()}
    first, *others = digests.values()
    if len(set(positions.values())) > 1:
        told = ", ".join(f"{node} at {position}" for node, position in positions.items())
        return ShardComparison(shard, positions, first.page_count, problem=f"the nodes do not meet: {told}")
    if all(other.digest == first.digest and other.page_count == first.page_count for other in others):
        return ShardComparison(shard, positions, first.page_count)
    pages = max(digest.page_count for digest in digests.values())

    def differs(page: int) -> bool:
        place = slice((page - 1) * PAGE_HASH_BYTES, page * PAGE_HASH_BYTES)
        return any(other.page_hashes[place] != first.page_hashes[place] for other in others)

    differing = tuple(filter(differs, range(1, pages + 1)))
    return ShardComparison(
        shard, positions, first.page_count, differing[:PAGES_NAMED], f"{len(differing)} of {pages} pages differ"
    )


async def compare_nodes(channels: Mapping[str, grpc.aio.Channel]) -> list[ShardComparison]:
    """Compare every shard of the nodes; waits a while for those that still catch up.

    Raises:
        grpc.aio.AioRpcError: A node cannot be reached or cannot read a shard.
    """
    stubs = {node: AdministrationStub(channel) for node, channel in channels.items()}
    status = await next(iter(stubs.values())).Status(StatusRequest())
    return [await _compare_shard(stubs, shard) for shard in range(status.shard_count + 1)]


async def _compare_shard(stubs: Mapping[str, AdministrationAsyncStub], shard: int) -> ShardComparison:
    for attempt in range(TRIES):
        request = ShardDigestRequest(shard=shard, page_hashes=True)
        asked = {node: stub.ShardDigest(request) for node, stub in stubs.items()}
        comparison = compare(shard, {node: await call for node, call in asked.items()})
        if comparison.problem is None or comparison.differing_pages or attempt == TRIES - 1:
            break
        await asyncio.sleep(PAUSE_SECONDS)
    return comparison
