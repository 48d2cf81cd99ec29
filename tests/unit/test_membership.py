"""One group's life on a node, with stand-ins for following and leading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

import pytest
from structlog.testing import capture_logs

from agent_core.database.build import DatabaseError
from agent_core.lag import Lag
from agent_core.position import START, Position
from ops import candidacy, membership
from ops.following import FollowingGroup
from ops.lasting_tasks import LastingTasks
from ops.leading import LeadingGroup, TermEnded
from ops.membership import GroupMember
from primary.opening import Opened
from replica.following import FollowerState
from tests.waiting import until

FULL_DISK = DatabaseError("database or disk is full")


class Life:
    """A member whose elections are won, and whose terms end as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(membership, "START_AGAIN_SECONDS", 0.01)
        context = self.context = MagicMock(group=0, node_id="a")
        context.log.last, context.log.refusal = START, None
        context.configuration.election.failure_timeout_seconds = 1.0
        context.cluster.voters.return_value = [SimpleNamespace(node_id=name) for name in "abc"]
        context.voter = SimpleNamespace(
            promise=SimpleNamespace(epoch=0),
            adopt=AsyncMock(),
            release=MagicMock(),
            watch=SimpleNamespace(binding_seconds=lambda _now: 0.0),
        )
        context.view.placement.return_value.epoch = 0
        self.followings = 0
        self.contained: Position | None = None
        self.may_follow = asyncio.Event()
        self.may_follow.set()
        self.term: asyncio.Future[TermEnded | Exception] = asyncio.get_running_loop().create_future()
        self.lag = Lag(0, 0, 0.0)
        self.bring_up = AsyncMock(return_value=frozenset())
        self.lease_until = float("-inf")
        self.leading = MagicMock(
            spec=LeadingGroup,
            stop=AsyncMock(),
            hand_over=AsyncMock(),
            run=self._run,
            began_at=asyncio.get_running_loop().time(),
            lease=SimpleNamespace(valid_until=lambda: self.lease_until),
        )
        self.leads = MagicMock(return_value=self.leading)
        self.stop_following = AsyncMock()
        monkeypatch.setattr(FollowingGroup, "start", self._follow)
        monkeypatch.setattr(membership, "LeadingGroup", self.leads)
        monkeypatch.setattr(candidacy, "open_epoch", AsyncMock(return_value=Opened(5)))
        self.registry = MagicMock(release=AsyncMock())
        self.tasks = LastingTasks()
        self.on_news = MagicMock()
        self.member = GroupMember(context, self.registry, self.tasks, on_news=self.on_news)

    async def _follow(self, _context: object, *, contained: Position | None) -> MagicMock:
        await self.may_follow.wait()
        self.followings += 1
        self.contained = contained
        shards = MagicMock(bring_up=self.bring_up)
        follower = MagicMock(state=FollowerState.FOLLOWING, silent_seconds=0.0, primary="b", lag=lambda: self.lag)
        return MagicMock(able=True, pause=AsyncMock(), stop=self.stop_following, shards=shards, follower=follower)

    async def _run(self) -> TermEnded:
        serving = asyncio.create_task(self.leads.call_args.kwargs["on_begun"]())
        try:
            ended = await self.term
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended
        return ended

    async def follow(self) -> None:
        self.member.start()
        await until(lambda: self.member.following is not None)

    async def lead(self) -> None:
        await self.follow()
        self.member.nominate(1)
        await until(lambda: self.member.leading is not None)


class Clock:
    """The member's clock; it stands still until a test moves it."""

    def __init__(self, life: Life) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        self.create_future = loop.create_future
        life.member._loop = cast("Any", self)

    def time(self) -> float:
        return self.now


@pytest.fixture
async def life(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Life]:
    life = Life(monkeypatch)
    yield life
    life.leading.drain = AsyncMock()
    await life.member.stop(0.0)


