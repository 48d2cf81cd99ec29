"""An append stream at a primary without gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agent_core.rpc.session_pb2 import AppendBatch, AppendRequest, AppendResult
from primary.checks import WriteChecks
from primary.service import SessionsService
from tests.unit.primary_harness import Primary


class Stream:
    """An append stream without gRPC: batches go in, results come out."""

    def __init__(self, node: Primary) -> None:
        service = SessionsService(node.registry, node.registry._layout, WriteChecks(), _no_listing)
        self._batches: asyncio.Queue[AppendBatch] = asyncio.Queue()
        context: Any = None
        self._results = service.AppendStream(self._each(), context)
        self.results: dict[int, AppendResult] = {}
        self.appends_read = 0

    async def _each(self) -> AsyncIterator[AppendBatch]:
        while True:
            batch = await self._batches.get()
            self.appends_read += len(batch.appends)
            yield batch

    def send(self, *appends: tuple[int, str, bytes], key: str = "") -> None:
        self._batches.put_nowait(
            AppendBatch(
                appends=[
                    AppendRequest(
                        request_id=number,
                        session_id=session_id,
                        kind="message",
                        payload_json=payload,
                        idempotency_key=key,
                    )
                    for number, session_id, payload in appends
                ]
            )
        )

    async def answered(self, count: int) -> None:
        self.results.clear()
        async with asyncio.timeout(10):
            while len(self.results) < count:
                for result in (await anext(self._results)).results:
                    self.results[result.request_id] = result


async def _no_listing(_: Any) -> Any:
    raise NotImplementedError
