"""The receiver's side of a resync: makes one shard file equal to the source's, as one transaction.

It sends the hash of each of its pages, and writes the pages that come back within one open transaction.
Readers see the state before until the commit; whatever interrupts the resync leaves that state.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio
import zstandard

from agent_core.database.build import PAGE_SIZE
from agent_core.database.pages import (
    LOCK_PAGE,
    MAX_PAGE_COUNT,
    PAGE_HASH_BYTES,
    RUN_PAGES,
    PageSnapshot,
    page_digest,
)
from agent_core.database.thread import DatabaseThread
from agent_core.errors import ShardDamaged, Unavailable
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc_errors import from_rpc_error
from agent_core.stream import from_message
from agent_core.uninterrupted import to_its_end
from replica.apply import ShardApplier
from replica.staging import ANY_BASE

HASHES_PER_MESSAGE = 1 << 14
"""256 KiB of hashes, for 64 MiB of pages."""

MAX_PAGES_PER_MESSAGE = 4 * RUN_PAGES
"""Pages that one message may carry: 4 MiB."""

MESSAGE_TIMEOUT_SECONDS = 60.0
"""How long the source may leave the receiver without its next message."""

Exchange = Callable[[AsyncIterator[pb.ResyncRequest]], AsyncIterable[pb.ResyncResponse]]
"""The call itself: a stub's `Resync`."""


ReadersAway = Callable[[int], AbstractAsyncContextManager[None]]
"""Within it no other connection of this node is open to a shard."""


def nobody_reads(shard: int) -> AbstractAsyncContextManager[None]:
    """For a node that has no other connections open to its shards."""
    del shard
    return nullcontext()