@pytest.mark.parametrize("error", [FULL_DISK, ValueError("odd"), AssertionError("never"), OSError("gone")])
async def test_a_term_that_ends_by_any_error_is_told_and_the_node_follows_again(
    life: Life, error: Exception
) -> None:
    """The SQLite build's errors are neither the project's own nor the system's."""
    await life.lead()
    with capture_logs() as logs:
        life.may_follow.clear()
        life.term.set_result(error)
        await until(lambda: life.member.failure is not None)
        assert str(error) in str(life.member.failure)
        assert list(life.member.not_ready()) == [life.member.failure]
        life.may_follow.set()
        await until(lambda: life.member.following is not None)
    assert [entry["log_level"] for entry in logs if entry["event"] == "group failed"] == ["error"]
    assert (life.followings, life.member.failure, life.member.leading) == (2, None, None)
    assert not life.member.report().able, "another node should lead"


async def test_after_its_term_a_node_knows_that_its_shards_contain_its_log(life: Life) -> None:
    await life.lead()
    assert life.contained is None, "nothing is known of what was there at the start"
    life.context.log.last = Position(5, 70)
    life.term.set_result(TermEnded("no majority of the voters was heard"))
    await until(lambda: life.followings == 2)
    assert life.contained == Position(5, 70)


async def test_what_a_node_has_between_its_roles_is_as_old_as_it_was_as_a_standby_whoever_looks(life: Life) -> None:
    clock = Clock(life)
    await life.follow()
    life.lag = Lag(transactions=7, bytes=700, seconds=40.0)
    assert life.member.age_seconds == 40.0
    life.may_follow.clear()
    life.bring_up.side_effect = FULL_DISK
    life.member.nominate(1)
    await until(lambda: life.member.failure is not None)
    assert life.member.age_seconds == pytest.approx(40.0)
    clock.now += 5
    assert [life.member.age_seconds for _ in range(2)] == pytest.approx([45.0, 45.0])


async def test_what_a_node_has_after_its_term_is_as_old_as_its_lease(life: Life) -> None:
    clock = Clock(life)
    await life.lead()
    clock.now += 1000
    life.lease_until = clock.now + 50
    clock.now += 60
    assert life.member.age_seconds == pytest.approx(10.0)
    life.may_follow.clear()
    life.term.set_result(TermEnded("no majority of the voters was heard"))
    await until(lambda: life.member.leading is None)
    assert life.member.age_seconds == pytest.approx(10.0)
    clock.now += 5
    assert life.member.age_seconds == pytest.approx(15.0)


async def test_a_lease_that_was_still_valid_makes_nothing_newer_than_the_end_of_the_term(life: Life) -> None:
    """A single voter's never ends."""
    clock = Clock(life)
    await life.lead()
    life.lease_until = float("inf")
    assert life.member.age_seconds == 0.0
    life.may_follow.clear()
    life.term.set_result(TermEnded("the disk failed"))
    await until(lambda: life.member.leading is None)
    clock.now += 5
    assert life.member.age_seconds == pytest.approx(5.0)


async def test_it_does_not_when_they_could_not_be_closed(life: Life) -> None:
    await life.lead()
    life.leading.stop.side_effect = [OSError("the disk is gone"), None]
    life.term.set_result(TermEnded("no majority of the voters was heard"))
    await until(lambda: life.followings == 2)
    assert life.contained is None


async def test_a_node_that_cannot_keep_its_own_promise_does_not_stand_again_at_once(life: Life) -> None:
    life.context.voter.adopt.side_effect = OSError("no space left on device")
    await life.follow()
    assert life.member.report().able
    life.member.nominate(1)
    await until(lambda: life.followings == 2 and life.member.following is not None)
    assert not life.member.report().able
    assert life.member.leading is None


