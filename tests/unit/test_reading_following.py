"""Following a session while the group's history changes hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_core.errors import Overloaded, PositionLost
from agent_core.position import EpochStart, EpochTable, Position
from agent_core.routing import ShardLayout
from replica.reading import live_follow
from replica.reading.positions import AppliedPositions
from replica.reading.reading import Reading
from tests.reading_shards import WrittenShards
from tests.waiting import until

LAYOUT = ShardLayout(shard_count=4, shard_group_count=1)
SESSION = "followed"
SHARD = LAYOUT.shard_of(SESSION)
NEIGHBOUR = next(name for n in range(99) if LAYOUT.shard_of(name := f"neighbour-{n}") == SHARD)
ELSEWHERE = next(name for n in range(99) if LAYOUT.shard_of(name := f"elsewhere-{n}") != SHARD)


class FollowedLog:
    """The history of a node's log, up to lsn 100, of epoch 1 until a later one replaces its end."""

    def __init__(self) -> None:
        self._table = EpochTable(Position(0, 0), (EpochStart(1, 1),), Position(1, 100))

    def begin(self, epoch: int, first_lsn: int) -> None:
        self._table = EpochTable(
            self._table.base, (*self._table.starts, EpochStart(epoch, first_lsn)), Position(epoch, 100)
        )

    def is_lost(self, position: Position) -> bool:
        return not self._table.contains(position)

    def never_comes(self, position: Position) -> bool:
        return self._table.replaces(position)


class Node:
    """A node's shards, and what it lets readers see of them."""

    def __init__(self, directory: Path) -> None:
        self.shards = WrittenShards(directory, LAYOUT)
        self.shards.create_every_shard()
        self.log = FollowedLog()
        self.applied = AppliedPositions(1)
        self.applied.judge_by(0, self.log)
        self.applied.written_by(0, self.shards.rows.get)
        self.reading = Reading.open(directory, LAYOUT, self.applied)

    @property
    def position(self) -> Position:
        return self.shards.position(0)

    def apply(self) -> None:
        self.applied.advance(0, self.position)

    def append(self, session_id: str, *payloads: str) -> None:
        self.shards.append(session_id, *payloads)
        self.apply()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    for session_id in (SESSION, NEIGHBOUR, ELSEWHERE):
        made.shards.create(session_id)
    made.append(SESSION, "1", "2")
    yield made
    await made.reading.close()
    made.shards.close()


async def test_a_follower_that_has_everything_goes_on_in_the_next_epoch(node: Node) -> None:
    answers = node.reading.follow(SESSION)
    assert [entry.seq for entry in (await anext(answers)).entries] == [1, 2]
    assert (await anext(answers)).entries == []
    waiting = asyncio.ensure_future(anext(answers))
    await until(lambda: node.applied.waiting)
    node.shards.epoch = 2
    node.log.begin(2, node.position.lsn + 1)
    node.shards.append(SESSION, "3")
    node.apply()
    assert [entry.seq for entry in (await waiting).entries] == [3]
    await answers.aclose()


async def test_a_follower_waits_while_a_shard_holds_what_may_not_be_seen(node: Node) -> None:
    answers = node.reading.follow(SESSION)
    assert [entry.seq for entry in (await anext(answers)).entries] == [1, 2]
    assert (await anext(answers)).entries == []
    kept = node.position
    node.shards.append(SESSION, "written by a primary that was replaced then")
    node.log.begin(2, kept.lsn + 1)
    node.applied.advance(0, Position(2, kept.lsn + 1))
    waiting = asyncio.ensure_future(anext(answers))
    reads = node.reading.pool.reads
    await until(lambda: node.reading.pool.reads >= reads + 3)
    assert not waiting.done()
    with node.shards.writing(SHARD) as connection:  # as a resync does
        node.shards.epoch = 2
        connection.execute("UPDATE entries SET payload = '3' WHERE seq = 3")
    node.apply()
    assert [(entry.seq, entry.payload_json) for entry in (await waiting).entries] == [(3, b"3")]


