"""The follower: keeps one group's log on this node equal to its primary's, from hello to hello.

Whatever is wrong with a stream ends it; the next hello starts from the log's own end. Where the log cannot go
on, shards are resynced first, without a stream.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import grpc.aio
import structlog

from agent_core.backoff import Backoff
from agent_core.errors import Fenced, HandedOver, HeadwaterError, NotPrimary, Unavailable
from agent_core.lag import Lag
from agent_core.log.log import ReplicationLog
from agent_core.position import Position
from agent_core.routing import ShardLayout
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc_errors import end_if_cancelled, from_rpc_error
from agent_core.stream import to_message
from agent_core.uninterrupted import to_its_end
from replica.incoming import (
    Call,
    FollowedShards,
    FollowerCounters,
    FollowerSettings,
    IncomingStream,
    error_of,
    message_of,
)
from replica.lag import StandbyLag
from replica.listening import Listening
from replica.receiving import Follow, Heard, Receiver, RefusalReason, Refused
from replica.voter import Voter

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.replication_pb2_grpc import ReplicationAsyncStub

log = structlog.get_logger(__name__)


class FollowerState(StrEnum):
    """What a follower is doing."""

    CONNECTING = "connecting"
    FOLLOWING = "following"
    RESYNCING = "resyncing"
    DIVERGED = "diverged"
    """The primary's history contradicts what this node knows to be committed. An operator must look."""


class Diverged(HeadwaterError):
    """Following would take committed records away."""

    code = "diverged"


