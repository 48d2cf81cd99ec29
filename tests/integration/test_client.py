"""The client library against a Sessions service in real gRPC."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator

import pytest

from agent_core.client import Client, CreatedSession, Entry, append_stream
from agent_core.errors import (
    HeadwaterError,
    InvalidRequest,
    NotPrimary,
    OutcomeUnknown,
    Overloaded,
    SessionNotFound,
    Unavailable,
)
from agent_core.position import Position
from agent_core.rpc import session_pb2
from tests.integration.fake_primary import FakePrimary, serving
from tests.waiting import until

DEADLINE_SECONDS = 10.0


def closed_port() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def primary() -> FakePrimary:
    return FakePrimary()


@pytest.fixture
async def address(primary: FakePrimary) -> AsyncIterator[str]:
    async with serving(primary) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[Client]:
    async with Client(address) as client:
        yield client


async def test_a_session_is_created_once_and_found_afterwards(client: Client) -> None:
    created = await client.create_session(
        session_id="s1", workspace="w", title="t", provider="p", model="m", metadata={"branch": "main"}
    )
    assert isinstance(created, CreatedSession)
    assert created.created
    assert (created.session_id, created.workspace, created.title, created.model) == ("s1", "w", "t", "m")
    assert created.metadata == {"branch": "main"}
    assert not (await client.create_session(session_id="s1")).created
    assert (await client.get_session("s1")).title == "t"


async def test_a_session_without_an_id_gets_one_of_its_own(client: Client) -> None:
    first, second = await client.create_session(), await client.create_session()
    assert first.session_id != second.session_id


async def test_an_append_returns_its_seq_and_position(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1")
    appended = await client.append("s1", "message", {"role": "user"}, created_at_ms=5)
    assert (appended.seq, appended.position, appended.group, appended.duplicate) == (1, Position(1, 1), 0, False)
    (entry,) = [entry async for entry in client.transcript("s1")]
    assert (entry.kind, entry.document(), entry.created_at_ms) == ("message", {"role": "user"}, 5)


async def test_the_same_key_appends_once(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1")
    first = await client.append("s1", "message", b"{}", idempotency_key="key")
    again = await client.append("s1", "message", b"{}", idempotency_key="key")
    assert (first.seq, again.seq, again.duplicate) == (1, 1, True)


async def test_appends_without_a_key_get_different_ones(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1")
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(client.append("s1", "message", b"{}"))
    assert len({entry.idempotency_key for entry in primary.sessions["s1"].entries}) == 50


async def test_the_appends_of_many_sessions_share_one_stream_and_few_messages(
    client: Client, primary: FakePrimary
) -> None:
    for number in range(64):
        primary.add_session(f"s{number}")

    async def write(session_id: str) -> None:
        for number in range(5):
            await client.append(session_id, "message", b'{"n":%d}' % number)

    async with asyncio.TaskGroup() as group:
        for number in range(64):
            group.create_task(write(f"s{number}"))
    assert primary.streams == 1
    assert len(primary.batch_sizes) <= 64
    for number in range(64):
        assert primary.texts(f"s{number}") == [b'{"n":%d}' % n for n in range(5)]


async def test_the_acknowledgement_of_the_append_beats_the_clients(address: str, primary: FakePrimary) -> None:
    primary.add_session("s1")
    async with Client(address, acknowledgement="all") as client:
        await client.append("s1", "message", b"{}")
        await client.append("s1", "message", b"{}", acknowledgement="local")
        with pytest.raises(InvalidRequest, match="local, quorum or all"):
            await client.append("s1", "message", b"{}", acknowledgement="none")
    assert [append.acknowledgement for append in primary.taken] == [
        session_pb2.ACKNOWLEDGEMENT_ALL,
        session_pb2.ACKNOWLEDGEMENT_LOCAL,
    ]


async def test_each_caller_gets_its_own_error(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1")
    good, missing = await asyncio.gather(
        client.append("s1", "message", b"{}"), client.append("nobody", "message", b"{}"), return_exceptions=True
    )
    assert not isinstance(good, BaseException)
    assert isinstance(missing, SessionNotFound)


async def test_what_cannot_be_sent_is_refused_at_once_and_harms_nobody_else(
    client: Client, primary: FakePrimary
) -> None:
    primary.add_session("s1")
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        await client.append("\ud800", "message", b"{}")
    with pytest.raises(InvalidRequest, match="not a JSON object"):
        await client.append("s1", "message", {"object": object()})
    with pytest.raises(InvalidRequest, match="allowed are"):
        await client.append("s1", "message", bytes(64 << 20))
    assert (await client.append("s1", "message", b"{}")).seq == 1


async def test_a_broken_stream_is_replaced_and_nothing_is_lost_or_doubled(
    client: Client, primary: FakePrimary
) -> None:
    primary.add_session("s1")
    primary.add_session("s2")
    primary.break_after = 30

    async def write(session_id: str) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(client.append(session_id, "message", b'{"n":%d}' % number))

    await asyncio.gather(write("s1"), write("s2"))
    assert primary.streams >= 2
    for session_id in ("s1", "s2"):
        assert primary.texts(session_id) == [b'{"n":%d}' % number for number in range(100)]


async def test_a_refused_append_is_repeated_in_its_sessions_order(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1")
    refused: list[bytes] = []

    def until_both_were_refused(append: session_pb2.AppendRequest) -> Overloaded | None:
        if refused.count(b"2"):
            return None
        refused.append(append.payload_json)
        return Overloaded("full")

    primary.refuse = until_both_were_refused
    first = asyncio.create_task(client.append("s1", "message", b"1"))
    await until(lambda: primary.taken)
    second = asyncio.create_task(client.append("s1", "message", b"2"))
    await asyncio.gather(first, second)
    assert primary.texts("s1") == [b"1", b"2"]


async def test_an_append_that_was_sent_and_never_answered_ends_as_unknown(
    address: str, primary: FakePrimary
) -> None:
    primary.add_session("s1")
    primary.answer.clear()
    async with Client(address, timeout_seconds=0.1) as client:
        with pytest.raises(OutcomeUnknown, match="idempotency key"):
            await client.append("s1", "message", b"{}")
    primary.answer.set()


async def test_a_stalled_node_is_left_for_the_next_one(primary: FakePrimary) -> None:
    stalled = FakePrimary()
    stalled.add_session("s1")
    stalled.answer.clear()
    primary.add_session("s1")
    async with serving(stalled) as first, serving(primary) as second:
        async with Client([first, second], timeout_seconds=0.2) as client:
            with pytest.raises(OutcomeUnknown):
                await client.append("s1", "message", b"{}")
            assert (await client.append("s1", "message", b"{}")).seq == 1
        stalled.answer.set()


async def test_a_node_that_refuses_everything_for_want_of_a_primary_is_left_for_the_next_one(
    primary: FakePrimary,
) -> None:
    cut_off = FakePrimary()
    cut_off.refuse = lambda _append: Unavailable("group 0 has no primary at the moment")
    primary.add_session("s1")
    async with serving(cut_off) as first, serving(primary) as second, Client([first, second]) as client:
        async with asyncio.timeout(10):
            assert (await client.append("s1", "message", b"{}")).seq == 1
        assert client.address == second


async def test_a_node_that_serves_one_session_is_not_left_because_of_another(
    primary: FakePrimary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_stream, "STALL_SECONDS", 0.2)
    for session_id in ("served", "refused"):
        primary.add_session(session_id)
    refusals = itertools.count(1)
    primary.refuse = lambda append: (
        Unavailable("group 1 has no primary at the moment")
        if append.session_id == "refused" and next(refusals) < 12
        else None
    )
    async with (
        serving(FakePrimary()) as elsewhere,
        serving(primary) as first,
        Client([first, elsewhere]) as client,
    ):
        refused = asyncio.create_task(client.append("refused", "message", b"{}"))
        while not refused.done():
            await client.append("served", "message", b"{}")
        assert (await refused).seq == 1
        assert (client.address, primary.streams) == (first, 1)


async def test_an_append_that_reached_no_node_ends_as_unavailable() -> None:
    async with Client(closed_port(), timeout_seconds=0.2) as client:
        with pytest.raises(Unavailable, match="not written"):
            await client.append("s1", "message", b"{}")
        with pytest.raises(Unavailable, match="refuses connections"):
            await client.create_session()


async def test_the_primary_that_a_node_names_is_followed(address: str, primary: FakePrimary) -> None:
    standby = FakePrimary()
    refusal = NotPrimary(f"group 0 is led by node-b at {address}")
    standby.refuse, standby.refuse_calls = (lambda _append: refusal), refusal
    primary.add_session("s1")
    async with serving(standby) as first:
        async with Client(first) as client:
            assert (await client.append("s1", "message", b"{}")).seq == 1
            assert client.address == address
        async with Client(first) as client:
            assert (await client.create_session(session_id="s2")).created


async def test_a_dead_node_is_passed_over(address: str, primary: FakePrimary) -> None:
    primary.add_session("s1")
    async with Client([closed_port(), address]) as client:
        assert (await client.append("s1", "message", b"{}")).seq == 1
    async with Client([closed_port(), address]) as client:
        assert (await client.get_session("s1")).entry_count == 1


async def test_appends_outlive_a_restart_of_the_node(primary: FakePrimary) -> None:
    primary.add_session("s1")
    address = closed_port()
    async with Client(address) as client:
        async with serving(primary, address):
            await client.append("s1", "message", b"1")
        waiting = asyncio.create_task(client.append("s1", "message", b"2"))
        async with serving(primary, address):
            assert (await waiting).seq == 2


async def test_callers_past_the_bound_wait_and_are_served_in_their_turn(address: str, primary: FakePrimary) -> None:
    primary.add_session("s1")
    primary.answer.clear()
    async with Client(address, max_in_flight=3) as client, asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(client.append("s1", "message", b"%d" % number))
        await until(lambda: primary.taken)
        assert len(primary.taken) == 3
        primary.answer.set()
    assert primary.texts("s1") == [b"%d" % number for number in range(10)]
    assert max(primary.batch_sizes) == 3


async def test_a_caller_that_goes_away_leaves_the_others_alone(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1")
    primary.answer.clear()
    gone = asyncio.create_task(client.append("s1", "message", b"1"))
    await until(lambda: primary.taken)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    primary.answer.set()
    assert (await client.append("s1", "message", b"2")).seq == 2


async def test_leaving_the_client_ends_what_waits(address: str, primary: FakePrimary) -> None:
    primary.add_session("s1")
    primary.answer.clear()
    async with Client(address) as client:
        waiting = asyncio.create_task(client.append("s1", "message", b"{}"))
        await until(lambda: primary.taken)
    with pytest.raises(OutcomeUnknown, match="closed"):
        await waiting
    with pytest.raises(Unavailable, match="closed"):
        await client.append("s1", "message", b"{}")
    primary.answer.set()


async def test_sessions_are_listed_across_pages(client: Client) -> None:
    for number in range(7):
        await client.create_session(session_id=f"s{number}", workspace="even" if number % 2 == 0 else "odd")
    listed = [session.session_id async for session in client.list_sessions(workspace="even", page_size=3)]
    assert listed == ["s0", "s2", "s4", "s6"]


async def test_a_transcript_is_read_across_pages_from_a_cursor(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1", entries=25)
    assert [entry.seq async for entry in client.transcript("s1", after_seq=3)] == list(range(4, 26))


async def test_an_unknown_session_is_said_to_be_unknown(client: Client) -> None:
    with pytest.raises(SessionNotFound):
        await client.get_session("nobody")
    with pytest.raises(SessionNotFound):
        await anext(client.transcript("nobody"))
    with pytest.raises(SessionNotFound):
        await anext(client.subscribe("nobody"))


async def follow(entries: AsyncIterator[Entry], number: int) -> list[int]:
    """The next so many entries' numbers."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return [(await anext(entries)).seq for _ in range(number)]


