"""Whoever repeats an idempotency key is told once the entry is as safe as this caller asks, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import pytest

from agent_core.errors import OutcomeUnknown
from agent_core.quorum import Acknowledgement
from agent_core.rpc.session_pb2 import Session
from primary.writer import WriterSettings
from tests.unit.primary_harness import Primary, primary
from tests.waiting import until

VOTERS = ("node-1", "node-2", "node-3")
HOLDERS = {Acknowledgement.LOCAL: 1, Acknowledgement.QUORUM: 2, Acknowledgement.ALL: 3}
"""How many voters must hold an entry."""


def now_held_by(node: Primary, holders: int) -> None:
    """So many voters hold all of the log."""
    for voter in VOTERS[1:holders]:
        node.writer.durable(voter, node.log.last.lsn)


async def written(node: Primary, transactions: int) -> None:
    await until(lambda: node.writer.counters.transactions == transactions)
    await until(lambda: node.writer._tracker.safe_lsn(Acknowledgement.LOCAL) == node.log.last.lsn)


@asynccontextmanager
async def with_a_session(directory: Path, settings: WriterSettings) -> AsyncIterator[Primary]:
    async with primary(directory, voters=VOTERS, settings=settings) as node:
        created = asyncio.create_task(node.create("a"))
        await written(node, 1)
        now_held_by(node, 3)
        await created
        yield node


@pytest.mark.parametrize("cluster", [Acknowledgement.LOCAL, Acknowledgement.QUORUM])
@pytest.mark.parametrize(("first", "again"), [*product(Acknowledgement, repeat=2)])
@pytest.mark.parametrize("held_by", [0, 1, 2, 3])
async def test_each_caller_of_one_key_waits_for_what_it_asked(
    tmp_path: Path, cluster: Acknowledgement, first: Acknowledgement, again: Acknowledgement, held_by: int
) -> None:
    """The key is repeated when so many voters hold the entry; 0: it is not written yet."""
    async with with_a_session(tmp_path, WriterSettings(acknowledgement=cluster)) as node:
        requests = {node.submit("a", "x", key="k", mode=first): first}
        if not held_by:
            requests[node.submit("a", "x", key="k", mode=again)] = again
        await written(node, 2)
        for holders in (1, 2, 3):
            now_held_by(node, holders)
            if holders == held_by:
                requests[node.submit("a", "x", key="k", mode=again)] = again
            told = node.answers.outcomes
            assert set(told) == {request for request, mode in requests.items() if HOLDERS[mode] <= holders}
        assert [(told[request].seq, told[request].duplicate) for request in requests] == [(1, False), (1, True)]
        assert await node.texts("a") == [b'{"text":"x"}']


async def test_a_repeat_that_does_not_become_as_safe_as_it_asks_ends_as_unknown(tmp_path: Path) -> None:
    settings = WriterSettings(acknowledgement_timeout_seconds=0.1)
    async with with_a_session(tmp_path, settings) as node:
        node.submit("a", "x", key="k")
        await written(node, 2)
        now_held_by(node, 2)
        outcome = await node.append("a", "x", key="k", mode=Acknowledgement.ALL)
        assert isinstance(outcome.error, OutcomeUnknown)
        assert node.answers.outcomes[1].seq == 1


async def test_a_session_that_is_there_is_told_of_once_its_creation_is_as_safe_as_asked(tmp_path: Path) -> None:
    async with with_a_session(tmp_path, WriterSettings(acknowledgement=Acknowledgement.LOCAL)) as node:
        await node.append("a", "x")
        again = asyncio.create_task(node.registry.create(Session(session_id="a"), Acknowledgement.QUORUM))
        await asyncio.wait([again], timeout=0.05)
        assert not again.done(), "all that is visible must be safe, since where the creation stands is not known"
        now_held_by(node, 2)
        _, position, created = await again
        assert (position, created) == (node.log.last, False)