class Follower:
    """Follows the primary of one group. Every method runs on the event loop.

    Attributes:
        state: What it is doing.
        reason: Why it is not following, in a sentence; None while it is.
        primary: The node that was followed last.
        receiver: Judges what comes in; counts refusals.
        counters: For metrics.
    """

    def __init__(
        self,
        *,
        node_id: str,
        cluster_id: str,
        layout: ShardLayout,
        group: int,
        replication_log: ReplicationLog,
        voter: Voter,
        shards: FollowedShards,
        presume: Callable[[bool], str],
        connect: Callable[[str], ReplicationAsyncStub],
        listening: Listening | None = None,
        on_traced: Callable[[Sequence[pb.TracedRecord]], None] | None = None,
        settings: FollowerSettings | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Follow `group`.

        Args:
            node_id: This node.
            cluster_id: The cluster.
            layout: Its shards and groups.
            group: The shard group.
            replication_log: This node's log of the group.
            voter: Keeps the promises that this node gave for the group.
            shards: This node's shards of the group.
            presume: Names the group's present primary, asked for each try anew. It is given whether the node that
                the last try went to said that it does not lead: then another one should be named, if there is any.
                Raises Unavailable while no primary is known.
            connect: A stub for a node.
            listening: Hears the heartbeats that a primary shares among its streams; None: each beats by itself.
            on_traced: Told the traced ones among records that were accepted.
            settings: What an operator chose.
            chance: Spreads the tries.
        """
        self._loop = asyncio.get_running_loop()
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._layout = layout
        self._group = group
        self._log = replication_log
        self._voter = voter
        self._shards = shards
        self._presume = presume
        self._connect = connect
        self._listening = listening
        self._on_traced = on_traced
        self._settings = settings or FollowerSettings()
        self._backoff = Backoff(
            longest_seconds=self._settings.longest_delay_seconds,
            random=chance or random.Random(),  # noqa: S311 - jitter
        )
        self._stream: IncomingStream | None = None
        self._lag = StandbyLag(self._loop.time(), heartbeat_seconds=self._settings.heartbeat_seconds)
        self._lag.restart(shards.applied.lsn)
        shards.on_applied(self._applied)
        shards.on_resync_ordered(self._make_way)
        self._try_now = asyncio.Event()
        self._asked = ""
        self._misled = False
        self._answer_by: asyncio.Timeout | None = None
        self.state = FollowerState.CONNECTING
        self.reason: str | None = "the primary was not reached yet"
        self.primary = ""
        self.receiver = Receiver(group=group, shards=frozenset(layout.shards_of(group)))
        self.counters = FollowerCounters()

    def lag(self) -> Lag:
        """How far this node's shards are behind, by what it heard last."""
        unapplied_bytes = self._log.bytes_after(self._shards.applied.lsn)
        return self._lag.measure(unapplied_bytes=unapplied_bytes, now=self._loop.time())

    @property
    def silent_seconds(self) -> float | None:
        """For how long the primary was not heard; None when it never was."""
        return None if self._lag.heard_at is None else self._loop.time() - self._lag.heard_at

    def try_now(self, *, elsewhere: bool) -> None:
        """There may be another primary: do not wait for the next try. A stream that works stays.

        Args:
            elsewhere: Another node than the one that was asked last may be it: do not wait for its answer either.
        """
        self._backoff.reset()
        self._try_now.set()
        if elsewhere and self._answer_by is not None:
            self._answer_by.reschedule(self._loop.time())

    async def run(self) -> None:
        """Follow until cancelled; whatever fails is tried again."""
        self._voter.on_raised(self._fence)
        log_thread = ThreadPoolExecutor(1, thread_name_prefix=f"log-group-{self._group}")
        try:
            await self._follow_for_ever(log_thread)
        finally:
            self._voter.off_raised(self._fence)
            # Nothing touches the log once this returns, and until then the event loop goes on. An election waits
            # for it, so asyncio's own threads are not asked: checkpoints and resyncs may occupy them.
            at_rest = log_thread.submit(lambda: None)
            log_thread.shutdown(wait=False)
            await to_its_end(asyncio.wrap_future(at_rest))

    async def _follow_for_ever(self, log_thread: Executor) -> None:
        while True:
            try:
                await self._follow_once(log_thread)
            except Exception as error:
                end_if_cancelled()
                if not isinstance(error, HeadwaterError | OSError):
                    log.exception("following failed", group=self._group)
                self._note(error)
            try:
                async with asyncio.timeout(self._backoff.next_delay()):
                    await self._try_now.wait()
            except TimeoutError:
                continue
            finally:
                self._try_now.clear()

    def _note(self, error: Exception) -> None:
        """Take down why the stream ended."""
        self._misled = isinstance(error, NotPrimary)
        # Why a stream ended may be lost: gRPC puts a reason of its own there when a write fails at that moment. The
        # next hello is told then that the primary leads nothing, so nobody reads under its lease any more.
        if isinstance(error, HandedOver) or (self._misled and self._asked == self._voter.watch.primary):
            self._voter.release()
        self.state = FollowerState.DIVERGED if isinstance(error, Diverged) else FollowerState.CONNECTING
        if str(error) != self.reason:
            log.warning("stream ended", group=self._group, reason=str(error), state=self.state)
        self.reason = str(error)

    async def _follow_once(self, log_thread: Executor) -> None:
        self._asked = self._presume(self._misled)
        call = self._connect(self._asked).Stream()
        try:
            await self._loop.run_in_executor(log_thread, self._log.sync)
            follow = await self._say_hello(call)
            await self._go_back(follow)
            if follow.resync_required:
                call.cancel()
                await self._resync(
                    f"the log of {follow.primary} begins after the end of this node's log",
                    self._shards.begin_anew(follow.goes_on_from),
                )
            elif unfit := self._shards.unfit_shards():
                # A stream kept open through a resync would only fill its window.
                call.cancel()
                reasons = "; ".join(f"shard {shard}: {reason}" for shard, reason in unfit.items())
                await self._resync(reasons, self._shards.resync(list(unfit)))
            else:
                raise await self._receive(call, follow, log_thread)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, unanswered=Unavailable) from error
        finally:
            call.cancel()

    async def _resync(self, reason: str, work: Coroutine[Any, Any, None]) -> None:
        self.state, self.reason = FollowerState.RESYNCING, reason
        await work
        self._lag.restart(self._shards.applied.lsn)
        self._backoff.reset()

    async def _say_hello(self, call: Call) -> Follow:
        epochs = self._log.epochs
        hello = pb.Hello(
            cluster_id=self._cluster_id,
            node_id=self._node_id,
            group=self._group,
            shard_count=self._layout.shard_count,
            shard_group_count=self._layout.shard_group_count,
            promised_epoch=self._voter.floor,
            last=to_message(epochs.last),
            epochs=[pb.EpochStart(epoch=start.epoch, first_lsn=start.first_lsn) for start in epochs.starts],
            committed_lsn=self._shards.committed_lsn,
            base=to_message(epochs.base),
        )
        self.counters.hellos += 1
        self.receiver.begin(epochs.last)
        message = await self._first_answer(call, hello)
        if not message.HasField("welcome"):
            raise error_of(self.receiver.refuse(RefusalReason.MALFORMED, "the first message is no welcome"))
        judged = self.receiver.welcome(message.welcome, promised_epoch=self._voter.floor, held=epochs.last)
        if isinstance(judged, Refused):
            raise error_of(judged)
        return judged

    async def _first_answer(self, call: Call, hello: pb.Hello) -> pb.FromPrimary:
        try:
            async with asyncio.timeout(self._settings.silence_seconds) as self._answer_by:
                await call.write(pb.FromStandby(hello=hello))
                return message_of(await call.read())
        except TimeoutError:
            raise Unavailable("the primary did not answer a hello") from None
        except asyncio.InvalidStateError:
            raise Unavailable("the connection to the primary broke before the hello was sent") from None
        finally:
            self._answer_by = None

    async def _go_back(self, follow: Follow) -> None:
        """Promise the primary's epoch, and cut the log back to where the primary's log and this one part.

        Raises:
            Fenced: A higher epoch was promised meanwhile.
            Diverged: That point lies below what is known to be committed.
        """
        await self._voter.adopt(follow.epoch, follow.primary)
        if follow.epoch < self._voter.floor:
            raise Fenced(held=self._voter.floor, seen=follow.epoch)
        self.primary = self._voter.watch.primary = follow.primary
        committed_lsn = self._shards.committed_lsn
        if follow.goes_on_from.lsn < committed_lsn:
            raise Diverged(
                f"{follow.primary}, primary of epoch {follow.epoch}, shares this node's history only up to "
                f"{follow.goes_on_from}, but lsn {committed_lsn} is committed here; nothing was cut. Find out "
                "which node lost its log before you let either go on"
            )
        self._shards.begin_stream(follow.epoch, resync_required=follow.resync_required)
        if not follow.resync_required and follow.goes_on_from != self._log.last:
            log.info("log cut back", group=self._group, last=str(self._log.last), to=str(follow.goes_on_from))
            await self._shards.cut_back(follow.goes_on_from)
            self._lag.restart(self._shards.applied.lsn)
            self.counters.cuts += 1

    async def _receive(self, call: Call, follow: Follow, log_thread: Executor) -> HeadwaterError:
        self._stream = IncomingStream(
            call,
            follow.epoch,
            replication_log=self._log,
            log_thread=log_thread,
            receiver=self.receiver,
            voter=self._voter,
            shards=self._shards,
            settings=self._settings,
            counters=self.counters,
            on_heard=self._heard,
            on_traced=self._on_traced,
        )
        self.state, self.reason = FollowerState.FOLLOWING, None
        log.info("following", group=self._group, primary=follow.primary, epoch=follow.epoch)
        self._shards.commit(follow.committed_lsn)
        try:
            with self._listen(follow.primary, self._stream):
                return await self._stream.run()
        finally:
            self._stream = None

    def _listen(self, primary: str, stream: IncomingStream) -> AbstractContextManager[None]:
        if self._listening is None:
            return nullcontext()
        return self._listening.to(primary, self._group, stream.beat)

    def _heard(self, heard: Heard) -> None:
        self._backoff.reset()
        self._lag.hear(last_lsn=heard.last_lsn, bytes_behind=heard.bytes_behind, now=self._loop.time())

    def _applied(self, position: Position) -> None:
        self._lag.apply(position.lsn)
        if self._stream is not None:
            self._stream.report_applied()

    def _make_way(self) -> None:
        if self._stream is not None:
            self._stream.finish(Unavailable("a resync was ordered"))

    def _fence(self, epoch: int) -> None:
        if self._stream is not None and self._stream.epoch < epoch:
            self._stream.finish(Fenced(held=epoch, seen=self._stream.epoch))