class ShardResync:
    """One resync of one shard; `run` it once.

    Attributes:
        pages_received: Pages that differed.
        bytes_received: Of responses, as serialized.
        bytes_sent: Of requests, as serialized.
        started_anew: The file could not be read, so an empty one took its place.
        committed: The source said that what it sent is committed; if not, it is staged beside the shard.
    """

    def __init__(
        self,
        applier: ShardApplier,
        thread: DatabaseThread[Any],
        *,
        cluster_id: str,
        node_id: str,
        group: int,
        readers_away: ReadersAway = nobody_reads,
        message_timeout_seconds: float = MESSAGE_TIMEOUT_SECONDS,
    ) -> None:
        """Prepare the resync of an applier's shard.

        Args:
            applier: Writes the shard.
            thread: Owns the applier.
            cluster_id: The cluster that the shard belongs to.
            node_id: This node.
            group: The shard's group.
            readers_away: Closes every other connection of this node to the shard and keeps new ones away; entered
                only while a file that cannot be read is replaced by an empty one.
            message_timeout_seconds: How long to wait for the source's next message at most.
        """
        self._applier = applier
        self._thread = thread
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._group = group
        self._readers_away = readers_away
        self._message_timeout_seconds = message_timeout_seconds
        self.pages_received = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.started_anew = False
        self.committed = False
        self._base = ANY_BASE
        self._answered = asyncio.Event()
        self._over = False

    async def run(self, exchange: Exchange) -> Position:
        """Make the shard equal to the source's, or, where that is not committed, stage what will make it so.

        Returns:
            The position that it contains, now or once that is committed.

        Raises:
            ShardDamaged: The source sent what no shard can hold, or not what it announced; nothing was changed.
            Unavailable: The source ended early or paused too long; nothing was changed.
            WriteFailed: SQLite refused the pages; nothing was changed.
            HeadwaterError: What the source answered; nothing was changed.
        """
        try:
            hashes = await self._own_hashes()
            self._base = page_digest(hashes) if hashes else ANY_BASE
            responses = exchange(self._requests(hashes))
            try:
                return await self._receive(aiter(responses), len(hashes) // PAGE_HASH_BYTES)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, unanswered=Unavailable) from error
            finally:
                self._over = True
                self._answered.set()
                if isinstance(responses, grpc.aio.Call):
                    responses.cancel()
        finally:
            await self._thread.run(self._applier.abandon_replacement)

    async def _own_hashes(self) -> bytes:
        """The hash of each page of the file, which nothing changes from now on; empty when it cannot be read."""
        if not self._applier.readable:
            self.started_anew = True
            return b""
        try:
            await self._thread.run(self._applier.begin_replacement)
            return await _hash_file(self._applier.path)
        except ShardDamaged:
            self.started_anew = True
            return b""

    async def _requests(self, hashes: bytes) -> AsyncIterator[pb.ResyncRequest]:
        for request in requests_for(
            hashes,
            cluster_id=self._cluster_id,
            node_id=self._node_id,
            group=self._group,
            shard=self._applier.shard,
        ):
            self.bytes_sent += request.ByteSize()
            yield request
            # A source that refuses the start ends the call. If that hit a message being sent, gRPC would report
            # the broken sending and not the refusal: so the hashes wait for the first answer.
            await self._answered.wait()
            if self._over:
                return

    async def _receive(self, responses: AsyncIterator[pb.ResyncResponse], own_page_count: int) -> Position:
        incoming = IncomingResync(own_page_count)
        async for response in self._each(responses):
            self.bytes_received += response.ByteSize()
            self._answered.set()
            pages = incoming.accept(response)
            if pages is not None:
                await self._thread.run(self._applier.replace_pages, pages.numbers, pages.images)
                self.pages_received += len(pages.numbers)
            elif self.started_anew and not incoming.ended:
                # Only now is there a source: an unreadable file is still better than none.
                async with self._readers_away(self._applier.shard):
                    await to_its_end(self._thread.run(self._begin_anew))
        if not incoming.ended:
            raise Unavailable(
                f"the source ended the resync of shard {self._applier.shard} before all of it had come"
            )
        self.committed = incoming.committed
        if self.committed:
            await self._thread.run(self._applier.finish_replacement, incoming.page_count, incoming.position)
        else:
            await self._thread.run(
                self._applier.stage_replacement, incoming.page_count, incoming.position, self._base
            )
        return incoming.position

    async def _each(self, responses: AsyncIterator[pb.ResyncResponse]) -> AsyncIterator[pb.ResyncResponse]:
        while True:
            try:
                async with asyncio.timeout(self._message_timeout_seconds):
                    response = await anext(responses)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Unavailable(f"the source sent nothing for {self._message_timeout_seconds} s") from None
            yield response

    def _begin_anew(self) -> None:
        self._applier.close()
        discard_shard_files(self._applier.path)
        self._applier.reopen()
        self._applier.begin_replacement()


class IncomingPages(NamedTuple):
    """Pages out of one message, checked.

    Attributes:
        numbers: Their numbers, ascending.
        images: Their images, back to back.
    """

    numbers: tuple[int, ...]
    images: bytes


class IncomingResync:
    """What a source sends, held against the protocol message by message. Holds no file and no clock.

    Attributes:
        page_count: Pages of the source's snapshot.
        position: The position that it contains.
        ended: The last message came, and everything that was announced is there.
        committed: The last message said that the snapshot's transactions are committed.
    """

    def __init__(self, own_page_count: int) -> None:
        self.page_count = 0
        self.position = Position(0, 0)
        self.ended = False
        self.committed = False
        self._own_page_count = own_page_count
        self._last_number = 0
        self._received = 0
        self._received_new = 0

    def accept(self, response: pb.ResyncResponse) -> IncomingPages | None:
        """Check the next message; returns the pages in it, None when it is of another kind.

        Raises:
            ShardDamaged: It is not what the protocol has in its place, or its content cannot belong to a shard.
        """
        kind = response.WhichOneof("message")
        if self.ended or (kind == "snapshot") == bool(self.page_count):
            raise ShardDamaged(f"a resync is a snapshot, pages and an end, in that order; {kind} is out of place")
        if kind == "snapshot":
            self._accept_snapshot(response.snapshot)
        elif kind == "end":
            self._accept_end(response.end)
        else:
            return self._accept_pages(response.pages)
        return None

    def _accept_snapshot(self, snapshot: pb.ResyncSnapshot) -> None:
        if not 1 <= snapshot.page_count <= MAX_PAGE_COUNT:
            raise ShardDamaged(f"page_count is {snapshot.page_count}; allowed are 1 to {MAX_PAGE_COUNT}")
        self.page_count = snapshot.page_count
        self.position = from_message(snapshot.position)

    def _accept_pages(self, message: pb.ResyncPages) -> IncomingPages:
        count = len(message.page_numbers) // 4
        if len(message.page_numbers) % 4 or not 1 <= count <= MAX_PAGES_PER_MESSAGE:
            raise ShardDamaged(
                f"page_numbers take {len(message.page_numbers)} bytes; allowed are 1 to {MAX_PAGES_PER_MESSAGE} "
                "numbers of 4 bytes"
            )
        numbers: tuple[int, ...] = struct.unpack(f">{count}I", message.page_numbers)
        last = self._last_number
        for number in numbers:
            if not last < number <= self.page_count or number == LOCK_PAGE:
                raise ShardDamaged(
                    f"page {number} follows page {last}; allowed are ascending numbers up to {self.page_count}, "
                    f"without {LOCK_PAGE}"
                )
            last = number
        self._last_number = last
        self._received += count
        self._received_new += sum(number > self._own_page_count for number in numbers)
        return IncomingPages(numbers, decompress(message.pages, count * PAGE_SIZE))

    def _accept_end(self, end: pb.ResyncEnd) -> None:
        if end.pages_sent != self._received:
            raise ShardDamaged(f"pages_sent is {end.pages_sent}; {self._received} came")
        new = range(self._own_page_count + 1, self.page_count + 1)
        missing = len(new) - (LOCK_PAGE in new) - self._received_new
        if missing:
            raise ShardDamaged(
                f"pages {new.start} to {self.page_count} are new to this shard; {missing} of them did not come"
            )
        self.ended = True
        self.committed = end.committed


def requests_for(
    hashes: bytes, *, cluster_id: str, node_id: str, group: int, shard: int
) -> Iterator[pb.ResyncRequest]:
    """The messages of a receiver whose file has these hashes; none: it has no file that it could read."""
    yield pb.ResyncRequest(
        start=pb.ResyncStart(
            cluster_id=cluster_id,
            node_id=node_id,
            group=group,
            shard=shard,
            page_count=len(hashes) // PAGE_HASH_BYTES,
        )
    )
    size = HASHES_PER_MESSAGE * PAGE_HASH_BYTES
    for start in range(0, len(hashes), size):
        yield pb.ResyncRequest(
            hashes=pb.PageHashes(first_page=start // PAGE_HASH_BYTES + 1, hashes=hashes[start : start + size])
        )
    yield pb.ResyncRequest(hashes_end=pb.ResyncHashesEnd())


def decompress(data: bytes, size: int) -> bytes:
    """Decompress what must become exactly `size` bytes.

    Raises:
        ShardDamaged: It does not, or is no zstd frame.
    """
    try:
        # zstd allocates what the frame announces: so that is looked at first.
        announced = zstandard.frame_content_size(data)
        if announced != size:
            raise ShardDamaged(f"compressed pages announce {announced} bytes; their numbers call for {size}")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ShardDamaged(f"compressed pages cannot be decompressed: {error}") from error


def discard_shard_files(path: Path) -> None:
    """Delete a shard file with its WAL and its WAL index.

    Raises:
        Unavailable: This process still has one of them open. (Of other processes only their owner can know.)
    """
    files = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "")]
    still_open = {str(file.resolve()) for file in files} & set(_open_files())
    if still_open:
        raise Unavailable(f"{', '.join(sorted(still_open))} cannot be replaced while this process has it open")
    # The main file last: without its WAL it is an older state, but a WAL without its file is a trap.
    for file in files:
        file.unlink(missing_ok=True)


async def _hash_file(path: Path) -> bytes:
    snapshot = await asyncio.to_thread(PageSnapshot.open, path)
    try:
        hashes = [
            await asyncio.to_thread(snapshot.hashes, first, min(RUN_PAGES, snapshot.page_count + 1 - first))
            for first in range(1, snapshot.page_count + 1, RUN_PAGES)
        ]
    finally:
        snapshot.close()
    return b"".join(hashes)


def _open_files() -> Iterator[str]:
    descriptors = Path("/proc/self/fd")
    for descriptor in descriptors.iterdir() if descriptors.is_dir() else ():
        try:
            yield str(descriptor.readlink())
        except FileNotFoundError:
            continue  # it was closed since it was listed
