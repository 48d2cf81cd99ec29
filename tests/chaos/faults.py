"""What is done to the cluster. Each fault breaks something, waits, and mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc.aio

from tests.chaos.stage import GROUPS, NODES, Stage

Fault = Callable[[Stage], Awaitable[str]]
"""Returns when everything is mended and started again; says what it did."""

SHORT_SECONDS = (0.0, 1.5)
"""How long a killed node stays away: also less than it takes to elect another."""
LONG_SECONDS = (1.5, 3.0)
"""Longer than failure timeout and lease."""


async def _wait(stage: Stage, bounds: tuple[float, float]) -> None:
    await asyncio.sleep(stage.chance.uniform(*bounds))


async def _kill(stage: Stage, node: str) -> str:
    await stage.kill(node)
    await _wait(stage, SHORT_SECONDS)
    await stage.start(node)
    return node


async def kill_primary(stage: Stage) -> str:
    return await _kill(stage, await stage.primary())


async def kill_standby(stage: Stage) -> str:
    return await _kill(stage, await stage.standby())


async def kill_raft_leader(stage: Stage) -> str:
    return await _kill(stage, await stage.raft_leader())


async def kill_two_in_a_row(stage: Stage) -> str:
    """The second one dies soon after the first: most times before that one is back."""
    first = await stage.primary()
    await stage.kill(first)
    await _wait(stage, SHORT_SECONDS)
    second = stage.chance.choice([node for node in NODES if node != first])
    await stage.kill(second)
    await _wait(stage, SHORT_SECONDS)
    await stage.start(first, second)
    return f"{first}, {second}"


async def kill_all(stage: Stage) -> str:
    await stage.kill(*NODES)
    await stage.start()
    return "all"


async def _freeze(stage: Stage, node: str) -> str:
    stage.freeze(node)
    await _wait(stage, LONG_SECONDS)
    stage.thaw(node)
    return node


async def freeze_primary(stage: Stage) -> str:
    return await _freeze(stage, await stage.primary())


async def freeze_raft_leader(stage: Stage) -> str:
    return await _freeze(stage, await stage.raft_leader())


async def stutter_primary(stage: Stage) -> str:
    """A machine that is too busy: it runs a little, and stands still for a little less than a lease."""
    node = await stage.primary()
    for _ in range(5):
        stage.freeze(node)
        await _wait(stage, (0.1, 0.5))
        stage.thaw(node)
        await _wait(stage, (0.02, 0.1))
    return node


async def _partition(stage: Stage, node: str) -> str:
    stage.network.isolate(node)
    await _wait(stage, LONG_SECONDS)
    stage.network.heal()
    return node


async def isolate_primary(stage: Stage) -> str:
    return await _partition(stage, await stage.primary())


async def isolate_raft_leader(stage: Stage) -> str:
    return await _partition(stage, await stage.raft_leader())


async def isolate_all(stage: Stage) -> str:
    for node in NODES:
        stage.network.isolate(node)
    await _wait(stage, LONG_SECONDS)
    stage.network.heal()
    return "all"


async def mute_primary(stage: Stage) -> str:
    """It hears the others, and they do not hear it."""
    return await _one_way(stage, await stage.primary(), mute=True)


async def deafen_primary(stage: Stage) -> str:
    """The others hear it, and it does not hear them."""
    return await _one_way(stage, await stage.primary(), mute=False)


async def mute_raft_leader(stage: Stage) -> str:
    return await _one_way(stage, await stage.raft_leader(), mute=True)


async def _one_way(stage: Stage, node: str, *, mute: bool) -> str:
    for other in NODES:
        if other != node:
            stage.network.cut(*((node, other) if mute else (other, node)))
    await _wait(stage, LONG_SECONDS)
    stage.network.heal()
    return node


async def part_two_nodes(stage: Stage) -> str:
    """A primary and one other no longer hear each other; the third hears both."""
    node = await stage.primary()
    other = stage.chance.choice([one for one in NODES if one != node])
    stage.network.cut(node, other)
    stage.network.cut(other, node)
    await _wait(stage, LONG_SECONDS)
    stage.network.heal()
    return f"{node}, {other}"


async def fill_primarys_disk(stage: Stage) -> str:
    return await _fill(stage, await stage.primary())


async def fill_standbys_disk(stage: Stage) -> str:
    return await _fill(stage, await stage.standby())


async def _fill(stage: Stage, node: str) -> str:
    stage.fill_disk(node)
    await _wait(stage, LONG_SECONDS)
    stage.free_disk(node)
    return node


async def slow_primarys_disk(stage: Stage) -> str:
    """Its log takes long to sync, and it lives: nothing is wrong but the speed."""
    return await _slow(stage, await stage.primary())


async def slow_standbys_disk(stage: Stage) -> str:
    return await _slow(stage, await stage.standby())


async def _slow(stage: Stage, node: str) -> str:
    stage.slow_disk(node, stage.chance.uniform(0.05, 0.8))
    await _wait(stage, LONG_SECONDS)
    stage.slow_disk(node, 0)
    return node


async def step_primarys_clock(stage: Stage) -> str:
    """An hour ahead, an hour back, and right again: nobody may think that time passed."""
    node = await stage.primary()
    for seconds in stage.chance.sample((3600, -3600), 2):
        stage.step_clock(node, seconds)
        await _wait(stage, SHORT_SECONDS)
    stage.step_clock(node, 0)
    return node


async def switch_over(stage: Stage) -> str:
    group, to = stage.chance.randrange(GROUPS), stage.chance.choice(NODES)
    try:
        await stage.switch_over(group, to)
    except grpc.aio.AioRpcError as refusal:
        return f"group {group} to {to}: {refusal.details()}"
    return f"group {group} to {to}"


FAULTS: tuple[Fault, ...] = (
    kill_primary,
    isolate_primary,
    freeze_primary,
    kill_raft_leader,
    kill_two_in_a_row,
    mute_primary,
    fill_primarys_disk,
    kill_all,
    deafen_primary,
    switch_over,
    kill_standby,
    freeze_raft_leader,
    stutter_primary,
    isolate_raft_leader,
    mute_raft_leader,
    isolate_all,
    part_two_nodes,
    fill_standbys_disk,
    slow_primarys_disk,
    step_primarys_clock,
    slow_standbys_disk,
)
