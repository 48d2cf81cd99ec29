"""The read side over a real gRPC server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agent_core.errors import (
    HeadwaterError,
    InvalidRequest,
    PositionLost,
    PositionNotReached,
    QueryRefused,
    SessionNotFound,
    Unavailable,
)
from agent_core.position import Position
from agent_core.routing import ShardLayout
from agent_core.rpc import read_pb2, read_pb2_grpc, replication_pb2, session_pb2
from agent_core.rpc_errors import from_rpc_error
from replica.reading.positions import AppliedPositions
from replica.reading.reading import Reading
from replica.reading.service import ReadingService
from replica.reading.session_list import SessionFilter
from tests.interfaces import served_over_grpc
from tests.reading_shards import WrittenShards

LAYOUT = ShardLayout(shard_count=4, shard_group_count=2)
SESSIONS = [f"session-{number}" for number in range(10)]


@pytest.fixture
async def shards(tmp_path: Path) -> AsyncIterator[WrittenShards]:
    written = WrittenShards(tmp_path, LAYOUT)
    written.create_every_shard()
    for number, session_id in enumerate(SESSIONS):
        written.create(session_id, created_at=number, metadata=json.dumps({"number": number}))
    yield written
    written.close()


@pytest.fixture
async def applied(shards: WrittenShards) -> AppliedPositions:
    positions = AppliedPositions(LAYOUT.shard_group_count)
    for group, lsn in enumerate(shards.lsns):
        positions.advance(group, Position(1, lsn))
    return positions


@pytest.fixture
async def stub(
    tmp_path: Path, shards: WrittenShards, applied: AppliedPositions
) -> AsyncIterator[read_pb2_grpc.ReadingAsyncStub]:
    reading = Reading.open(tmp_path, LAYOUT, applied)
    service = ReadingService(reading)
    async with served_over_grpc(partial(read_pb2_grpc.add_ReadingServicer_to_server, service)) as channel:
        yield read_pb2_grpc.ReadingStub(channel)
    await reading.close()


def reveal_all(applied: AppliedPositions, shards: WrittenShards) -> None:
    """Everything that was written is committed."""
    for group, lsn in enumerate(shards.lsns):
        applied.reveal(group, Position(1, lsn))


async def failure(call: Awaitable[Any]) -> HeadwaterError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


def position(epoch: int, lsn: int) -> replication_pb2.Position:
    return replication_pb2.Position(epoch=epoch, lsn=lsn)


async def test_pages_of_sessions_go_through_all_shards_once(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards
) -> None:
    seen: list[str] = []
    token = ""
    while True:
        page = await stub.ListSessions(session_pb2.ListSessionsRequest(page_size=3, page_token=token))
        seen += [session.session_id for session in page.sessions]
        assert [(each.group, each.position.lsn) for each in page.positions] == list(enumerate(shards.lsns))
        token = page.next_page_token
        if not token:
            break
    assert seen == SESSIONS[::-1]


async def test_a_session_is_answered_with_everything_about_it(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards, applied: AppliedPositions
) -> None:
    shards.append("session-7", "{}", at=50)
    reveal_all(applied, shards)
    answer = await stub.GetSession(session_pb2.GetSessionRequest(session_id="session-7"))
    assert answer.session == session_pb2.Session(
        session_id="session-7",
        status="idle",
        created_at_ms=7,
        updated_at_ms=50,
        entry_count=1,
        metadata_json=b'{"number": 7}',
    )
    assert answer.position.group == LAYOUT.group_of(LAYOUT.shard_of("session-7"))


async def test_the_position_is_the_groups_and_was_taken_before_the_read(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards, applied: AppliedPositions
) -> None:
    shard = LAYOUT.shard_of("session-1")
    group = LAYOUT.group_of(shard)
    applied.advance(group, Position(7, 1000))
    answer = await stub.GetSession(session_pb2.GetSessionRequest(session_id="session-1"))
    assert answer.position == session_pb2.GroupPosition(group=group, position=position(7, 1000))


async def test_a_transcript_comes_in_pieces_that_fit_together(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards, applied: AppliedPositions
) -> None:
    shards.append("session-1", '{"n":1}', '{"n":2}')
    shards.fold(LAYOUT.shard_of("session-1"))
    shards.append("session-1", '{"n":3}', at=9)
    reveal_all(applied, shards)
    first = await stub.GetTranscript(session_pb2.GetTranscriptRequest(session_id="session-1", limit=2))
    assert ([entry.seq for entry in first.entries], first.more) == ([1, 2], True)
    rest = await stub.GetTranscript(session_pb2.GetTranscriptRequest(session_id="session-1", after_seq=2))
    assert list(rest.entries) == [
        session_pb2.Entry(seq=3, kind="message", payload_json=b'{"n":3}', created_at_ms=9, idempotency_key="key-3")
    ]
    assert not rest.more


async def test_a_full_answer_fits_into_a_message_of_default_size(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards, applied: AppliedPositions
) -> None:
    shards.append("session-1", *['"' + "x" * 300 + '"'] * 12_000)
    reveal_all(applied, shards)
    request = session_pb2.GetTranscriptRequest(session_id="session-1", limit=10_000)
    answer = await stub.GetTranscript(request)
    assert answer.more
    assert len(answer.entries) > 9000


async def test_a_reader_sees_its_own_write_once_it_is_applied(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards, applied: AppliedPositions
) -> None:
    shard = LAYOUT.shard_of("session-1")
    group = LAYOUT.group_of(shard)
    wanted = Position(1, shards.lsns[group] + 1)
    call = stub.GetTranscript(
        session_pb2.GetTranscriptRequest(session_id="session-1", min_position=position(*wanted), wait_ms=20_000)
    )
    async with asyncio.timeout(10):
        while not applied.waiting:
            await asyncio.sleep(0.005)
    shards.append("session-1", "{}")
    applied.advance(group, wanted)
    answer = await call
    assert len(answer.entries) == 1
    assert answer.position.position == position(*wanted)


async def test_errors_arrive_as_what_they_are(stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards) -> None:
    unknown = await failure(stub.GetSession(session_pb2.GetSessionRequest(session_id="nobody")))
    assert type(unknown) is SessionNotFound
    late = await failure(
        stub.GetSession(
            session_pb2.GetSessionRequest(session_id="session-1", min_position=position(9, 9), wait_ms=10)
        )
    )
    assert type(late) is PositionNotReached
    assert "9:9" in str(late)
    refused = await failure(stub.Query(read_pb2.QueryRequest(sql="DROP TABLE sessions", shard=0)))
    assert type(refused) is QueryRefused


@pytest.mark.parametrize(
    ("request_message", "words"),
    [
        (session_pb2.GetSessionRequest(session_id="a b"), "session_id"),
        (session_pb2.GetSessionRequest(session_id="a", wait_ms=40_000, min_position=position(9, 9)), "0 to 30 s"),
        (session_pb2.GetTranscriptRequest(session_id="a", limit=10_001), "limit is 10001; allowed are 1 to 10000"),
        (session_pb2.GetTranscriptRequest(session_id="a", after_seq=2**63), "after_seq"),
        (session_pb2.ListSessionsRequest(page_size=1001), "page_size is 1001"),
        (session_pb2.ListSessionsRequest(page_token="?"), "page_token"),
        (
            session_pb2.ListSessionsRequest(min_positions=[session_pb2.GroupPosition(group=2)]),
            "group 2; this cluster has 0 to 1",
        ),
        (read_pb2.QueryRequest(sql="SELECT 1", shard=5), "shard is 5; this cluster has 0 to 3, and 4"),
        (read_pb2.QueryRequest(sql="SELECT 1", min_position=position(1, 1)), "min_position names no group, and 2"),
        (read_pb2.QueryRequest(sql=" ", shard=0), "sql is empty"),
        (read_pb2.QueryRequest(sql="SELECT 1", shard=0, max_rows=100_001), "max_rows"),
        (read_pb2.QueryRequest(sql="SELECT 1", shard=0, timeout_ms=30_001), "time limit"),
    ],
)
async def test_a_wrong_field_is_named(
    stub: read_pb2_grpc.ReadingAsyncStub, request_message: Any, words: str
) -> None:
    method = type(request_message).__name__.removesuffix("Request")
    error = await failure(getattr(stub, method)(request_message))
    assert type(error) is InvalidRequest
    assert words in str(error)


async def test_sql_runs_over_the_shard_that_is_asked_for(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards
) -> None:
    sql = "SELECT shard, ? FROM replication"
    for target, shard in (
        ({"shard": 2}, 2),
        ({"session_id": "session-1"}, LAYOUT.shard_of("session-1")),
        ({"workspace": True}, LAYOUT.workspace_shard),
    ):
        request = read_pb2.QueryRequest(sql=sql, parameters_json=b'["x"]', **target)
        answer = await stub.Query(request)
        assert json.loads(answer.rows_json) == [[shard, "x"]]
        assert (answer.shard, answer.row_count, answer.truncated) == (shard, 1, False)
        assert list(answer.columns) == ["shard", "?"]
        assert [at.group for at in answer.positions] == [LAYOUT.group_of(shard)]


async def test_a_node_without_shards_lists_nothing_and_says_why_it_cannot_read_one(tmp_path: Path) -> None:
    reading = Reading.open(tmp_path / "empty", LAYOUT, AppliedPositions(2))
    assert (await reading.sessions(wanted=SessionFilter())).sessions == []
    with pytest.raises(Unavailable, match="has not arrived"):
        await reading.session("session-1")
    with pytest.raises(Unavailable, match="has not arrived"):
        await reading.query("SELECT 1", 0)
    await reading.close()


def read_of(stub: read_pb2_grpc.ReadingAsyncStub, kind: str, session_id: str, wait_ms: int) -> Awaitable[Any]:
    """One of the reads that show something of a session."""
    match kind:
        case "sessions":
            call: Any = stub.ListSessions(session_pb2.ListSessionsRequest(wait_ms=wait_ms))
        case "session":
            call = stub.GetSession(session_pb2.GetSessionRequest(session_id=session_id, wait_ms=wait_ms))
        case "transcript":
            call = stub.GetTranscript(session_pb2.GetTranscriptRequest(session_id=session_id, wait_ms=wait_ms))
        case _:
            sql = "SELECT count(*) FROM entries"
            call = stub.Query(read_pb2.QueryRequest(sql=sql, session_id=session_id, wait_ms=wait_ms))
    return call  # type: ignore[no-any-return] # the kinds of answers differ


@pytest.mark.parametrize("kind", ["sessions", "session", "transcript", "query"])
async def test_no_entry_is_shown_before_it_is_acknowledged(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards, applied: AppliedPositions, kind: str
) -> None:
    shards.append(SESSIONS[0], '{"text":"not acknowledged"}')
    shard = LAYOUT.shard_of(SESSIONS[0])
    error = await failure(read_of(stub, kind, SESSIONS[0], 50))
    assert isinstance(error, Unavailable)
    assert "not acknowledged yet" in str(error)
    reading = asyncio.ensure_future(read_of(stub, kind, SESSIONS[0], 20_000))
    async with asyncio.timeout(20):
        while not applied.waiting:
            await asyncio.sleep(0.005)
    assert not reading.done()
    applied.reveal(LAYOUT.group_of(shard), shards.position(shard))
    await reading


async def test_a_shard_that_a_resync_brought_ahead_of_its_group_is_shown_once_that_is_committed(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards, applied: AppliedPositions
) -> None:
    shards.append(SESSIONS[0], '{"text":"more than the group has applied"}')
    shard = LAYOUT.shard_of(SESSIONS[0])
    applied.reveal(LAYOUT.group_of(shard), shards.position(shard))
    answer = await stub.GetTranscript(session_pb2.GetTranscriptRequest(session_id=SESSIONS[0], wait_ms=1))
    assert len(answer.entries) == 1
    # Who passes this on must not see fewer entries on another node.
    assert answer.position.position == position(*shards.position(shard))


class Replaced:
    """A history that another one replaced from lsn 9 on."""

    def is_lost(self, position: Position) -> bool:
        return False

    def never_comes(self, position: Position) -> bool:
        return position.lsn >= 9


async def test_a_position_that_a_fail_over_has_lost_is_told_as_such(
    stub: read_pb2_grpc.ReadingAsyncStub, applied: AppliedPositions
) -> None:
    applied.judge_by(LAYOUT.group_of(LAYOUT.shard_of("session-1")), Replaced())
    error = await failure(
        stub.GetSession(session_pb2.GetSessionRequest(session_id="session-1", min_position=position(1, 9)))
    )
    assert type(error) is PositionLost


async def test_a_follower_that_resumes_after_what_a_fail_over_has_lost_is_told_so(
    stub: read_pb2_grpc.ReadingAsyncStub, applied: AppliedPositions
) -> None:
    applied.judge_by(LAYOUT.group_of(LAYOUT.shard_of("session-1")), Replaced())

    def resumed(lsn: int) -> grpc.aio.UnaryStreamCall[read_pb2.FollowRequest, read_pb2.FollowEvent]:
        return stub.Follow(
            read_pb2.FollowRequest(session_id="session-1", after_seq=1, after_position=position(1, lsn))
        )

    assert type(await failure(resumed(9).read())) is PositionLost
    kept = resumed(8)
    assert isinstance(await kept.read(), read_pb2.FollowEvent)
    kept.cancel()


async def test_a_query_over_all_shards_of_one_group_waits_for_its_position(tmp_path: Path) -> None:
    reading = Reading.open(tmp_path, ShardLayout(shard_count=1, shard_group_count=1), AppliedPositions(1))
    service = ReadingService(reading)
    demand = service._demand(read_pb2.QueryRequest(sql="SELECT 1", min_position=position(1, 9)), None)
    assert demand.min_positions == {0: Position(1, 9)}
    await reading.close()


async def test_tool_calls_are_told_with_their_outcomes(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards, applied: AppliedPositions
) -> None:
    call = {"type": "tool_call", "id": "call-1", "name": "bash", "arguments": {"command": "ls"}}
    shards.append("session-1", json.dumps({"role": "assistant", "content": [call]}), at=5)
    result = {
        "role": "tool_result",
        "toolCallId": "call-1",
        "toolName": "bash",
        "content": "a.txt",
        "isError": False,
    }
    shards.append("session-1", json.dumps(result), at=9)
    reveal_all(applied, shards)
    answer = await stub.GetToolCalls(read_pb2.GetToolCallsRequest(session_id="session-1"))
    (told,) = answer.tool_calls
    assert (told.tool_call_id, told.name, told.seq, json.loads(told.arguments_json)) == (
        "call-1", "bash", 1, {"command": "ls"},
    )  # fmt: skip
    assert (told.status, told.result_seq, told.started_at_ms, told.ended_at_ms) == ("completed", 2, 5, 9)
    assert answer.position.group == LAYOUT.group_of(LAYOUT.shard_of("session-1"))


async def test_sessions_are_sorted_and_filtered(
    stub: read_pb2_grpc.ReadingAsyncStub, shards: WrittenShards
) -> None:
    request = session_pb2.ListSessionsRequest(sort="created", order="asc", created_after_ms=3, created_before_ms=7)
    page = await stub.ListSessions(request)
    assert [session.session_id for session in page.sessions] == ["session-4", "session-5", "session-6"]
