"""A node's vote in one group: it answers candidates, and remembers which epochs it must no longer follow.

The order is the whole point. In one step of the event loop the voter looks at the log's end and raises the
floor, below which the follower neither appends nor acknowledges; then the promise is made durable; then the
candidate hears. So nothing that the candidate lacks can be acknowledged to the primary before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor

import structlog

from agent_core.errors import InvalidRequest, WrongCluster
from agent_core.log.durable_mark import LogEnd
from agent_core.position import START, Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import from_message, to_message
from replica.promises import PromiseFile
from replica.voting import PrimaryWatch, Promise, Refused, Sealed, SealQuestion, decide

log = structlog.get_logger(__name__)


async def never_gone() -> bool:
    """Nothing is known of the primary but its heartbeats."""
    return False


class Voter:
    """One group's promises. Every method runs on the event loop.

    Attributes:
        floor: Nothing below this epoch may be appended or acknowledged from now on.
        watch: Told when the present primary is heard, and when it gave up its lease.
        primary_is_gone: Asked before a lease makes this voter refuse: whether the present primary's process has
            ended for certain, as when its port refuses connections.
    """

    def __init__(
        self,
        file: PromiseFile,
        *,
        node_id: str,
        cluster_id: str,
        group: int,
        last: Callable[[], Position],
        once_held: Callable[[], Position] = lambda: START,
        lease_seconds: float = 0.0,
        executor: Executor | None = None,
    ) -> None:
        """Vote for `group`.

        Args:
            file: Where promises are kept.
            node_id: This node.
            cluster_id: The cluster; candidates of another one are refused.
            group: The shard group.
            last: The end of this node's log of the group.
            once_held: The furthest position that this log ever held durably, whether it still does or not.
            lease_seconds: How long after a heartbeat of the present primary no other node is sealed.
            executor: Where the promise is written; None for the event loop's own.
        """
        self._file = file
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._group = group
        self._last = last
        self._once_held = once_held
        self._executor = executor
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[Exception | None] | None = None
        self._released = asyncio.Event()
        self._raised: list[Callable[[int], None]] = []
        self._promised: list[Callable[[], None]] = []
        self._loop = asyncio.get_running_loop()
        self.floor = file.promise.epoch
        # Before this process there may have been another, which heard the primary until its end.
        heard_at = self._loop.time() if self.floor else float("-inf")
        self.watch = PrimaryWatch(lease_seconds, heard_at)
        self.primary_is_gone: Callable[[], Awaitable[bool]] = never_gone

    @property
    def promise(self) -> Promise:
        """The promise that is durable."""
        return self._file.promise

    def on_raised(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the epoch whenever one is promised that was not promised before.

        It is called in the same step of the event loop in which the log's end was looked at, before the promise
        is durable: from that step on nothing of a lower epoch may be acknowledged. It is not taken back should the
        promise not become durable: a primary on this node has stepped down for good.
        """
        self._raised.append(listener)

    def off_raised(self, listener: Callable[[int], None]) -> None:
        """Call `listener` no more."""
        self._raised.remove(listener)

    def release(self) -> None:
        """The present primary gave up its lease: it handed over or stepped down, or its process is gone."""
        self.watch.released()
        self._released.set()
        self._released = asyncio.Event()

    async def released(self, within_seconds: float) -> bool:
        """Wait until no lease of the present primary binds this vote any more: whether that came in time.

        A release that came just before counts as well: whoever asks may have looked at something else meanwhile.
        """
        if self._bound:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_seconds):
                    await self._released.wait()
        return not self._bound

    def on_promised(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a promise has become durable: another node may lead from now on."""
        self._promised.append(listener)

    def off_promised(self, listener: Callable[[], None]) -> None:
        """Call `listener` no more."""
        self._promised.remove(listener)

    async def seal(self, request: pb.SealRequest) -> pb.SealResponse:
        """Answer a candidate; the promise is durable when this returns.

        Raises:
            WrongCluster: The candidate is of another cluster.
            InvalidRequest: The request names another group or no candidate.
            OSError: The promise could not be made durable; nothing is promised.
        """
        if request.cluster_id != self._cluster_id:
            raise WrongCluster(
                f"cluster_id is {request.cluster_id!r}; this node is of cluster {self._cluster_id!r}"
            )
        if request.group != self._group or not request.candidate or " " in request.candidate:
            raise InvalidRequest(
                f"group is {request.group} and candidate {request.candidate!r}; group {self._group} is asked here, "
                "and a candidate is a node's name"
            )
        question = SealQuestion(request.epoch, request.candidate, from_message(request.last))
        async with self._own_turn():
            answer = self._decide(question)
            if isinstance(answer, Refused) and answer.lease_seconds and await self.primary_is_gone():
                self.release()
                answer = self._decide(question)
            if isinstance(answer, Refused):
                log.info("seal refused", group=self._group, candidate=request.candidate, reason=repr(answer))
                return pb.SealResponse(
                    promised_epoch=answer.promised_epoch,
                    last=to_message(answer.last),
                    voter=self._node_id,
                    lease_seconds=answer.lease_seconds,
                    lost=self._end.lost,
                )
            await self._keep(answer.promise)
            log.info("sealed", group=self._group, epoch=request.epoch, candidate=request.candidate)
            return pb.SealResponse(
                sealed=True, promised_epoch=request.epoch, last=to_message(self._last()), voter=self._node_id
            )

    @property
    def _bound(self) -> bool:
        return self.watch.binding_seconds(self._loop.time()) > 0

    @property
    def _end(self) -> LogEnd:
        return LogEnd(self._last(), self._once_held())

    def _decide(self, question: SealQuestion) -> Sealed | Refused:
        binding_seconds = self.watch.binding_seconds(self._loop.time())
        return decide(self.promise, self._end.for_votes, question, binding_seconds)

    async def adopt(self, epoch: int, primary: str) -> None:
        """Promise durably to follow nothing below the epoch that `primary` was found to lead.

        Raises:
            OSError: The promise could not be made durable; nothing is promised.
        """
        async with self._own_turn():
            if epoch > self.promise.epoch:
                await self._keep(Promise(epoch, primary))

    @contextlib.asynccontextmanager
    async def _own_turn(self) -> AsyncIterator[None]:
        """One question at a time, and none before the last write has ended, whoever still waits for that."""
        async with self._turn:
            if self._writing is not None:
                await asyncio.wait({self._writing})
            yield

    async def _keep(self, promise: Promise) -> None:
        before, self.floor = self.floor, promise.epoch
        for listener in tuple(self._raised):
            listener(promise.epoch)
        # A candidate may give up waiting, as for its own slow disk; the thread that writes goes on all the same.
        self._writing = self._loop.create_task(self._write(promise, before), name=f"promise of group {self._group}")
        error = await asyncio.shield(self._writing)
        if error is not None:
            raise error

    async def _write(self, promise: Promise, floor_before: int) -> Exception | None:
        """Write a promise, and tell of it; what went wrong, which nobody may wait for."""
        try:
            await self._loop.run_in_executor(self._executor, self._file.keep, promise)
        except Exception as error:
            # No candidate was told, so this node may follow the one that leads, as before. If it led itself, it has
            # stepped down at `_raised`, and stays so: it could not have gone on for long beside such a disk.
            self.floor = floor_before
            log.warning("a promise could not be kept", group=self._group, epoch=promise.epoch, reason=str(error))
            return error
        for told in tuple(self._promised):
            told()
        return None
