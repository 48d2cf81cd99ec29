"""Following a session: backfill, then live, across broken streams, without gap or duplicate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio

from agent_core.client.attempts import DIRECT, Failures, new_backoff
from agent_core.client.endpoints import Endpoints
from agent_core.client.model import Entry, entry_from_wire
from agent_core.errors import HeadwaterError, NotPrimary, Unavailable
from agent_core.rpc.session_pb2 import SubscribeEvent, SubscribeRequest
from agent_core.rpc.session_pb2_grpc import SessionsStub
from agent_core.rpc_errors import end_if_cancelled, from_rpc_error

MAX_GAPS = 3
"""How often in a row a node may skip an entry before following it is given up."""


class Subscription:
    """One session's entries after a cursor, and what has been seen of them.

    Args:
        endpoints: Where to subscribe.
        session_id: The session.
        after_seq: The cursor: the last entry that is known already; 0 for none.
        timeout_seconds: How long no node may answer before the caller is told.
        until_caught_up: End where the node's backfill ends, instead of following live.

    Attributes:
        cursor: The last entry that was handed out.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        session_id: str,
        *,
        after_seq: int,
        timeout_seconds: float,
        until_caught_up: bool,
    ) -> None:
        self._endpoints = endpoints
        self._session_id = session_id
        self._timeout_seconds = timeout_seconds
        self._until_caught_up = until_caught_up
        self._heard_at = 0.0
        self._caught_up = False
        self._gaps = 0
        self.cursor = after_seq

    async def entries(self) -> AsyncIterator[Entry]:
        """Hand out the entries in order.

        Raises:
            SessionNotFound: No session of this id.
            Unavailable: No node answered for the whole timeout; the reason of each is told.
            HeadwaterError: The node refuses, or keeps skipping an entry.
        """
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        backoff, failures = new_backoff(), Failures()
        while True:
            address, cursor = self._endpoints.current, self.cursor
            error: HeadwaterError | None = None
            try:
                async for entry in self._one_stream():
                    yield entry
            except HeadwaterError as failure:
                error = failure
            end_if_cancelled()
            if self._caught_up and self._until_caught_up:
                return
            progress = self.cursor > cursor
            if progress:
                backoff.reset()
                failures.clear()
            if error is not None:
                if not error.retry:
                    raise error
                failures.note(address, error)
                if loop.time() - self._heard_at >= self._timeout_seconds:
                    raise failures.told(error)
                if isinstance(error, NotPrimary):
                    self._endpoints.redirected(address, error)
                elif isinstance(error, Unavailable):
                    self._endpoints.failed(address)
            if error is not None or not progress:
                await asyncio.sleep(backoff.next_delay())

    async def _one_stream(self) -> AsyncIterator[Entry]:
        """The entries of one stream, up to where it breaks or asks for a new one."""
        loop = asyncio.get_running_loop()
        channel = await self._endpoints.connected(self._timeout_seconds)
        call: grpc.aio.UnaryStreamCall[SubscribeRequest, SubscribeEvent] = SessionsStub(channel).Subscribe(
            SubscribeRequest(session_id=self._session_id, after_seq=self.cursor), metadata=DIRECT
        )
        heard = False
        try:
            async for event in call:
                heard = True
                match event.WhichOneof("event"):
                    case "entries":
                        for entry in event.entries.entries:
                            if self._follows(entry.seq):
                                yield entry_from_wire(entry)
                    case "caught_up":
                        self._caught_up = True
                        if self._until_caught_up:
                            return
                    case "resume":
                        return
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, unanswered=Unavailable) from error
        finally:
            call.cancel()
            if heard:
                self._heard_at = loop.time()

    def _follows(self, seq: int) -> bool:
        """Move the cursor to an entry that follows it; False for one that was handed out already.

        Raises:
            Unavailable: Entries between were skipped; asking again may bring them.
            HeadwaterError: They were skipped time after time.
        """
        if seq <= self.cursor:
            return False
        if seq > self.cursor + 1:
            self._gaps += 1
            error = Unavailable if self._gaps < MAX_GAPS else HeadwaterError
            raise error(
                f"entry {seq} of session {self._session_id!r} came after entry {self.cursor}; "
                "the node skipped what lies between"
            )
        self.cursor = seq
        self._gaps = 0
        return True
