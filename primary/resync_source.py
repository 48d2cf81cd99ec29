"""The source's side of a resync: answers a standby's page hashes with the pages that differ.

Hashes are compared while they arrive, 1 MiB of pages at a time, against one read snapshot of the shard. So
neither the file nor the list of hashes is ever in memory as a whole.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import zstandard

from agent_core.database.build import PAGE_SIZE
from agent_core.database.pages import (
    LOCK_PAGE,
    MAX_PAGE_COUNT,
    PAGE_HASH_BYTES,
    RUN_PAGES,
    PageSnapshot,
    page_hashes,
)
from agent_core.errors import InvalidRequest, Overloaded, Unavailable, WrongCluster
from agent_core.position import START
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import to_message

MAX_HASHES_BYTES = 1 << 20
"""Hashes that one message may carry."""

MESSAGE_TIMEOUT_SECONDS = 30.0
"""How long a receiver may leave the source, and with it an open snapshot, before its next message, or before it
takes the source's next one."""

COMMIT_WAIT_SECONDS = 10.0
"""How long the end of a resync waits for the snapshot's transactions to be committed."""

MAX_CONCURRENT = 4
"""Resyncs served at once; each keeps a snapshot open and a thread busy."""

COMPRESSION_LEVEL = 1


class ResyncSource:
    """Serves the resync of the shards of one group.

    Attributes:
        active: Resyncs under way.
        receivers: The nodes that they are for, one name for each.
        served: Resyncs that reached their end.
        pages_sent: Pages sent because they differed.
        bytes_received: Of requests, as serialized.
        bytes_sent: Of responses, as serialized.
        sent_uncommitted: Resyncs that ended before the commit, since no quorum was possible without the receiver.
    """

    def __init__(
        self,
        *,
        cluster_id: str,
        group: int,
        shard_paths: Mapping[int, Path],
        wait_committed: Callable[[int], Awaitable[object]],
        quorum_needs: Callable[[str], bool],
        commit_wait_seconds: float = COMMIT_WAIT_SECONDS,
        message_timeout_seconds: float = MESSAGE_TIMEOUT_SECONDS,
    ) -> None:
        """Serve from the files in `shard_paths`, by shard.

        Args:
            cluster_id: Receivers of another cluster are refused.
            group: The group that all the shards belong to.
            shard_paths: Where the group's shards are.
            wait_committed: Returns once an lsn of the group is committed.
            quorum_needs: Whether nothing more can be committed before the node of this name is resynced.
            commit_wait_seconds: How long to wait for that at most.
            message_timeout_seconds: How long to wait for a receiver to send its next message, or to take one.
        """
        self._cluster_id = cluster_id
        self._group = group
        self._shard_paths = shard_paths
        self._wait_committed = wait_committed
        self._quorum_needs = quorum_needs
        self._commit_wait_seconds = commit_wait_seconds
        self._message_timeout_seconds = message_timeout_seconds
        self.active = 0
        self.receivers: list[str] = []
        self.served = 0
        self.pages_sent = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.sent_uncommitted = 0

    async def answer(
        self, requests: AsyncIterator[pb.ResyncRequest], write: Callable[[pb.ResyncResponse], Awaitable[None]]
    ) -> None:
        """Answer one receiver over its call, and give up one that takes nothing more: it holds a snapshot open.

        Raises:
            HeadwaterError: As `serve`; `Unavailable` also when `write` does not come back in time.
        """
        async with aclosing(self.serve(requests)) as responses:
            async for response in responses:
                try:
                    async with asyncio.timeout(self._message_timeout_seconds):
                        await write(response)
                except TimeoutError:
                    raise Unavailable(
                        f"the receiver took no message of the resync for {self._message_timeout_seconds:g} s"
                    ) from None

    async def serve(self, requests: AsyncIterator[pb.ResyncRequest]) -> AsyncGenerator[pb.ResyncResponse, None]:
        """Answer one receiver. Close the generator if it is left early: until then its snapshot stays open.

        Raises:
            WrongCluster: The receiver belongs to another cluster.
            InvalidRequest: A message is not what the protocol has in its place.
            Overloaded: Too many resyncs are under way.
            Unavailable: The receiver ended or paused too long, the shard cannot be read now, or what was sent was
                not committed in time.
            ShardDamaged: The source's own file cannot be read.
        """
        if self.active >= MAX_CONCURRENT:
            raise Overloaded(f"{self.active} resyncs are under way; allowed are {MAX_CONCURRENT}")
        self.active += 1
        try:
            async with aclosing(self._serve(requests)) as responses:
                async for response in responses:
                    self.bytes_sent += response.ByteSize()
                    yield response
            self.served += 1
        finally:
            self.active -= 1

    async def _serve(self, requests: AsyncIterator[pb.ResyncRequest]) -> AsyncGenerator[pb.ResyncResponse, None]:
        path, claimed_count, receiver = self._check_start(await self._next(requests))
        self.receivers.append(receiver)
        try:
            async with aclosing(self._send_differences(requests, path, claimed_count, receiver)) as responses:
                async for response in responses:
                    yield response
        finally:
            self.receivers.remove(receiver)

    async def _send_differences(
        self, requests: AsyncIterator[pb.ResyncRequest], path: Path, claimed_count: int, receiver: str
    ) -> AsyncGenerator[pb.ResyncResponse, None]:
        snapshot = await asyncio.to_thread(PageSnapshot.open, path)
        try:
            position = snapshot.position or START
            yield pb.ResyncResponse(
                snapshot=pb.ResyncSnapshot(page_count=snapshot.page_count, position=to_message(position))
            )
            outgoing = OutgoingPages()
            async with aclosing(self._runs(requests, claimed_count, snapshot.page_count)) as runs:
                async for first, hashes in runs:
                    numbers, images = await asyncio.to_thread(_differing_run, snapshot, first, hashes)
                    if not outgoing.has_room(len(numbers)):
                        yield await asyncio.to_thread(outgoing.take)
                    outgoing.add(numbers, images)
            if outgoing.numbers:
                yield await asyncio.to_thread(outgoing.take)
        finally:
            snapshot.close()
        self.pages_sent += outgoing.sent
        committed = await self._until_committed(position.lsn, receiver)
        yield pb.ResyncResponse(end=pb.ResyncEnd(pages_sent=outgoing.sent, committed=committed))

    async def _runs(
        self, requests: AsyncIterator[pb.ResyncRequest], claimed_count: int, page_count: int
    ) -> AsyncGenerator[tuple[int, list[bytes]], None]:
        """Runs of the snapshot's pages in order: the first page's number, and what the receiver has for each.

        Pages that only the receiver has are left out; for pages that it lacks the hash is empty.
        """
        seen = 0
        while (request := await self._next(requests)).WhichOneof("message") != "hashes_end":
            hashes = check_hashes(request, seen, claimed_count)
            for first, run in _in_runs(seen + 1, hashes[: max(page_count - seen, 0)]):
                yield first, run
            seen += len(hashes)
        if seen != claimed_count:
            raise InvalidRequest(f"hashes of {claimed_count} pages were announced; {seen} came")
        for first in range(seen + 1, page_count + 1, RUN_PAGES):
            yield first, [b""] * min(RUN_PAGES, page_count + 1 - first)

    async def _next(self, requests: AsyncIterator[pb.ResyncRequest]) -> pb.ResyncRequest:
        try:
            async with asyncio.timeout(self._message_timeout_seconds):
                request = await anext(requests, None)
        except TimeoutError:
            raise Unavailable(f"no message of the resync came for {self._message_timeout_seconds} s") from None
        if request is None:
            raise Unavailable("the receiver ended the resync before it had sent all its hashes")
        self.bytes_received += request.ByteSize()
        return request

    def _check_start(self, request: pb.ResyncRequest) -> tuple[Path, int, str]:
        if request.WhichOneof("message") != "start":
            raise InvalidRequest(f"a resync begins with start; got {request.WhichOneof('message')}")
        start = request.start
        if start.cluster_id != self._cluster_id:
            raise WrongCluster(f"cluster_id is {start.cluster_id[:80]!r}; this is cluster {self._cluster_id!r}")
        path = self._shard_paths.get(start.shard)
        if start.group != self._group or path is None:
            raise InvalidRequest(
                f"shard {start.shard} of group {start.group} was asked for; group {self._group} has the shards "
                f"{sorted(self._shard_paths)}"
            )
        if start.page_count > MAX_PAGE_COUNT:
            raise InvalidRequest(f"page_count is {start.page_count}; allowed are 0 to {MAX_PAGE_COUNT}")
        return path, start.page_count, start.node_id

    async def _until_committed(self, lsn: int, receiver: str) -> bool:
        """Hold the end back until everything that was sent is committed: without it the receiver keeps nothing.

        Where nothing can be committed without this very receiver, holding it back would never end. Then it gets
        the end, told that this is not committed, and its readers see nothing of the shard before it is.
        """
        try:
            async with asyncio.timeout(self._commit_wait_seconds):
                await self._wait_committed(lsn)
        except TimeoutError:
            if not self._quorum_needs(receiver):
                raise Unavailable(
                    f"lsn {lsn}, which this resync contains, was not committed in {self._commit_wait_seconds:g} s"
                ) from None
            self.sent_uncommitted += 1
            return False
        return True


