"""A caller's append stream is split by primaries; one that does not keep up costs little memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_core.cluster import NodeAddress
from agent_core.rpc.session_pb2 import AppendBatch, AppendRequest, AppendResult, AppendResults
from primary import append_lanes, append_order
from primary.append_lanes import AppendLanes
from tests.waiting import until

NODES = {name: NodeAddress(name, f"{name}:1", f"{name}:2") for name in ("quick", "hung", "former")}


class Primaries:
    """The streams that were opened: "quick" answers all it is given, "hung" takes and answers nothing.

    "former" takes all, and refuses it once it may. A session has the name of the node that leads it at first.

    Attributes:
        taken: The appends that "quick" was given.
        ends_after: "quick" ends its stream without an answer at this many appends; 0: it does not.
        taken_before: The appends that "former" was given.
        refusals: What "former" answers, an error code for each message.
    """

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.ends_after = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.taken_before: list[int] = []
        self.refusals: asyncio.Queue[str] = asyncio.Queue()
        self.leader_of = {name: name for name in NODES}
        self.lanes = AppendLanes(self._open, lambda session_id: NODES[self.leader_of[session_id]])
        self.results: dict[int, AppendResult] = {}
        self._batches: asyncio.Queue[AppendBatch | None] = asyncio.Queue()
        self.task = asyncio.create_task(self.lanes.take(self._each()))

    async def _open(
        self, primary: NodeAddress | None, batches: AsyncIterator[AppendBatch]
    ) -> AsyncIterator[AppendResults]:
        if primary == NODES["hung"]:
            await asyncio.Event().wait()
        if primary == NODES["former"]:
            async for batch in batches:
                request_ids = [append.request_id for append in batch.appends]
                self.taken_before += request_ids
                code = await self.refusals.get()
                yield AppendResults(
                    results=[AppendResult(request_id=each, error_code=code) for each in request_ids]
                )
            return
        async for batch in batches:
            self.taken += [append.request_id for append in batch.appends]
            if len(self.taken) == self.ends_after:
                return
            await self.may_answer.wait()
            yield AppendResults(results=[AppendResult(request_id=append.request_id) for append in batch.appends])

    async def _each(self) -> AsyncIterator[AppendBatch]:
        while (batch := await self._batches.get()) is not None:
            yield batch

    def send(self, *appends: tuple[int, str], payload: bytes = b"1") -> None:
        self._batches.put_nowait(
            AppendBatch(
                appends=[
                    AppendRequest(request_id=number, session_id=session_id, payload_json=payload)
                    for number, session_id in appends
                ]
            )
        )

    def finish(self) -> None:
        self._batches.put_nowait(None)

    @property
    def unread(self) -> int:
        """Batches that the caller sent and that were not read."""
        return self._batches.qsize()

    async def read(self) -> None:
        """Read results until the stream ends."""
        while (results := await self.lanes.results.get()) is not None:
            for result in results.results:
                assert result.request_id not in self.results, "each append is answered once"
                self.results[result.request_id] = result

    def codes(self, *request_ids: int) -> list[str]:
        """How appends ended; they may be sent again."""
        return [self.results.pop(number).error_code for number in request_ids]

    async def close(self) -> None:
        self.task.cancel()
        await self.lanes.close()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def primaries() -> AsyncIterator[Primaries]:
    primaries = Primaries()
    yield primaries
    await primaries.close()


async def test_each_append_goes_to_its_primary_and_its_result_comes_back(primaries: Primaries) -> None:
    primaries.send((1, "quick"), (2, "quick"))
    primaries.send((3, "quick"))
    primaries.finish()
    await primaries.read()
    assert primaries.taken == sorted(primaries.results) == [1, 2, 3]


async def test_no_more_is_read_while_a_primary_owes_too_many_answers(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_lanes, "MAX_UNANSWERED_APPENDS", 10)
    primaries.may_answer.clear()
    for number in range(1, 31):
        primaries.send((number, "quick"))
    await until(lambda: primaries.unread == 30 - 11)
    await asyncio.sleep(0)
    assert primaries.unread == 30 - 11
    primaries.may_answer.set()
    primaries.finish()
    await primaries.read()
    assert sorted(primaries.results) == list(range(1, 31))


async def test_no_more_is_read_while_too_many_bytes_wait_for_a_primary(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_lanes, "MAX_WAITING_BYTES", 10_000)
    for number in range(1, 31):
        primaries.send((number, "hung"), payload=b"1" * 1000)
    await until(lambda: primaries.unread == 30 - 11)
    await asyncio.sleep(0)
    assert primaries.unread == 30 - 11


async def test_no_more_is_read_for_a_caller_that_reads_no_results(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_lanes, "MAX_UNANSWERED_APPENDS", 10)
    count = 1000
    for number in range(1, count + 1):
        primaries.send((number, "quick"))
    await until(primaries.lanes.results.full)
    await until(lambda: primaries.lanes._lanes[NODES["quick"]].full)
    assert count - primaries.unread <= append_lanes.MAX_WAITING_RESULTS + 10 + 2
    primaries.finish()
    await primaries.read()
    assert len(primaries.results) == count


async def test_a_caller_that_reads_nothing_for_long_is_no_reason_to_give_a_primary_up(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_lanes, "MAX_UNANSWERED_APPENDS", 10)
    monkeypatch.setattr(append_lanes, "PATIENCE_SECONDS", 0.05)
    count = 1000
    for number in range(1, count + 1):
        primaries.send((number, "quick"))
    await until(primaries.lanes.results.full)
    patient_until = asyncio.get_running_loop().time() + 0.2
    await until(lambda: asyncio.get_running_loop().time() > patient_until)
    primaries.finish()
    await primaries.read()
    assert {result.error_code for result in primaries.results.values()} == {""}
    assert len(primaries.results) == count


async def test_when_a_hung_primary_leads_no_more_what_waited_for_it_does_not_overtake_what_it_was_given(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_lanes, "MAX_UNANSWERED_APPENDS", 10)
    for number in range(1, 21):
        primaries.send((number, "hung"))
    primaries.send((21, "quick"))
    await until(lambda: primaries.unread == 21 - 11)
    primaries.leader_of["hung"] = "quick"
    reading = asyncio.create_task(primaries.read())
    await primaries.lanes.keep({NODES["quick"]})
    await until(lambda: len(primaries.results) == 21)
    assert primaries.codes(*range(1, 21)) == ["outcome_unknown"] * 10 + ["unavailable"] * 10
    assert primaries.taken == [21]
    primaries.send(*((number, "hung") for number in range(1, 21)))
    primaries.finish()
    await reading
    assert primaries.taken == [21, *range(1, 21)]


async def test_a_hung_primary_holds_up_what_others_lead_for_a_moment_only(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_lanes, "MAX_UNANSWERED_APPENDS", 10)
    monkeypatch.setattr(append_lanes, "PATIENCE_SECONDS", 0.05)
    reading = asyncio.create_task(primaries.read())
    for number in range(1, 36):
        primaries.send((number, "hung"))
    primaries.send((36, "quick"))
    await until(lambda: len(primaries.results) == 36)
    assert "hung has taken and answered nothing" in primaries.results[1].error_message
    assert primaries.codes(*range(1, 37)) == ["outcome_unknown"] * 10 + ["unavailable"] * 25 + [""]
    primaries.finish()
    await reading


async def test_what_follows_an_unanswered_append_does_not_overtake_it_when_its_group_moves(
    primaries: Primaries,
) -> None:
    reading = asyncio.create_task(primaries.read())
    primaries.send((1, "former"))
    await until(lambda: primaries.taken_before == [1])
    primaries.leader_of["former"] = "quick"
    primaries.send((2, "former"), (3, "quick"))
    await until(lambda: 3 in primaries.results)
    assert primaries.taken == [3]
    primaries.refusals.put_nowait("not_primary")
    primaries.refusals.put_nowait("unavailable")
    await until(lambda: len(primaries.results) == 3)
    assert primaries.codes(1, 2) == ["not_primary", "unavailable"]
    primaries.send((1, "former"), (2, "former"))
    primaries.send((4, "former"))
    primaries.finish()
    await reading
    assert primaries.taken == [3, 1, 2, 4]


@pytest.mark.parametrize("code", ["not_primary", "unavailable", "overloaded", "outcome_unknown"])
async def test_what_was_sent_behind_a_refused_append_is_refused_although_its_group_has_moved(
    primaries: Primaries, code: str
) -> None:
    reading = asyncio.create_task(primaries.read())
    primaries.send((1, "former"))
    primaries.refusals.put_nowait(code)
    await until(lambda: 1 in primaries.results)
    primaries.leader_of["former"] = "quick"
    primaries.send((2, "former"), (3, "quick"))
    await until(lambda: len(primaries.results) == 3)
    assert primaries.codes(1, 2) == [code, "unavailable"]
    assert primaries.taken == [3]
    primaries.send((1, "former"), (2, "former"))
    primaries.finish()
    await reading
    assert primaries.taken == [3, 1, 2]


async def test_an_append_that_is_refused_for_good_holds_up_nothing(primaries: Primaries) -> None:
    reading = asyncio.create_task(primaries.read())
    primaries.send((1, "former"))
    primaries.refusals.put_nowait("invalid_request")
    await until(lambda: 1 in primaries.results)
    primaries.leader_of["former"] = "quick"
    primaries.send((2, "former"))
    primaries.finish()
    await reading
    assert primaries.taken == [2]


async def test_a_caller_that_repeats_at_once_is_not_kept_with_the_primary_before(primaries: Primaries) -> None:
    reading = asyncio.create_task(primaries.read())
    primaries.send((1, "former"))
    primaries.send((2, "former"))
    await until(lambda: primaries.taken_before == [1])
    primaries.leader_of["former"] = "quick"
    primaries.refusals.put_nowait("not_primary")
    await until(lambda: 1 in primaries.results)
    for _ in range(3):
        assert primaries.codes(1)
        primaries.send((1, "former"))
        await until(lambda: 1 in primaries.results)
    primaries.refusals.put_nowait("unavailable")
    await until(lambda: 2 in primaries.results)
    assert primaries.taken_before == [1, 2]
    assert primaries.codes(1, 2) == ["unavailable"] * 2
    primaries.send((1, "former"), (2, "former"))
    primaries.finish()
    await reading
    assert primaries.taken == [1, 2]


async def test_a_stream_with_refused_appends_of_too_many_sessions_ends(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_order, "MAX_REFUSED_SESSIONS", 3)
    for name in "abc":
        primaries.leader_of[name] = "former"
    primaries.send((1, "a"), (2, "b"), (3, "c"))
    primaries.refusals.put_nowait("unavailable")
    reading = asyncio.create_task(primaries.read())
    await until(lambda: len(primaries.results) == 3)
    primaries.send((4, "quick"))
    primaries.send((5, "quick"))
    async with asyncio.timeout(10):
        await reading
    assert sorted(primaries.results) == [1, 2, 3, 4]


async def test_a_stream_ends_although_a_hung_primary_was_given_all_it_may_be(
    primaries: Primaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_lanes, "MAX_UNANSWERED_APPENDS", 10)
    for number in range(1, 11):
        primaries.send((number, "hung"))
    primaries.finish()
    await until(lambda: primaries.unread == 0)
    reading = asyncio.create_task(primaries.read())
    await primaries.lanes.keep({NODES["quick"]})
    async with asyncio.timeout(10):
        await reading
    assert len(primaries.results) == 10


async def test_what_a_primary_did_not_answer_before_it_ended_its_stream_is_unknown(primaries: Primaries) -> None:
    primaries.ends_after = 2
    for number in (1, 2):
        primaries.send((number, "quick"))
    primaries.finish()
    await primaries.read()
    assert [primaries.results[number].error_code for number in (1, 2)] == ["", "outcome_unknown"]


async def test_results_that_wait_for_a_slow_caller_when_their_primary_is_given_up_are_not_lost(
    primaries: Primaries,
) -> None:
    count = 2 * append_lanes.MAX_WAITING_RESULTS
    for number in range(1, count + 1):
        primaries.send((number, "quick"))
    await until(primaries.lanes.results.full)
    giving_up = asyncio.create_task(primaries.lanes.keep(set()))
    primaries.finish()
    await primaries.read()
    await giving_up
    assert sorted(primaries.results) == list(range(1, count + 1))
