"""Serves the streams of one group in one epoch: one per standby.

A stream is two tasks that share one `StandbyProgress`: one sends what the log holds past what was sent, the
other reads what the standby reports. Whatever ends either of them ends the stream, and tells the standby why.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import grpc.aio
import structlog

from agent_core.errors import Fenced, HeadwaterError, InvalidRequest, Unavailable
from agent_core.lag import Lag
from agent_core.log.log import Block
from agent_core.log.retention import StandbyNeed
from agent_core.position import EpochTable
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc_errors import abort
from agent_core.stream import HEARTBEAT_SECONDS, MESSAGE_BYTES, WINDOW_BYTES, to_message
from primary.doorbell import Doorbell
from primary.greeting import Identity, check_hello, greet
from primary.heartbeats import Heartbeats, SpokenFor
from primary.progress import StandbyProgress, StandbyState

log = structlog.get_logger(__name__)

READ_IN_PLACE_BYTES = 8 << 20
"""A standby that is further behind may need the disk: its records are read on another thread."""

PATIENCE_HEARTBEATS = 1.5
"""How long a stream that a shared heartbeat spoke for waits for the next one before it beats itself."""

Context = grpc.aio.ServicerContext[pb.FromStandby, pb.FromPrimary]


class StreamedLog(Protocol):
    """What streaming needs of a replication log."""

    @property
    def epochs(self) -> EpochTable:
        """Its table of epochs."""

    def read(self, after_lsn: int, max_bytes: int) -> Block | None:
        """Whole records after `after_lsn`, at least one; None when there is none. Safe from any thread.

        Raises:
            PositionCompacted: They were dropped; the stream ends with it, and the next hello leads to a resync.
        """

    def bytes_after(self, lsn: int) -> int:
        """Bytes of the records after `lsn`."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What an operator may choose.

    Attributes:
        heartbeat_seconds: How long a stream stays silent at most.
        window_bytes: Record bytes that may be sent to a standby and not yet durable there.
        message_bytes: Record bytes in one message; a larger record goes in parts.
        hold_seconds: How long the log is kept for a standby that was told to resync, or that is gone.
    """

    heartbeat_seconds: float = HEARTBEAT_SECONDS
    window_bytes: int = WINDOW_BYTES
    message_bytes: int = MESSAGE_BYTES
    hold_seconds: float = 900.0


@dataclass(slots=True)
class StreamCounters:
    """What metrics tell of all streams together; all only grow."""

    streams: int = 0
    messages: int = 0
    record_bytes: int = 0


@dataclass(slots=True, eq=False)
class _Stream:
    """One open stream.

    Attributes:
        wake: Set when there may be something to send.
        over: Why the stream ends, once it must.
        waiting: Records that were read and did not fit the window yet.
        told_committed_lsn: The last committed lsn that the standby was told.
        told_last_lsn: The end of the log that it was told last.
        silence: Ends the wait for something to send by a heartbeat; None while there is something to send.
        forgotten: Set when the stream is no longer served.
    """

    context: Context
    progress: StandbyProgress
    wake: asyncio.Event
    over: asyncio.Future[HeadwaterError]
    waiting: Block | None = None
    told_committed_lsn: int = 0
    told_last_lsn: int = -1
    silence: asyncio.Timeout | None = None
    forgotten: asyncio.Event = field(default_factory=asyncio.Event)

    def finish(self, error: HeadwaterError) -> None:
        """End the stream with `error` unless it ends already."""
        if not self.over.done():
            self.over.set_result(error)


class StandbyStreams:
    """Every standby of a group that this node leads. Everything runs on the event loop.

    Attributes:
        doorbell: To be rung when the log has grown or the committed lsn has risen.
        counters: For metrics.
    """

    def __init__(
        self,
        identity: Identity,
        log: StreamedLog,
        *,
        voters: Iterable[str],
        committed: Callable[[], int],
        on_durable: Callable[[str, int], None],
        on_hello: Callable[[str, int], None],
        on_heard: Callable[[str, float], None] = lambda _node, _sent_at: None,
        on_fenced: Callable[[int], None],
        traces: Callable[[str, int, int], list[pb.TracedRecord]] | None = None,
        heartbeats: Heartbeats | None = None,
        settings: StreamSettings | None = None,
    ) -> None:
        """Serve the standbys of `identity.group`.

        Args:
            identity: The cluster, the group, the epoch and its primary.
            log: The primary's log.
            voters: The group's voters; each is shown from the start, so that one that never came is seen.
            committed: The committed lsn at this moment.
            on_durable: Told a node and its durable lsn whenever a standby reports progress.
            on_hello: Told a node and the lsn after which its log goes on, 0 when that begins anew: it holds no more
                what it reported past that.
            on_heard: Told a node and the moment, on the loop's clock, at which the newest message was sent that
                it has heard.
            on_fenced: Told a promised epoch above this one: this primary is deposed.
            traces: Given a node, and the first and last lsn that are about to be sent to it: the traced ones.
            heartbeats: Speaks for the streams that rest; None: nobody does.
            settings: What an operator chose.
        """
        self._identity = identity
        self._log = log
        self._committed = committed
        self._on_durable = on_durable
        self._on_hello = on_hello
        self._on_heard = on_heard
        self._on_fenced = on_fenced
        self._traces = traces
        self._heartbeats = heartbeats or Heartbeats(identity.cluster_id)
        self._settings = settings or StreamSettings()
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, _Stream] = {}
        self._closed: HeadwaterError | None = None
        self._acknowledged = asyncio.Event()
        self._progress: dict[str, StandbyProgress] = {}
        for voter in voters:
            if voter != identity.primary:
                self._progress_of(voter)
        self.doorbell = Doorbell()
        self.counters = StreamCounters()

    @property
    def progress(self) -> Mapping[str, StandbyProgress]:
        """Each standby that is known, by node: every other voter, and whoever said hello."""
        return self._progress

    async def wait_durable(self, node: str, lsn: int) -> None:
        """Wait until a standby has acknowledged everything up to `lsn`."""
        while (progress := self._progress.get(node)) is None or progress.durable_lsn < lsn:
            await self._acknowledged.wait()

    def lag(self, node: str) -> Lag:
        """How far a standby is behind, as seen from here.

        Raises:
            KeyError: There is no such standby.
        """
        progress = self._progress[node]
        bytes_behind = self._log.bytes_after(progress.applied_lsn)
        return progress.lag(self._log.epochs.last.lsn, bytes_behind, self._loop.time())

    def needs(self) -> list[StandbyNeed]:
        """What the log's retention owes to standbys that stream or were there lately."""
        return [
            StandbyNeed(progress.needed_after_lsn, self._log.bytes_after(progress.needed_after_lsn))
            for progress in self._held()
            if progress.state is not StandbyState.RESYNCING
        ]

    def holds(self) -> list[int]:
        """Lsns after which a standby will read that is busy with a resync."""
        return [progress.needed_after_lsn for progress in self._held() if progress.state is StandbyState.RESYNCING]

    async def serve(self, first: pb.Hello, requests: AsyncIterator[pb.FromStandby], context: Context) -> None:
        """Serve one stream until it ends; it always ends with an error's status.

        Args:
            first: The hello, which the caller has read in order to find the group.
            requests: What the standby sends after it.
            context: The call.
        """
        try:
            if self._closed is not None:
                raise self._closed
            theirs = check_hello(first, self._identity)
        except Fenced as error:
            self._on_fenced(error.held)
            await abort(context, error)
        except HeadwaterError as error:
            await abort(context, error)
        await self._end_stream(first.node_id, Unavailable("a newer stream of the same node took its place"))
        with self.doorbell.listen() as wake:
            stream = _Stream(context, self._progress_of(first.node_id), wake, self._loop.create_future())
            self._streams[first.node_id] = stream
            self.counters.streams += 1
            spoken_for = SpokenFor(
                pb.LedGroup(group=self._identity.group, epoch=self._identity.epoch),
                rests=partial(self._rests, stream),
                on_heard=partial(self._on_heard, first.node_id),
            )
            tasks = [
                asyncio.create_task(self._until_failure(stream, self._send(stream, theirs))),
                asyncio.create_task(self._until_failure(stream, self._listen(stream, requests))),
            ]
            try:
                with self._heartbeats.speak_for(first.node_id, spoken_for):
                    reason = await stream.over
            finally:
                for task in tasks:
                    task.cancel()
                # First, because gRPC may cancel this call a second time while it waits for the tasks.
                self._forget(stream)
                await asyncio.gather(*tasks, return_exceptions=True)
        log.info("stream ended", group=self._identity.group, standby=first.node_id, reason=str(reason))
        await abort(context, reason)

    async def close(self, error: HeadwaterError) -> None:
        """End every stream with `error`, and answer every later hello with it."""
        self._closed = error
        for node in list(self._streams):
            await self._end_stream(node, error)

    async def _end_stream(self, node: str, error: HeadwaterError) -> None:
        while (stream := self._streams.get(node)) is not None:
            stream.finish(error)
            await stream.forgotten.wait()

    def _forget(self, stream: _Stream) -> None:
        del self._streams[stream.progress.node]
        if stream.progress.state is not StandbyState.RESYNCING:
            stream.progress.become_gone(self._loop.time())
        stream.forgotten.set()

    async def _until_failure(self, stream: _Stream, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            stream.finish(Unavailable("the standby ended the stream"))
        except HeadwaterError as error:
            stream.finish(error)
        except grpc.aio.BaseError as error:
            stream.finish(Unavailable(f"the standby cannot be reached: {error}"))
        except Exception as error:
            log.exception("stream failed", group=self._identity.group, standby=stream.progress.node)
            stream.finish(HeadwaterError(f"{type(error).__name__}: {error}"))

    async def _listen(self, stream: _Stream, requests: AsyncIterator[pb.FromStandby]) -> None:
        progress = stream.progress
        async for message in requests:
            if not message.HasField("progress"):
                raise InvalidRequest("after its hello a standby sends nothing but progress")
            report = message.progress
            progress.acknowledge(report.durable_lsn, report.applied_lsn)
            self._on_durable(progress.node, report.durable_lsn)
            self._acknowledged.set()
            self._acknowledged.clear()
            self._on_heard(progress.node, report.heard_us / 1e6)
            if stream.waiting is not None:
                stream.wake.set()

    async def _send(self, stream: _Stream, theirs: EpochTable) -> None:
        await self._welcome(stream, theirs)
        while True:
            stream.wake.clear()
            if await self._send_records(stream):
                continue
            if self._committed() > stream.told_committed_lsn:
                await self._send_message(stream)
                continue
            try:
                async with asyncio.timeout(self._settings.heartbeat_seconds) as stream.silence:
                    await stream.wake.wait()
            except TimeoutError:
                await self._send_message(stream)
            finally:
                stream.silence = None

    def _rests(self, stream: _Stream) -> bool:
        """Whether a shared heartbeat may speak for the stream; if so, its own next one waits for longer.

        What its standby has not acknowledged yet is a matter of its own: an echo then says that its disk goes on.
        """
        progress, last_lsn, now = stream.progress, self._log.epochs.last.lsn, self._loop.time()
        if stream.silence is None or stream.silence.expired() or stream.wake.is_set():
            return False
        if stream.told_last_lsn != last_lsn or not progress.holds(last_lsn):
            return False
        progress.saw_log_end(last_lsn, now)
        stream.silence.reschedule(now + PATIENCE_HEARTBEATS * self._settings.heartbeat_seconds)
        return True

    async def _welcome(self, stream: _Stream, theirs: EpochTable) -> None:
        committed_lsn = self._committed()
        greeting = greet(self._log.epochs, theirs, committed_lsn)
        position = to_message(greeting.position)
        progress, now = stream.progress, self._loop.time()
        progress.become_probing(now)
        if greeting.resync_required:
            progress.become_resyncing(greeting.position.lsn, now)
        else:
            progress.become_streaming(greeting.position.lsn, now)
        # At once: the first report comes later, and during a resync of all shards there is none.
        self._on_hello(progress.node, 0 if greeting.resync_required else greeting.position.lsn)
        log.info(
            "standby said hello",
            group=self._identity.group,
            standby=progress.node,
            last=str(theirs.last),
            goes_on_from=str(greeting.position),
            resync=greeting.resync_required,
        )
        welcome = pb.Welcome(
            epoch=self._identity.epoch,
            primary=self._identity.primary,
            shared=None if greeting.resync_required else position,
            resync_required=greeting.resync_required,
            base=position if greeting.resync_required else None,
            committed_lsn=committed_lsn,
        )
        stream.told_committed_lsn = committed_lsn
        await stream.context.write(pb.FromPrimary(welcome=welcome))

    async def _send_records(self, stream: _Stream) -> bool:
        """Send the next records; False when there are none, or no room for them."""
        progress = stream.progress
        if progress.state is not StandbyState.STREAMING:
            return False
        block = stream.waiting or await self._read(progress.sent_lsn)
        if block is None or not progress.may_send(len(block.data)):
            stream.waiting = block
            return False
        stream.waiting = None
        # Before the write: the standby may acknowledge what the write has not returned from.
        progress.sent(block.last_lsn, len(block.data))
        self.counters.record_bytes += len(block.data)
        if len(block.data) <= self._settings.message_bytes:
            await self._send_message(stream, block)
        else:
            await self._send_parts(stream, block)
            await self._send_message(stream)
        return True

    async def _read(self, after_lsn: int) -> Block | None:
        size = self._settings.message_bytes
        if self._log.bytes_after(after_lsn) <= READ_IN_PLACE_BYTES:
            return self._log.read(after_lsn, size)
        return await asyncio.to_thread(self._log.read, after_lsn, size)

    async def _send_message(self, stream: _Stream, block: Block | None = None) -> None:
        """Send whole records, or none as a heartbeat; the committed lsn goes along."""
        progress = stream.progress
        committed_lsn, last_lsn = self._committed(), self._log.epochs.last.lsn
        progress.saw_log_end(last_lsn, self._loop.time())
        # Filled in place, as a part is: a message that is handed to another is copied, with all its bytes.
        message = pb.FromPrimary()
        records = message.records
        records.epoch = self._identity.epoch
        if block is not None:
            records.first_lsn, records.records = block.first_lsn, block.data
            if self._traces is not None:
                records.traces.extend(self._traces(progress.node, block.first_lsn, block.last_lsn))
        records.committed_lsn, records.last_lsn = committed_lsn, last_lsn
        records.bytes_behind = self._log.bytes_after(progress.sent_lsn)
        records.sent_at_us = int(self._loop.time() * 1e6)
        stream.told_committed_lsn, stream.told_last_lsn = committed_lsn, last_lsn
        self.counters.messages += 1
        await stream.context.write(message)

    async def _send_parts(self, stream: _Stream, block: Block) -> None:
        """Send one record that is too large for a message."""
        for offset in range(0, len(block.data), self._settings.message_bytes):
            message = pb.FromPrimary()
            part = message.part
            part.epoch, part.lsn = self._identity.epoch, block.first_lsn
            part.total_bytes, part.offset = len(block.data), offset
            part.data = block.data[offset : offset + self._settings.message_bytes]
            self.counters.messages += 1
            await stream.context.write(message)

    def _progress_of(self, node: str) -> StandbyProgress:
        progress = self._progress.get(node)
        if progress is None:
            progress = StandbyProgress(node, self._loop.time(), self._settings.window_bytes)
            self._progress[node] = progress
        return progress

    def _held(self) -> Iterator[StandbyProgress]:
        now = self._loop.time()
        for progress in self._progress.values():
            waiting = progress.state in (StandbyState.GONE, StandbyState.RESYNCING)
            if not waiting or now - progress.changed_at <= self._settings.hold_seconds:
                yield progress
