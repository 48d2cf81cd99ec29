"""The one stream that carries a client's appends: it sends what the queue gives out and brings back the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import grpc.aio

from agent_core.client.append_queue import AppendQueue, PendingAppend
from agent_core.client.attempts import DIRECT, Failures, new_backoff
from agent_core.client.endpoints import Endpoints
from agent_core.client.model import Appended
from agent_core.errors import HeadwaterError, NotPrimary, OutcomeUnknown, Unavailable, from_code
from agent_core.position import Position
from agent_core.rpc.session_pb2 import AppendBatch, AppendRequest, AppendResults
from agent_core.rpc.session_pb2_grpc import SessionsStub
from agent_core.rpc_errors import from_rpc_error

STALL_SECONDS = 1.2
"""When a node serves no append for so long, it may hang, or be cut off from the others: the next one is tried."""

Stream = grpc.aio.StreamStreamCall[AppendBatch, AppendResults]


class AppendStream:
    """Appends on one bidirectional stream, which is opened when it is first needed and again when it breaks.

    Appends that wait at the same time leave in one message: while one is being written, others gather.

    Args:
        endpoints: Where to connect.
        timeout_seconds: How long an append may take before its caller is told that it was not acknowledged.
        max_in_flight: Appends that may be unanswered at one time; further callers wait.
        max_in_flight_bytes: The same bound in bytes.
    """

    def __init__(
        self, endpoints: Endpoints, *, timeout_seconds: float, max_in_flight: int, max_in_flight_bytes: int
    ) -> None:
        self._endpoints = endpoints
        self._timeout_seconds = timeout_seconds
        self.queue = AppendQueue(
            max_in_flight=max_in_flight, max_in_flight_bytes=max_in_flight_bytes, new_backoff=new_backoff
        )
        self._loop = asyncio.get_running_loop()
        self._sendable = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.Future[None] | None = None
        self._served_at = 0.0
        self._failure: str | None = None
        self._failures = Failures()
        self._task = self._loop.create_task(self._run(), name="headwater append stream")
        self._task.add_done_callback(self._ended)

    async def append(self, request: AppendRequest) -> Appended:
        """Send one append and wait until it is acknowledged.

        Raises:
            OutcomeUnknown: It was sent, and no acknowledgement came in time.
            Unavailable: It could not be sent in time; it was not written.
            HeadwaterError: The primary refused it, for the reason that the class names.
        """
        if self._failure is not None:
            raise Unavailable(self._failure)
        loop = self._loop
        completion: asyncio.Future[Appended] = loop.create_future()
        pending = PendingAppend(request, loop.time() + self._timeout_seconds, completion)
        queue = self.queue
        if not queue:
            self._served_at = loop.time()  # until now there was nothing to serve
        queue.put(pending)
        if self._timer is None:
            self._set_timer()
        if not self._sendable.is_set() and queue.sendable:
            self._sendable.set()
        try:
            return await completion
        except asyncio.CancelledError:
            queue.abandon(pending)
            raise

    async def close(self) -> None:
        """End the stream; every append that was not acknowledged fails, as unknown if it was sent."""
        self._failure = "the client is closed"
        self._task.cancel()
        await asyncio.wait({self._task})

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = f"the client's append stream died: {error!r}"
        elif self._failure is None:
            self._failure = "the client's append stream was cancelled"
        if self._timer is not None:
            self._timer.cancel()
        self.queue.close(self._failure)

    async def _run(self) -> None:
        backoff = new_backoff()
        while True:
            await self._sendable.wait()
            address = self._endpoints.current
            acknowledged = self.queue.acknowledged
            named = False
            try:
                await self._converse()
            except NotPrimary as refusal:
                self._failures.note(address, refusal)
                named = self._endpoints.redirected(address, refusal)
            except HeadwaterError as error:
                self._failures.note(address, error)
                self._endpoints.failed(address)
            self.queue.disconnect()
            self._wake()
            served = self.queue.acknowledged > acknowledged
            if served:
                backoff.reset()
            # A primary that served until now knows its successor; two nodes that only name each other do not.
            if not (served and named):
                await asyncio.sleep(backoff.next_delay())

    async def _converse(self) -> None:
        """Send and receive until the stream breaks.

        Raises:
            NotPrimary: Another node leads.
            HeadwaterError: The stream cannot be opened, broke, or stalled.
        """
        channel = await self._endpoints.connected(self._timeout_seconds)
        call: Stream = SessionsStub(channel).AppendStream(metadata=DIRECT)
        self._stalled = self._loop.create_future()
        self._served_at = self._loop.time()
        receiving = self._loop.create_task(self._receive(call))
        sending = self._loop.create_task(self._send(call))
        watching = self._loop.create_task(self._watch(self._stalled))
        try:
            await asyncio.wait({receiving, sending, self._stalled}, return_when=asyncio.FIRST_COMPLETED)
            if self._stalled.done():
                raise Unavailable("the node takes appends but does not serve them")
            if sending.done():
                await sending
            # A write that failed says less about the reason than the end of the stream does.
            await receiving
        finally:
            self._stalled.cancel()
            self._stalled = None
            for task in (sending, receiving, watching):
                task.cancel()
            call.cancel()
            await asyncio.wait({sending, receiving, watching})

    async def _watch(self, stalled: asyncio.Future[None]) -> None:
        while not stalled.done():
            await asyncio.sleep(STALL_SECONDS / 4)
            if self.queue and self._loop.time() - self._served_at >= STALL_SECONDS and not stalled.done():
                stalled.set_result(None)

    async def _send(self, call: Stream) -> None:
        queue, sendable = self.queue, self._sendable
        while True:
            await sendable.wait()
            # Everyone who was woken in this turn of the event loop may still join.
            await asyncio.sleep(0)
            batch = queue.drain()
            if not queue.sendable:
                sendable.clear()
            if batch:
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.write(_encode(batch))
                    continue
                return

    async def _receive(self, call: Stream) -> None:
        try:
            async for results in call:
                self._take(results)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, unanswered=Unavailable) from error
        raise Unavailable("the node ended the stream")

    def _take(self, results: AppendResults) -> None:
        queue, now = self.queue, self._loop.time()
        moved: NotPrimary | None = None
        refused = served = False
        for result in results.results:
            if result.seq:
                place = result.position
                position = place.position
                appended = Appended(
                    result.seq, Position(position.epoch, position.lsn), place.group, result.duplicate
                )
                queue.succeed(result.request_id, appended, now)
                served = True
                continue
            refused = True
            error = from_code(result.error_code, result.error_message)
            queue.refuse(result.request_id, error, now)
            served = served or not isinstance(error, (Unavailable, OutcomeUnknown))
            if isinstance(error, NotPrimary):
                moved = error
        if served:
            self._served_at = now
            self._failures.clear()
        if moved is not None:
            raise moved
        if refused:
            self._set_timer()
        self._wake()

    def _wake(self) -> None:
        if self.queue.sendable:
            self._sendable.set()

    def _set_timer(self) -> None:
        """Have `_elapse` called when the queue has something to do, and not before."""
        due = self.queue.next_due()
        if due is None or (self._timer is not None and self._timer.when() <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._elapse)

    def _elapse(self) -> None:
        self._timer = None
        now = self._loop.time()
        unanswered = self.queue.elapse(now, str(self._failures))
        # Half: the time until the stream stood, and until the append was sent, counts against the append.
        silent = now - self._served_at >= self._timeout_seconds / 2
        if unanswered and silent and self._stalled is not None and not self._stalled.done():
            self._stalled.set_result(None)
        self._set_timer()
        self._wake()


def _encode(batch: Sequence[PendingAppend]) -> AppendBatch:
    return AppendBatch(appends=[append.request for append in batch])
