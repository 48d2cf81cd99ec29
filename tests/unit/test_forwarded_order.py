"""A forwarded stream keeps each session's order, whatever primaries refuse, never answer or lose while groups move.

Each seed plays one stream. Its caller sends appends of a few sessions without waiting, and repeats what was refused
once all before it is answered. Primaries change, and the forwarding node hears of that late.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from agent_core.cluster import NodeAddress
from agent_core.errors import from_code
from agent_core.rpc.session_pb2 import AppendBatch, AppendRequest, AppendResult, AppendResults
from primary import append_lanes
from primary.append_lanes import AppendLanes
from primary.append_order import AppendOrder
from primary.unanswered_appends import UnansweredAppends

NODES = {name: NodeAddress(name, f"{name}:1", f"{name}:2") for name in "abc"}
SESSIONS = ("one", "two", "three")
APPENDS = 60


class Nodes:
    """Three nodes that lead sessions in turn; each writes what it is given while it leads.

    Attributes:
        leader_of: Who leads each session.
        known_leader_of: Who does as far as the forwarding node has heard.
        entries: The request ids written to each session, in order.
        calm: Nothing fails any more.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.leader_of = dict.fromkeys(SESSIONS, "a")
        self.known_leader_of = dict(self.leader_of)
        self.entries: dict[str, list[int]] = {session_id: [] for session_id in SESSIONS}
        self.calm = False
        self._acknowledged: set[int] = set()

    def happens(self, probability: float) -> bool:
        return not self.calm and self._chance.random() < probability

    async def pause(self, steps: int = 8) -> None:
        for _ in range(self._chance.randrange(steps)):
            await asyncio.sleep(0)

    def move(self, session_id: str, node: str) -> None:
        """Have another node lead; it may lack the last entries that were not acknowledged."""
        self.leader_of[session_id] = node
        entries = self.entries[session_id]
        while entries and entries[-1] not in self._acknowledged and self._chance.random() < 0.7:
            entries.pop()

    async def serve(
        self, primary: NodeAddress | None, batches: AsyncIterator[AppendBatch]
    ) -> AsyncIterator[AppendResults]:
        assert primary is not None
        order = AppendOrder()
        async for batch in batches:
            await self.pause()
            if self.happens(0.02):
                await asyncio.Event().wait()
            if self.happens(0.02):
                return
            results = [self._answer(primary.node_id, order, append) for append in batch.appends]
            await self.pause()
            yield AppendResults(results=results)

    def _answer(self, node: str, order: AppendOrder, append: AppendRequest) -> AppendResult:
        session_id, request_id = append.session_id, append.request_id
        code = ""
        if not order.admits(session_id, request_id):
            code = "unavailable"
        elif self.leader_of[session_id] != node:
            code = "not_primary"
            order.refused(session_id, request_id)
        elif self.happens(0.05):
            code = "overloaded"
            order.refused(session_id, request_id)
        else:
            if request_id not in self.entries[session_id]:
                self.entries[session_id].append(request_id)
            if self.happens(0.05):
                code = "outcome_unknown"
                order.refused(session_id, request_id)
            else:
                self._acknowledged.add(request_id)
        return AppendResult(request_id=request_id, error_code=code)


class Caller:
    """Sends the appends, and again what was refused.

    Attributes:
        written: The ids of the appends of each session.
    """

    def __init__(self, chance: random.Random, lanes: AppendLanes) -> None:
        self._chance = chance
        self._lanes = lanes
        self._batches: asyncio.Queue[AppendBatch | None] = asyncio.Queue()
        self._under_way: dict[str, set[int]] = {session_id: set() for session_id in SESSIONS}
        self._refused: dict[str, set[int]] = {session_id: set() for session_id in SESSIONS}
        self.written: dict[str, list[int]] = {session_id: [] for session_id in SESSIONS}
        self._session_of: dict[int, str] = {}

    async def batches(self) -> AsyncIterator[AppendBatch]:
        while (batch := await self._batches.get()) is not None:
            yield batch

    async def read(self) -> None:
        while (results := await self._lanes.results.get()) is not None:
            for result in results.results:
                session_id = self._session_of[result.request_id]
                self._under_way[session_id].remove(result.request_id)
                if result.error_code:
                    assert from_code(result.error_code, "").retry
                    self._refused[session_id].add(result.request_id)

    def send(self) -> None:
        """Send something of some sessions, if there is anything to send."""
        batch = AppendBatch()
        for session_id in self._chance.sample(SESSIONS, self._chance.randint(1, len(SESSIONS))):
            under_way, refused = self._under_way[session_id], self._refused[session_id]
            if refused and not under_way:
                self._put(batch, session_id, sorted(refused))
                refused.clear()
            elif len(self._session_of) < APPENDS:
                request_id = len(self._session_of) + 1
                self._session_of[request_id] = session_id
                self.written[session_id].append(request_id)
                self._put(batch, session_id, [request_id])
        if batch.appends:
            self._batches.put_nowait(batch)

    def _put(self, batch: AppendBatch, session_id: str, request_ids: list[int]) -> None:
        for request_id in request_ids:
            self._under_way[session_id].add(request_id)
            batch.appends.add(request_id=request_id, session_id=session_id)

    @property
    def done(self) -> bool:
        unsettled = any(self._under_way.values()) or any(self._refused.values())
        return len(self._session_of) == APPENDS and not unsettled

    def finish(self) -> None:
        self._batches.put_nowait(None)


@pytest.mark.parametrize("seed", range(150))
async def test_a_forwarded_stream_keeps_the_order_of_each_session(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_lanes, "MAX_UNANSWERED_APPENDS", 10)
    chance = random.Random(seed)
    nodes = Nodes(chance)
    lanes = AppendLanes(nodes.serve, lambda session_id: NODES[nodes.known_leader_of[session_id]])
    caller = Caller(chance, lanes)

    async def move() -> None:
        for _ in range(12):
            await nodes.pause(30)
            session_id = chance.choice(SESSIONS)
            nodes.move(session_id, chance.choice("ab"))
            await nodes.pause()
            nodes.known_leader_of.update(nodes.leader_of)
            await lanes.keep({NODES[name] for name in nodes.known_leader_of.values()})
        nodes.calm = True
        for session_id in SESSIONS:
            nodes.move(session_id, "c")
            nodes.known_leader_of[session_id] = "c"
        await lanes.keep({NODES["c"]})

    tasks = [asyncio.create_task(work) for work in (lanes.take(caller.batches()), caller.read(), move())]
    async with asyncio.timeout(10):
        while not caller.done:
            caller.send()
            await nodes.pause()
        caller.finish()
        await asyncio.gather(*tasks)
    assert nodes.entries == caller.written


def test_a_session_that_is_owed_no_answer_leaves_no_trace() -> None:
    unanswered = UnansweredAppends()
    unanswered.add(1, "a")
    unanswered.add(2, "a")
    unanswered.add(3, "b")
    assert unanswered.request_ids == [1, 2, 3]
    assert unanswered.remove(1) == "a"
    assert unanswered.has_session("a")
    assert unanswered.remove(2) == "a"
    assert not unanswered.has_session("a")
    assert unanswered.remove(2) is None
    assert unanswered.remove(3) == "b"
    assert not len(unanswered)


def test_an_id_that_is_given_twice_is_owed_one_answer() -> None:
    unanswered = UnansweredAppends()
    unanswered.add(1, "a")
    unanswered.add(1, "a")
    unanswered.add(1, "b")
    assert not unanswered.has_session("a")
    assert unanswered.remove(1) == "b"
    assert not unanswered.has_session("b")
