"""One open stream at the standby: what comes in is judged, appended, made durable and acknowledged.

Three tasks share it. One reads messages, lets `Receiver` judge them and appends what is good; one makes the log
durable, many appends with one fsync, and acknowledges each time at once; one watches for silence. Applying waits
for none of them, and none of them waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import grpc.aio
import structlog

from agent_core.errors import Fenced, HeadwaterError, LogDamaged, Unavailable
from agent_core.log.log import ReplicationLog
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc_errors import from_rpc_error
from agent_core.stream import HEARTBEAT_SECONDS, MESSAGE_BYTES
from agent_core.ticks import next_tick
from replica.receiving import Append, Heard, Receiver, RefusalReason, Refused, Reset
from replica.voter import Voter

log = structlog.get_logger(__name__)

Call = grpc.aio.StreamStreamCall[pb.FromStandby, pb.FromPrimary]
Result = TypeVar("Result")

IN_PLACE_BYTES = 4 * MESSAGE_BYTES
"""A larger record is checked and written on the log's thread, so that the event loop goes on meanwhile.

So is what begins a segment of the log, which waits for the disk.
"""

SILENT_TICKS = 4
"""In how many steps silence is counted."""


class FollowedShards(Protocol):
    """What following needs of a standby's shards; `StandbyGroup` is it."""

    @property
    def applied(self) -> Position:
        """The shards contain everything up to here."""

    @property
    def committed_lsn(self) -> int:
        """The highest lsn of the log that is known to be committed."""

    def on_applied(self, listener: Callable[[Position], None]) -> None:
        """Call `listener` whenever the applied position changes."""

    def on_resync_ordered(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the stream must end for a resync that was ordered."""

    def begin_stream(self, epoch: int, *, resync_required: bool = False) -> None:
        """From now on the primary of `epoch` is followed; whether its log no longer reaches this one."""

    def commit(self, lsn: int) -> None:
        """Everything up to `lsn` is committed."""

    def expect_resets(self, resets: Iterable[Reset]) -> None:
        """Resets are about to be appended."""

    def acknowledgeable(self, durable_lsn: int) -> int:
        """The part of what is durable that may be acknowledged."""

    def unfit_shards(self) -> Mapping[int, str]:
        """Shards that need a resync before the stream goes on."""

    async def resync(self, shards: Iterable[int]) -> None:
        """Make shards equal to the primary's."""

    async def begin_anew(self, base: Position) -> None:
        """Resync every shard, then begin the log after `base`."""

    async def cut_back(self, to: Position) -> None:
        """Cut the log back."""


@dataclass(frozen=True, slots=True)
class FollowerSettings:
    """What an operator may choose.

    Attributes:
        heartbeat_seconds: How long the primary is silent at most when all is well.
        silence_seconds: After this much silence the stream is given up.
        applied_report_seconds: How long news of what was applied waits for an acknowledgement to go along with.
        longest_delay_seconds: The longest wait between two tries to reach the primary.
    """

    heartbeat_seconds: float = HEARTBEAT_SECONDS
    silence_seconds: float = 20 * HEARTBEAT_SECONDS
    applied_report_seconds: float = 0.02
    longest_delay_seconds: float = 2.0


@dataclass(slots=True)
class FollowerCounters:
    """What metrics tell of a follower; all only grow. Refusals are counted by the `Receiver`."""

    hellos: int = 0
    messages: int = 0
    record_bytes: int = 0
    cuts: int = 0


class IncomingStream:
    """A stream whose hello and welcome are done; `run` it once.

    Attributes:
        epoch: The epoch of the primary that sends.
    """

    def __init__(
        self,
        call: Call,
        epoch: int,
        *,
        replication_log: ReplicationLog,
        log_thread: Executor,
        receiver: Receiver,
        voter: Voter,
        shards: FollowedShards,
        settings: FollowerSettings,
        counters: FollowerCounters,
        on_heard: Callable[[Heard], None],
        on_traced: Callable[[Sequence[pb.TracedRecord]], None] | None = None,
    ) -> None:
        self.epoch = epoch
        self._call = call
        self._log = replication_log
        self._log_thread = log_thread
        self._receiver = receiver
        self._voter = voter
        self._shards = shards
        self._settings = settings
        self._counters = counters
        self._on_heard = on_heard
        self._on_traced = on_traced
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[HeadwaterError] = self._loop.create_future()
        self._news = asyncio.Event()
        self._news.set()
        self._report: asyncio.TimerHandle | None = None
        self._quiet_ticks: int | None = 0
        self._durable_lsn = self._applied_lsn = -1
        self._heard_us = self._told_heard_us = 0
        self._heard: Heard | None = None

    async def run(self) -> HeadwaterError:
        """Receive and acknowledge until the stream is over; returns why it is."""
        works = (self._read(), self._acknowledge(), self._watch())
        tasks = [asyncio.create_task(self._until_failure(work)) for work in works]
        try:
            return await self._over
        finally:
            if self._report is not None:
                self._report.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def finish(self, error: HeadwaterError) -> None:
        """End the stream with `error` unless it ends already."""
        if not self._over.done():
            self._over.set_result(error)

    def beat(self, epoch: int) -> bool:
        """The primary of `epoch` said beside the stream that nothing has changed: whether this stream takes it."""
        if epoch != self.epoch or epoch < self._voter.floor or self._over.done() or self._heard is None:
            return False
        if self._quiet_ticks is not None:
            self._quiet_ticks = 0
        self._voter.watch.heard(self._loop.time())
        self._on_heard(self._heard)
        return True

    def report_applied(self) -> None:
        """More was applied: say so with the next acknowledgement, or by itself a little later."""
        if self._report is None:
            self._report = self._loop.call_later(self._settings.applied_report_seconds, self._report_now)

    def _report_now(self) -> None:
        self._report = None
        self._news.set()

    async def _until_failure(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except grpc.aio.AioRpcError as error:
            self.finish(from_rpc_error(error, unanswered=Unavailable))
        except HeadwaterError as error:
            self.finish(error)
        except Exception as error:
            log.exception("following failed")
            self.finish(HeadwaterError(f"{type(error).__name__}: {error}"))

    async def _read(self) -> None:
        while True:
            self._quiet_ticks = 0
            message = message_of(await self._call.read())
            self._quiet_ticks = None
            self._counters.messages += 1
            judged = await self._judge(message)
            if isinstance(judged, Refused):
                raise error_of(judged)
            if self._on_traced is not None and message.records.traces:
                self._on_traced(message.records.traces)
            await self._take(judged)

    async def _watch(self) -> None:
        """End the stream when the primary is silent.

        Silence is counted in ticks of this event loop and only while it waits for a message: a node that was
        stalled itself must first read what lies waiting for it.
        """
        while self._quiet_ticks is None or self._quiet_ticks < SILENT_TICKS:
            await next_tick(self._settings.silence_seconds / SILENT_TICKS)
            if self._quiet_ticks is not None:
                self._quiet_ticks += 1
        raise Unavailable(f"nothing was heard for {self._settings.silence_seconds:g} s")

    async def _judge(self, message: pb.FromPrimary) -> Append | Refused:
        promised_epoch = self._voter.floor
        if message.HasField("records"):
            return self._receiver.records(message.records, promised_epoch=promised_epoch)
        if not message.HasField("part"):
            return self._receiver.refuse(RefusalReason.MALFORMED, "neither records nor a part of one came")
        part = message.part
        judge = partial(self._receiver.part, part, promised_epoch=promised_epoch)
        whole = part.offset + len(part.data) >= part.total_bytes
        return await self._on_log_thread(judge) if whole and part.total_bytes > IN_PLACE_BYTES else judge()

    async def _take(self, accepted: Append) -> None:
        if accepted.block:
            # Before the append: what is in the log may be acknowledged at any moment.
            self._shards.expect_resets(accepted.resets)
            append, size = partial(self._log.append, accepted.block, verify=False), len(accepted.block)
            if size <= IN_PLACE_BYTES and self._log.has_room(size):
                append()
            else:
                await self._on_log_thread(append)
            self._counters.record_bytes += size
            self._news.set()
        if accepted.heard is not None:
            self._voter.watch.heard(self._loop.time())
            self._heard, self._heard_us = accepted.heard, accepted.heard.sent_at_us
            if self._owes_echo:
                self._news.set()
            self._on_heard(accepted.heard)
            self._shards.commit(accepted.heard.committed_lsn)

    async def _acknowledge(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._log.durable_lsn < self._log.last.lsn:
                await self._on_log_thread(self._log.sync)
            if self.epoch < self._voter.floor:
                # A candidate may have been told where this log ends without what was appended since.
                raise Fenced(held=self._voter.floor, seen=self.epoch)
            durable_lsn = max(self._durable_lsn, self._shards.acknowledgeable(self._log.durable_lsn))
            applied_lsn = max(self._applied_lsn, min(self._shards.applied.lsn, self._log.durable_lsn))
            if (durable_lsn, applied_lsn) == (self._durable_lsn, self._applied_lsn) and not self._owes_echo:
                continue
            self._durable_lsn, self._applied_lsn, self._told_heard_us = durable_lsn, applied_lsn, self._heard_us
            progress = pb.Progress(durable_lsn=durable_lsn, applied_lsn=applied_lsn, heard_us=self._heard_us)
            try:
                await self._call.write(pb.FromStandby(progress=progress))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # The call has ended; the reading task learns why.
                return

    @property
    def _owes_echo(self) -> bool:
        """Whether the primary's lease wants an answer that no acknowledgement has carried meanwhile."""
        return self._heard_us - self._told_heard_us >= self._settings.heartbeat_seconds * 1e6 / 2

    async def _on_log_thread(self, function: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._log_thread, function)


def message_of(received: object) -> pb.FromPrimary:
    """What `Call.read` returned, unless it was the end.

    Raises:
        Unavailable: The primary ended the stream without a word.
    """
    if not isinstance(received, pb.FromPrimary):
        raise Unavailable("the primary ended the stream")
    return received


def error_of(refused: Refused) -> HeadwaterError:
    """What a refusal ends the stream with."""
    text = f"refused as {refused.reason}: {refused.detail}"
    return Fenced(text) if refused.reason is RefusalReason.LOWER_EPOCH else LogDamaged(text)