@pytest.mark.parametrize("fails", [True, False])
async def test_a_nomination_of_a_node_that_is_elected_already_is_answered_and_makes_no_later_election(
    life: Life, *, fails: bool
) -> None:
    """By the time that it follows again the supervisor has long turned to others."""
    may_lead = asyncio.Event()

    async def bring_up_slowly() -> frozenset[int]:
        await may_lead.wait()
        if fails:
            raise FULL_DISK
        return frozenset()

    life.bring_up.side_effect = bring_up_slowly
    await life.follow()
    life.member.nominate(1)
    await until(lambda: life.bring_up.called)
    life.member.nominate(2)
    may_lead.set()
    life.term.set_result(TermEnded("no majority of the voters was heard"))
    await until(lambda: life.followings == 2 and life.member.following is not None)
    assert life.member.report().answered == 2
    for _ in range(10):
        await asyncio.sleep(0)
    assert (life.member.candidacy.won, life.followings) == (1, 2)


@pytest.mark.parametrize("leads", [True, False])
async def test_a_node_that_stops_does_so_although_its_shards_cannot_be_closed(life: Life, *, leads: bool) -> None:
    """It would follow again for ever, and only a kill would end its process."""
    await (life.lead() if leads else life.follow())
    life.leading.drain = AsyncMock()
    closes = life.leading.stop if leads else life.stop_following
    closes.side_effect = [FULL_DISK, None]
    async with asyncio.timeout(2):
        await life.member.stop(0.0)
    assert (life.followings, life.member.following, life.member.leading) == (1, None, None)


async def test_a_nominee_asks_the_primary_at_once_whether_it_still_leads(life: Life) -> None:
    """Its stream may have ended without a reason, and the answer frees its vote."""
    await life.follow()
    assert life.member.following is not None
    follower = life.member.following.follower
    life.member.nominate(1)
    await until(lambda: life.member.leading is not None)
    follower.try_now.assert_called_once_with(elsewhere=False)  # type: ignore[attr-defined] # a mock


async def test_a_node_whose_log_refuses_to_go_on_does_not_stand(life: Life) -> None:
    await life.follow()
    life.context.log.refusal = "the log could not be made durable"
    assert not life.member.report().able


async def test_a_standby_is_closed_to_its_end_although_the_term_that_closes_it_ends_meanwhile(life: Life) -> None:
    """Nobody else closes it: it would go on applying, with its connections to the shards open."""
    closing, may_close, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def close_slowly() -> None:
        closing.set()
        await may_close.wait()
        closed.set()

    life.stop_following.side_effect = close_slowly
    await life.lead()
    await closing.wait()
    life.term.set_result(TermEnded("epoch 7 was promised to another primary"))
    for _ in range(10):
        await asyncio.sleep(0)
    followings = life.followings
    may_close.set()
    assert followings == 1, "the shards have one owner at a time"
    await until(lambda: life.followings == 2)
    assert closed.is_set()


@pytest.mark.parametrize("ended", [TermEnded("no majority of the voters was heard"), FULL_DISK, None])
async def test_however_a_term_ends_this_nodes_own_lease_binds_its_vote_no_longer(
    life: Life, ended: TermEnded | Exception | None
) -> None:
    """Reads under it end first. Else every election after a step-down would wait for this vote, or do without."""
    steps = MagicMock()
    steps.attach_mock(life.registry.step_down, "ends_reads")
    steps.attach_mock(life.context.voter.release, "lets_its_vote_go")
    steps.attach_mock(life.on_news, "tells_the_supervisor")
    steps.attach_mock(life.leading.stop, "closes_its_shards")
    await life.lead()
    steps.reset_mock()
    if ended is None:
        life.member.hand_over(2, "b")
    else:
        life.term.set_result(ended)
    await until(lambda: life.member.leading is None)
    assert [name for name, _, _ in steps.method_calls[:4]] == [
        "ends_reads",
        "lets_its_vote_go",
        "tells_the_supervisor",
        "closes_its_shards",
    ]


async def test_a_primary_whose_shards_cannot_be_closed_follows_again(life: Life) -> None:
    life.leading.stop.side_effect = FULL_DISK
    await life.lead()
    life.term.set_result(TermEnded("no majority of the voters was heard"))
    await until(lambda: life.followings == 2 and life.member.following is not None)
    assert life.member.leading is None
    life.registry.release.assert_awaited_once_with(0)
