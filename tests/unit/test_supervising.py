"""A switch-over waits for what stands in its way for a moment, and says why it did not come about.

Who attends is let go when the supervision ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import cast

import pytest

from agent_core.control.cluster_map import ClusterMap, Member, Placement
from agent_core.control.commands import Form
from agent_core.errors import InvalidRequest, NotPrimary, Unavailable
from agent_core.position import Position
from agent_core.rpc import control_pb2 as pb
from ops.control.raft import ReplicatedMap
from ops.control.supervising import Supervising
from primary.electing.exchange import GroupReport
from tests.waiting import until

NAMES = ("a", "b", "c")


class LedHere:
    """The map as the Raft leader has it, without other members."""

    def __init__(self) -> None:
        self.map = placed(1, Placement(3, "a"))
        self.is_leader = True
        self.leader = "a"
        self.listeners: list[Callable[[], None]] = []
        self.leader_listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def on_leader_change(self, listener: Callable[[], None]) -> None:
        self.leader_listeners.append(listener)

    async def propose(self, _command: object) -> ClusterMap:
        return self.map

    def becomes(self, cluster_map: ClusterMap) -> None:
        self.map = cluster_map
        for listener in self.listeners:
            listener()


def placed(version: int, placement: Placement) -> ClusterMap:
    members = tuple(Member(name, "127.0.0.1:1", "127.0.0.1:2", True, None) for name in NAMES)
    return ClusterMap(version, "test", 16, members, (placement,))


@pytest.fixture
async def led() -> LedHere:
    return LedHere()


@asynccontextmanager
async def supervision(led: LedHere) -> AsyncIterator[Supervising]:
    """Runs within."""
    supervising = Supervising(
        cast("ReplicatedMap", led), cast("Form", None), failure_timeout_seconds=5.0, on_map=lambda _map: None
    )
    running = asyncio.create_task(supervising.run())
    await until(lambda: supervising.supervisor is not None)
    yield supervising
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def supervising(led: LedHere) -> AsyncIterator[Supervising]:
    async with supervision(led) as supervising:
        yield supervising


def attends(supervising: Supervising, *names: str) -> None:
    supervisor, now = supervising.supervisor, asyncio.get_running_loop().time()
    assert supervisor is not None
    for name in names:
        supervisor.attend(name, now)
        leads = 3 if name == "a" else 0
        supervisor.report(name, [GroupReport(0, leads_epoch=leads, last=Position(3, 9), hears="a")], now)


async def test_a_successor_that_comes_back_in_time_is_waited_for(led: LedHere, supervising: Supervising) -> None:
    attends(supervising, "a", "c")
    moving = asyncio.create_task(supervising.switch_over(0, "b"))
    await asyncio.sleep(0)
    assert not moving.done()
    attends(supervising, "b")
    supervisor = supervising.supervisor
    assert supervisor is not None
    await until(lambda: supervisor.heir(0) == "b")
    led.becomes(placed(2, Placement(4, "b")))
    assert (await moving).placements[0].primary == "b"


async def test_when_another_node_came_to_lead_the_wish_is_repeated(led: LedHere, supervising: Supervising) -> None:
    attends(supervising, *NAMES)
    moving = asyncio.create_task(supervising.switch_over(0, "b"))
    supervisor = supervising.supervisor
    assert supervisor is not None
    await until(lambda: supervisor.heir(0) == "b")
    led.becomes(placed(2, Placement(4, "c")))
    assert not moving.done()
    await until(lambda: supervisor.heir(0) == "b")
    led.becomes(placed(3, Placement(5, "b")))
    await moving


async def test_what_kept_a_switch_over_from_coming_about_is_said(
    supervising: Supervising, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.control.supervising.SWITCHOVER_SECONDS", 0.1)
    attends(supervising, "a", "c")
    with pytest.raises(Unavailable, match=r"not handed over to b within 0.1 s: b does not attend"):
        await supervising.switch_over(0, "b")


async def test_what_can_never_be_is_refused_at_once(supervising: Supervising) -> None:
    with pytest.raises(InvalidRequest, match="allowed are the voters a, b, c"):
        await supervising.switch_over(0, "d")


async def test_a_leader_that_is_deposed_meanwhile_says_so(led: LedHere, supervising: Supervising) -> None:
    attends(supervising, "a", "c")
    moving = asyncio.create_task(supervising.switch_over(0, "b"))
    await asyncio.sleep(0)
    led.is_leader = False
    for listener in led.leader_listeners:
        listener()
    with pytest.raises(NotPrimary, match="not the Raft leader"):
        await moving


async def says_nothing() -> AsyncIterator[pb.FromNode]:
    await asyncio.Event().wait()
    yield pb.FromNode()


async def test_when_the_supervision_ends_so_do_the_attendances_and_no_other_begins(led: LedHere) -> None:
    attendance = pb.Attendance(cluster_id="test", node_id="b", instance="b's only process")
    async with supervision(led) as supervising:
        attending = supervising.attend(attendance, says_nothing())
        assert (await anext(attending)).HasField("cluster_map")
    async with asyncio.timeout(5), aclosing(attending):
        assert [message async for message in attending] == []
    with pytest.raises(NotPrimary):
        await anext(supervising.attend(attendance, says_nothing()))
