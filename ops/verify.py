"""Compares a shard across nodes, page by page, at one position."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from agent_core.database.pages import PAGE_HASH_BYTES
from agent_core.errors import HeadwaterError, Unavailable
from agent_core.position import Position
from agent_core.rpc.administration_pb2 import ShardDigestRequest, ShardDigestResponse, StatusRequest
from agent_core.rpc.administration_pb2_grpc import AdministrationStub
from agent_core.rpc_errors import from_rpc_error
from agent_core.stream import from_message

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.administration_pb2_grpc import AdministrationAsyncStub

TRIES = 40
PAUSE_SECONDS = 0.25
PAGES_NAMED = 20
STATUS_SECONDS = 10.0
DIGEST_SECONDS = 60.0
"""How long a node may take to hash one shard."""

Digest = ShardDigestResponse | HeadwaterError
"""What a node answered about a shard."""


@dataclass(frozen=True, slots=True)
class ShardComparison:
    """One shard on several nodes.

    Attributes:
        shard: Its number.
        positions: What each node's file contains; a node that could not read its file is not among them.
        page_count: Pages on the first node that could read its file.
        differing_pages: Pages that are not the same everywhere, at most some.
        problem: Why it is not identical, in a sentence; None when it is.
        digests: Position, page count and digest as each node told them; None where it could not.
    """

    shard: int
    positions: Mapping[str, Position]
    page_count: int
    differing_pages: tuple[int, ...] = ()
    problem: str | None = None
    digests: Mapping[str, tuple[Position, int, bytes] | None] = field(default_factory=dict)

    def differing_from(self, node: str) -> list[str]:
        """The nodes whose shard is not that of `node`, or cannot be read."""
        return [other for other, digest in self.digests.items() if digest != self.digests[node] or digest is None]


def compare(shard: int, answers: Mapping[str, Digest]) -> ShardComparison:
    """Judge one shard from each node's page hashes. Pure."""
    digests = {node: answer for node, answer in answers.items() if isinstance(answer, ShardDigestResponse)}
    positions = {node: from_message(digest.position) for node, digest in digests.items()}
    told = {
        node: (positions[node], digests[node].page_count, digests[node].digest) if node in digests else None
        for node in answers
    }
    page_count = next((digest.page_count for digest in digests.values()), 0)

    def comparison(problem: str | None, differing: tuple[int, ...] = ()) -> ShardComparison:
        return ShardComparison(shard, positions, page_count, differing[:PAGES_NAMED], problem, told)

    failures = [f"{node}: {answer}" for node, answer in answers.items() if isinstance(answer, HeadwaterError)]
    if failures:
        return comparison("it could not be read everywhere: " + "; ".join(failures))
    if len(set(positions.values())) > 1:
        met = ", ".join(f"{node} at {position}" for node, position in positions.items())
        return comparison(f"the nodes do not meet: {met}")
    if len(set(told.values())) == 1:
        return comparison(None)
    first, *others = digests.values()
    pages = max(digest.page_count for digest in digests.values())

    def differs(page: int) -> bool:
        place = slice((page - 1) * PAGE_HASH_BYTES, page * PAGE_HASH_BYTES)
        return any(other.page_hashes[place] != first.page_hashes[place] for other in others)

    differing = tuple(filter(differs, range(1, pages + 1)))
    return comparison(f"{len(differing)} of {pages} pages differ", differing)


async def compare_nodes(
    channels: Mapping[str, grpc.aio.Channel], *, digest_seconds: float = DIGEST_SECONDS
) -> list[ShardComparison]:
    """Compare every shard of the nodes; waits a while for those that still catch up.

    Args:
        channels: To the nodes, by the names that the comparisons shall have.
        digest_seconds: How long a node may take to hash one shard.

    Raises:
        grpc.aio.AioRpcError: A node cannot be reached.
    """
    stubs = {node: AdministrationStub(channel) for node, channel in channels.items()}
    counts = [(await stub.Status(StatusRequest(), timeout=STATUS_SECONDS)).shard_count for stub in stubs.values()]
    return [await _compare_shard(stubs, shard, digest_seconds) for shard in range(max(counts) + 1)]


async def _compare_shard(
    stubs: Mapping[str, AdministrationAsyncStub], shard: int, digest_seconds: float
) -> ShardComparison:
    for attempt in range(TRIES):
        answers = await asyncio.gather(*(_digest(stub, shard, digest_seconds) for stub in stubs.values()))
        comparison = compare(shard, dict(zip(stubs, answers, strict=True)))
        lasting = any(isinstance(answer, HeadwaterError) and not answer.retry for answer in answers)
        if comparison.problem is None or comparison.differing_pages or lasting or attempt == TRIES - 1:
            break
        await asyncio.sleep(PAUSE_SECONDS)
    return comparison


async def _digest(stub: AdministrationAsyncStub, shard: int, seconds: float) -> Digest:
    try:
        return await stub.ShardDigest(ShardDigestRequest(shard=shard, page_hashes=True), timeout=seconds)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return HeadwaterError(f"its pages were not hashed within {seconds:g} s; allow more with --timeout")
        return from_rpc_error(error, unanswered=Unavailable)
