"""A node's vote in one group: it answers candidates, and remembers which epochs it must no longer follow.

The order is the whole point. In one step of the event loop the voter looks at the log's end and raises the
floor, below which the follower neither appends nor acknowledges; then the promise is made durable; then the
candidate hears. So nothing that the candidate lacks can be acknowledged to the primary before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from agent_core.errors import InvalidRequest, WrongCluster
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import from_message, to_message
from replica.promises import PromiseFile
from replica.voting import Promise, Refused, SealQuestion, decide

log = structlog.get_logger(__name__)


class Voter:
    """One group's promises. Every method runs on the event loop.

    Attributes:
        floor: Nothing below this epoch may be appended or acknowledged from now on.
    """

    def __init__(
        self,
        file: PromiseFile,
        *,
        node_id: str,
        cluster_id: str,
        group: int,
        last: Callable[[], Position],
        executor: Executor | None = None,
    ) -> None:
        """Vote for `group`.

        Args:
            file: Where promises are kept.
            node_id: This node.
            cluster_id: The cluster; candidates of another one are refused.
            group: The shard group.
            last: The end of this node's log of the group.
            executor: Where the promise is written; None for the event loop's own.
        """
        self._file = file
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._group = group
        self._last = last
        self._executor = executor
        self._turn = asyncio.Lock()
        self._raised: list[Callable[[int], None]] = []
        self.floor = file.promise.epoch

    @property
    def promise(self) -> Promise:
        """The promise that is durable."""
        return self._file.promise

    def on_raised(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the epoch whenever one is promised that was not promised before."""
        self._raised.append(listener)

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
        async with self._turn:
            question = SealQuestion(request.epoch, request.candidate, from_message(request.last))
            answer = decide(self.promise, self._last(), question)
            if isinstance(answer, Refused):
                log.info("seal refused", group=self._group, epoch=request.epoch, candidate=request.candidate)
                return pb.SealResponse(
                    promised_epoch=answer.promised_epoch, last=to_message(answer.last), voter=self._node_id
                )
            await self._keep(answer.promise)
            log.info("sealed", group=self._group, epoch=request.epoch, candidate=request.candidate)
            return pb.SealResponse(
                sealed=True, promised_epoch=request.epoch, last=to_message(self._last()), voter=self._node_id
            )

    async def adopt(self, epoch: int, primary: str) -> None:
        """Promise durably to follow nothing below the epoch that `primary` was found to lead.

        Raises:
            OSError: The promise could not be made durable; nothing is promised.
        """
        async with self._turn:
            if epoch > self.promise.epoch:
                await self._keep(Promise(epoch, primary))

    async def _keep(self, promise: Promise) -> None:
        before, self.floor = self.floor, promise.epoch
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._file.keep, promise)
        except OSError:
            # No one was told; the present primary may go on.
            self.floor = before
            raise
        for listener in self._raised:
            listener(promise.epoch)