async def test_a_follower_that_was_shown_what_a_later_primary_undid_is_told_to_read_anew(node: Node) -> None:
    answers = node.reading.follow(SESSION)
    assert [entry.seq for entry in (await anext(answers)).entries] == [1, 2]
    assert (await anext(answers)).entries == []
    node.log.begin(2, node.position.lsn)
    node.shards.epoch = 2
    node.shards.append(SESSION, "another 3")
    node.apply()
    with pytest.raises(PositionLost, match="read again from the beginning"):
        await anext(answers)


async def test_appends_to_other_shards_make_no_read_of_a_followed_session(node: Node) -> None:
    answers = node.reading.follow(SESSION)
    assert [entry.seq for entry in (await anext(answers)).entries] == [1, 2]
    assert (await anext(answers)).entries == []
    waiting = asyncio.ensure_future(anext(answers))
    await until(lambda: node.applied.waiting)
    reads = node.reading.pool.reads
    for number in range(20):
        node.append(ELSEWHERE, str(number))
        await asyncio.sleep(live_follow.FOLLOW_SECONDS / 5)
    assert node.reading.pool.reads == reads
    node.append(SESSION, "3")
    assert [entry.seq for entry in (await waiting).entries] == [3]
    assert node.reading.pool.reads == reads + 1
    await answers.aclose()


@pytest.mark.parametrize("busy", [NEIGHBOUR, ELSEWHERE])
async def test_a_follower_of_an_idle_session_is_told_so_at_the_present_position_however_busy_others_are(
    node: Node, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_follow, "IDLE_SECONDS", 0.3)
    answers = node.reading.follow(SESSION, after_seq=2)
    assert (await anext(answers)).entries == []
    waiting = asyncio.ensure_future(anext(answers))
    before = node.position
    async with asyncio.timeout(10):
        while not waiting.done():
            node.append(busy, "more")
            await asyncio.sleep(0.01)
    told = await waiting
    assert told.entries == []
    assert before < told.position.position <= node.position
    await answers.aclose()


async def test_who_resumes_after_what_a_later_primary_undid_is_told_so_before_anything_else(node: Node) -> None:
    shown = node.position
    node.log.begin(2, shown.lsn)
    node.shards.epoch = 2
    node.append(SESSION, "another 3", "and a 4")
    with pytest.raises(PositionLost, match=f"never reach {shown}"):
        await anext(node.reading.follow(SESSION, after_seq=3, after_position=shown))


async def test_who_resumes_at_a_node_that_lags_waits_until_its_history_tells_whether_what_was_shown_is_lost(
    node: Node,
) -> None:
    ahead = Position(1, node.position.lsn + 3)
    answers = node.reading.follow(SESSION, after_seq=7, after_position=ahead)
    assert (await anext(answers)).entries == []
    waiting = asyncio.ensure_future(anext(answers))
    await until(lambda: node.applied.waiting)
    node.append(SESSION, "3")
    node.log.begin(2, node.position.lsn + 1)
    node.shards.epoch = 2
    node.append(SESSION, "another 4")
    with pytest.raises(PositionLost, match=f"never reach {ahead}"):
        await waiting


async def test_who_resumes_after_what_was_kept_hears_what_followed(node: Node) -> None:
    shown = node.position
    node.log.begin(2, shown.lsn + 1)
    node.shards.epoch = 2
    node.append(SESSION, "3")
    answers = node.reading.follow(SESSION, after_seq=2, after_position=shown)
    assert [entry.seq for entry in (await anext(answers)).entries] == [3]
    await answers.aclose()


async def test_followers_are_bounded_and_who_leaves_makes_room(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_follow, "MAX_FOLLOWERS", 2)
    followers = [node.reading.follow(SESSION) for _ in range(3)]
    for follower in followers[:2]:
        await anext(follower)
    with pytest.raises(Overloaded, match="2 readers follow sessions on this node already"):
        await anext(followers[2])
    await followers[0].aclose()
    another = node.reading.follow(SESSION)
    await anext(another)
    assert node.reading.live_follow.following == 2
    await another.aclose()
    await followers[1].aclose()
    assert node.reading.live_follow.following == 0
