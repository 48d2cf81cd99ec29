"""A Sessions service in real grpc.aio that keeps everything in memory and misbehaves where a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from agent_core.errors import HeadwaterError, SessionNotFound
from agent_core.rpc import session_pb2
from agent_core.rpc.session_pb2_grpc import SessionsServicer, add_SessionsServicer_to_server
from agent_core.rpc_errors import abort
from agent_core.transport import server_options, stop_server

Context = grpc.aio.ServicerContext[Any, Any]
Refusal = Callable[[session_pb2.AppendRequest], HeadwaterError | None]


@dataclass
class StoredSession:
    session: session_pb2.Session
    entries: list[session_pb2.Entry] = field(default_factory=list)
    by_key: dict[str, int] = field(default_factory=dict)
    grown: asyncio.Event = field(default_factory=asyncio.Event)


class FakePrimary(SessionsServicer):
    """Append, list, read and follow, from memory.

    Attributes:
        refuse: Asked before each append; what it returns is answered instead.
        answer: Cleared: appends are taken but not answered, until it is set.
        break_after: The append stream breaks after so many more appends were taken, before they are answered.
        entries_per_stream: A subscription asks to resume after so many entries; 0: never.
        skip_seq: Subscriptions leave this entry out, as often as `skips` says.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, StoredSession] = {}
        self.refuse: Refusal = lambda _append: None
        self.refuse_calls: HeadwaterError | None = None
        self.answer = asyncio.Event()
        self.answer.set()
        self.break_after: int | None = None
        self.entries_per_stream = 0
        self.skip_seq = self.skips = 0
        self.batch_sizes: list[int] = []
        self.taken: list[session_pb2.AppendRequest] = []
        self.keep_requests = True
        self.subscriptions = self.streams = 0
        self.lsn = 0

    def texts(self, session_id: str) -> list[bytes]:
        return [entry.payload_json for entry in self.sessions[session_id].entries]

    def add_session(self, session_id: str, entries: int = 0) -> StoredSession:
        stored = self.sessions[session_id] = StoredSession(session_pb2.Session(session_id=session_id))
        for number in range(1, entries + 1):
            self._store(
                session_pb2.AppendRequest(session_id=session_id, kind="message", payload_json=b'{"n":%d}' % number)
            )
        return stored

    async def CreateSession(  # noqa: N802 - gRPC's name
        self, request: session_pb2.CreateSessionRequest, context: Context
    ) -> session_pb2.CreateSessionResponse:
        await self._check(context)
        created = request.session.session_id not in self.sessions
        if created:
            self.sessions[request.session.session_id] = StoredSession(request.session)
        stored = self.sessions[request.session.session_id]
        return session_pb2.CreateSessionResponse(session=stored.session, created=created)

    async def GetSession(  # noqa: N802 - gRPC's name
        self, request: session_pb2.GetSessionRequest, context: Context
    ) -> session_pb2.GetSessionResponse:
        stored = await self._find(request.session_id, context)
        session = session_pb2.Session()
        session.CopyFrom(stored.session)
        session.entry_count = len(stored.entries)
        return session_pb2.GetSessionResponse(session=session)

    async def ListSessions(  # noqa: N802 - gRPC's name
        self, request: session_pb2.ListSessionsRequest, context: Context
    ) -> session_pb2.ListSessionsResponse:
        await self._check(context)
        start, size = int(request.page_token or 0), request.page_size or 50
        fitting = [s.session for s in self.sessions.values() if request.workspace in ("", s.session.workspace)]
        token = str(start + size) if start + size < len(fitting) else ""
        return session_pb2.ListSessionsResponse(sessions=fitting[start : start + size], next_page_token=token)

    async def GetTranscript(  # noqa: N802 - gRPC's name
        self, request: session_pb2.GetTranscriptRequest, context: Context
    ) -> session_pb2.GetTranscriptResponse:
        entries = (await self._find(request.session_id, context)).entries[request.after_seq :]
        limit = request.limit or 10
        return session_pb2.GetTranscriptResponse(entries=entries[:limit], more=len(entries) > limit)

    async def Append(  # noqa: N802 - gRPC's name
        self, request: session_pb2.AppendRequest, context: Context
    ) -> session_pb2.AppendResult:
        raise NotImplementedError("the client appends on the stream")

    async def AppendStream(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[session_pb2.AppendBatch], context: Context
    ) -> AsyncIterator[session_pb2.AppendResults]:
        self.streams += 1
        async for batch in request_iterator:
            self.batch_sizes.append(len(batch.appends))
            results = session_pb2.AppendResults(results=[self._append(append) for append in batch.appends])
            if self.break_after is not None:
                self.break_after -= len(batch.appends)
                if self.break_after < 0:
                    self.break_after = None
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
            await self.answer.wait()
            yield results

    async def Subscribe(  # noqa: N802 - gRPC's name
        self, request: session_pb2.SubscribeRequest, context: Context
    ) -> AsyncIterator[session_pb2.SubscribeEvent]:
        self.subscriptions += 1
        stored = await self._find(request.session_id, context)
        seq, sent = request.after_seq, 0
        caught_up = False
        while True:
            while seq < len(stored.entries):
                seq += 1
                if seq == self.skip_seq and self.skips > 0:
                    self.skips -= 1
                    continue
                yield session_pb2.SubscribeEvent(entries=session_pb2.EntryList(entries=[stored.entries[seq - 1]]))
                sent += 1
                if sent == self.entries_per_stream:
                    yield session_pb2.SubscribeEvent(resume=session_pb2.Resume(after_seq=seq, reason="slow"))
                    return
            if not caught_up:
                caught_up = True
                yield session_pb2.SubscribeEvent(caught_up=session_pb2.CaughtUp(seq=seq))
            stored.grown.clear()
            await stored.grown.wait()

    def _append(self, append: session_pb2.AppendRequest) -> session_pb2.AppendResult:
        if self.keep_requests:
            self.taken.append(append)
        error = self.refuse(append)
        if error is None and append.session_id not in self.sessions:
            error = SessionNotFound(f"no session {append.session_id!r}")
        if error is not None:
            return session_pb2.AppendResult(
                request_id=append.request_id, error_code=error.code, error_message=str(error)
            )
        seq = self.sessions[append.session_id].by_key.get(append.idempotency_key, 0)
        result = session_pb2.AppendResult(
            request_id=append.request_id, seq=seq or self._store(append), duplicate=bool(seq)
        )
        result.position.position.epoch = 1
        result.position.position.lsn = self.lsn
        return result

    def _store(self, append: session_pb2.AppendRequest) -> int:
        stored = self.sessions[append.session_id]
        self.lsn += 1
        seq = len(stored.entries) + 1
        stored.entries.append(
            session_pb2.Entry(
                seq=seq,
                kind=append.kind,
                payload_json=append.payload_json,
                created_at_ms=append.created_at_ms or 1_700_000_000_000,
                idempotency_key=append.idempotency_key,
            )
        )
        if append.idempotency_key:
            stored.by_key[append.idempotency_key] = seq
        stored.grown.set()
        return seq

    async def _check(self, context: Context) -> None:
        if self.refuse_calls is not None:
            await abort(context, self.refuse_calls)

    async def _find(self, session_id: str, context: Context) -> StoredSession:
        await self._check(context)
        stored = self.sessions.get(session_id)
        if stored is None:
            await abort(context, SessionNotFound(f"no session {session_id!r}"))
        return stored


@asynccontextmanager
async def serving(
    primary: FakePrimary, address: str = "127.0.0.1:0", *more: Callable[[grpc.aio.Server], None]
) -> AsyncIterator[str]:
    """Serve it on loopback, and what else is added to the server; yields its address."""
    server = grpc.aio.server(options=server_options())
    add_SessionsServicer_to_server(primary, server)
    for add in more:
        add(server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await stop_server(server)