async def test_a_subscription_is_backfill_then_live(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1", entries=3)
    entries = client.subscribe("s1", after_seq=1)
    assert await follow(entries, 2) == [2, 3]
    waiting = asyncio.create_task(follow(entries, 1))
    await client.append("s1", "message", b"{}")
    assert await waiting == [4]


async def test_a_subscription_until_caught_up_ends_there(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1", entries=3)
    assert [entry.seq async for entry in client.subscribe("s1", until_caught_up=True)] == [1, 2, 3]


async def test_a_subscription_resumes_when_it_is_told_to(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1", entries=20)
    primary.entries_per_stream = 3
    assert await follow(client.subscribe("s1"), 20) == list(range(1, 21))
    assert primary.subscriptions >= 7


async def test_a_subscription_goes_on_after_its_node_was_restarted(primary: FakePrimary) -> None:
    primary.add_session("s1", entries=2)
    address = closed_port()
    async with Client(address) as client:
        entries = client.subscribe("s1")
        async with serving(primary, address):
            assert await follow(entries, 2) == [1, 2]
        waiting = asyncio.create_task(follow(entries, 1))
        async with serving(primary, address):
            await client.append("s1", "message", b"{}")
            assert await waiting == [3]


async def test_an_entry_that_was_skipped_is_asked_for_again(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1", entries=6)
    primary.skip_seq, primary.skips = 4, 1
    assert await follow(client.subscribe("s1"), 6) == [1, 2, 3, 4, 5, 6]


async def test_a_node_that_keeps_skipping_an_entry_is_not_believed(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1", entries=6)
    primary.skip_seq, primary.skips = 4, 100
    entries = client.subscribe("s1")
    assert await follow(entries, 3) == [1, 2, 3]
    with pytest.raises(HeadwaterError, match="skipped"):
        await follow(entries, 1)


async def test_following_is_given_up_when_no_node_answers() -> None:
    async with Client(closed_port(), timeout_seconds=0.2) as client:
        with pytest.raises(Unavailable):
            await follow(client.subscribe("s1"), 1)


async def test_a_channel_takes_messages_of_many_megabytes(client: Client, primary: FakePrimary) -> None:
    primary.add_session("s1")
    payload = b'"' + b"x" * (20 << 20) + b'"'
    await client.append("s1", "message", payload)
    (entry,) = [entry async for entry in client.transcript("s1")]
    assert entry.payload == payload


@pytest.mark.parametrize("bound", ["timeout_seconds", "max_in_flight", "max_in_flight_bytes"])
def test_a_bound_must_be_positive(bound: str) -> None:
    with pytest.raises(ValueError, match=f"{bound} must be greater than 0"):
        Client("127.0.0.1:7101", **{bound: 0})  # type: ignore[arg-type] # each bound takes a number


def test_an_acknowledgement_must_be_known() -> None:
    with pytest.raises(ValueError, match="none"):
        Client("127.0.0.1:7101", acknowledgement="none")


async def test_a_client_that_was_not_entered_says_so() -> None:
    with pytest.raises(Unavailable, match="async with"):
        await Client("127.0.0.1:7101").append("s1", "message", b"{}")


async def test_an_append_stream_that_dies_of_a_bug_fails_every_waiter(
    client: Client, primary: FakePrimary, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary.add_session("s1")

    def broken(_batch: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("agent_core.client.append_stream._encode", broken)
    with pytest.raises(OutcomeUnknown, match="a bug"):
        await client.append("s1", "message", b"{}")
    with pytest.raises(Unavailable, match="a bug"):
        await client.append("s1", "message", b"{}")