class OutgoingPages:
    """Differing pages that wait until a message is full.

    Attributes:
        numbers: Page numbers that wait.
        sent: Pages taken so far.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.sent = 0
        self._images: list[bytes] = []

    def has_room(self, count: int) -> bool:
        """Whether that many pages more go into the message."""
        return len(self.numbers) + count <= RUN_PAGES

    def add(self, numbers: list[int], images: bytes) -> None:
        """Add pages for which there is room."""
        self.numbers += numbers
        self._images.append(images)

    def take(self) -> pb.ResyncResponse:
        """One message with all that waits: at most 1 MiB before compression."""
        # Filled in place, as the records of a stream are.
        message = pb.ResyncResponse()
        message.pages.page_numbers = struct.pack(f">{len(self.numbers)}I", *self.numbers)
        message.pages.pages = zstandard.compress(b"".join(self._images), COMPRESSION_LEVEL)
        self.sent += len(self.numbers)
        self.numbers = []
        self._images = []
        return message


def check_hashes(request: pb.ResyncRequest, seen: int, claimed_count: int) -> list[bytes]:
    """The hashes in a message, one per page, after checking that they belong where they stand.

    Args:
        request: The message.
        seen: Pages whose hashes came before.
        claimed_count: Pages that the receiver says it has.

    Raises:
        InvalidRequest: It holds something else, or hashes of other pages than the next ones.
    """
    if request.WhichOneof("message") != "hashes":
        raise InvalidRequest(f"hashes or hashes_end must follow; got {request.WhichOneof('message')}")
    first, packed = request.hashes.first_page, request.hashes.hashes
    if first != seen + 1:
        raise InvalidRequest(f"first_page is {first}; the next page is {seen + 1}")
    if not packed or len(packed) % PAGE_HASH_BYTES or len(packed) > MAX_HASHES_BYTES:
        raise InvalidRequest(
            f"hashes take {len(packed)} bytes; allowed are multiples of {PAGE_HASH_BYTES} up to {MAX_HASHES_BYTES}"
        )
    if seen + len(packed) // PAGE_HASH_BYTES > claimed_count:
        raise InvalidRequest(f"hashes go past page {claimed_count}, the last that was announced")
    return _each_hash(packed)


def differing(first: int, images: bytes, hashes: list[bytes]) -> list[int]:
    """The numbers of those pages of a run that do not have the receiver's hashes.

    Args:
        first: The number of the run's first page.
        images: The source's pages.
        hashes: The receiver's hash of each; empty for a page that it does not have.
    """
    ours = _each_hash(page_hashes(images, first))
    return [
        number
        for number, our, their in zip(range(first, first + len(hashes)), ours, hashes, strict=True)
        if our != their and number != LOCK_PAGE
    ]


def _differing_run(snapshot: PageSnapshot, first: int, hashes: list[bytes]) -> tuple[list[int], bytes]:
    images = snapshot.pages(first, len(hashes))
    numbers = differing(first, images, hashes)
    if len(numbers) == len(hashes):
        return numbers, images
    starts = [(number - first) * PAGE_SIZE for number in numbers]
    return numbers, b"".join([images[start : start + PAGE_SIZE] for start in starts])


def _in_runs(first: int, hashes: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    for start in range(0, len(hashes), RUN_PAGES):
        yield first + start, hashes[start : start + RUN_PAGES]


def _each_hash(packed: bytes) -> list[bytes]:
    return [packed[start : start + PAGE_HASH_BYTES] for start in range(0, len(packed), PAGE_HASH_BYTES)]
