"""One group on this node through its life: following, standing for election, leading, and following again.

One task takes the steps in order, so that the group's log and shards have one owner at a time.

              nomination          a majority's seals
    following ─────────▶ candidate ─────────▶ leading
        ▲                    │ refused           │ handed over, fenced, lease lost,
        │◀───────────────────┘                   │ disk failed
        └────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from agent_core.errors import HeadwaterError
from agent_core.rpc import replication_pb2 as pb
from ops.following import FollowingGroup
from ops.group_context import GroupContext
from ops.leading import LeadingGroup
from primary.electing.supervisor import GroupReport
from primary.opening import EpochOpening, Opened, open_epoch, seal_over_rpc
from primary.registry import SessionRegistry
from replica.following import FollowerState

log = structlog.get_logger(__name__)

START_AGAIN_SECONDS = 1.0
DISK_TROUBLE_SECONDS = 30.0
"""How long a node whose disk made it step down does not stand for election."""


@dataclass(frozen=True, slots=True)
class HandOverRequest:
    """The supervisor asks this primary to step down in favour of `to`."""

    number: int
    to: str


class GroupMember:
    """This node's part in one group. Everything runs on the event loop.

    Attributes:
        following: While this node follows, or stands for election.
        leading: While this node leads.
        failure: Why the group takes no part at all for the moment; None while it does.
    """

    def __init__(self, context: GroupContext, registry: SessionRegistry, *, on_news: Callable[[], None]) -> None:
        """Take part in a group.

        Args:
            context: What both roles need.
            registry: Told when this node leads the group, and when it no longer does.
            on_news: Called when the supervisor should hear of a change at once.
        """
        self.context = context
        self.following: FollowingGroup | None = None
        self.leading: LeadingGroup | None = None
        self.failure: str | None = None
        self._registry = registry
        self._on_news = on_news
        self._loop = asyncio.get_running_loop()
        self._nominated = asyncio.Event()
        self._nomination = 0
        self._hand_over: asyncio.Future[HandOverRequest] | None = None
        self._answered = 0
        self._sealed_epoch = 0
        self._unable_until = float("-inf")
        self._task: asyncio.Task[None] | None = None
        context.voter.primary_is_gone = context.primary_is_gone

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._live(), name=f"member of group {self.context.group}")

    async def stop(self, drain_seconds: float) -> None:
        """Leave whatever role it has, in order.

        Args:
            drain_seconds: How long a primary waits for what it has written to be acknowledged.
        """
        if self.leading is not None:
            await self.leading.drain(drain_seconds)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def nominate(self, number: int) -> None:
        """The supervisor wants this node to lead."""
        if self.following is None:
            self._answer(number)
            return
        self._nomination = number
        self._nominated.set()

    def hand_over(self, number: int, to: str) -> None:
        """The supervisor wants this primary to step down in favour of `to`."""
        if self._hand_over is None or self._hand_over.done():
            self._answer(number)
        else:
            self._hand_over.set_result(HandOverRequest(number, to))

    def report(self) -> GroupReport:
        """What the supervisor shall know."""
        following = self.following
        hears, silent_seconds = "", 0.0
        if following is not None:
            hears = following.follower.primary if following.follower.silent_seconds is not None else ""
            resyncing = following.follower.state is FollowerState.RESYNCING
            silent_seconds = 0.0 if resyncing else following.follower.silent_seconds or 0.0
        return GroupReport(
            group=self.context.group,
            leads_epoch=self._sealed_epoch,
            last=self.context.log.last,
            hears=hears,
            silent_seconds=silent_seconds,
            answered=self._answered,
            able=following is not None and following.able and self._loop.time() >= self._unable_until,
        )

    def placement_changed(self) -> None:
        """The map names another primary: follow that one at once."""
        if self.following is not None:
            self.following.follower.try_now()
        if self.leading is not None:
            self.leading.placed(self.context.view.placement(self.context.group))

    async def _live(self) -> None:
        while True:
            try:
                await self._follow_until_elected()
                self.failure = None
            except (HeadwaterError, OSError) as error:
                self.failure = str(error)
                log.exception("group failed", group=self.context.group)
            finally:
                self._sealed_epoch = 0
                self._registry.step_down(self.context.group)
            self._on_news()
            await asyncio.sleep(START_AGAIN_SECONDS if self.failure else 0)

    async def _follow_until_elected(self) -> None:
        """Follow until a nomination was won; then lead until that is over."""
        following = await FollowingGroup.start(self.context)
        self.following, self.failure = following, None
        self._on_news()
        try:
            epoch = await self._elected(following)
            unlogged = await following.shards.bring_up()
        finally:
            self.following = None
            await following.stop()
        await self._lead(epoch, unlogged)

    async def _elected(self, following: FollowingGroup) -> int:
        while True:
            await self._nominated.wait()
            self._nominated.clear()
            number = self._nomination
            epoch = await self._stand(following)
            if epoch is not None:
                self._sealed_epoch = epoch
                self._answer(number)
                return epoch
            self._answer(number)

    async def _stand(self, following: FollowingGroup) -> int | None:
        """Ask for the voters' seals: the epoch that this node leads now; None when it does not."""
        context = self.context
        if not following.able or (
            context.voter.watch.binding_seconds(self._loop.time()) and not await context.primary_is_gone()
        ):
            return None
        over_rpc = seal_over_rpc(context.peers.stub)

        async def ask(voter: str, request: pb.SealRequest) -> pb.SealResponse:
            return await (context.voter.seal(request) if voter == context.node_id else over_rpc(voter, request))

        await following.pause()  # The log must not grow while the voters are asked.
        try:
            async with asyncio.timeout(context.configuration.election.failure_timeout_seconds):
                outcome = await open_epoch(
                    EpochOpening(
                        voters=[node.node_id for node in context.cluster.voters()],
                        last=context.log.last,
                        promised_epoch=max(
                            context.voter.promise.epoch, context.view.placement(context.group).epoch
                        ),
                    ),
                    ask,
                    cluster_id=context.cluster.cluster_id,
                    group=context.group,
                    candidate=context.node_id,
                )
        except TimeoutError:
            outcome = None
        if isinstance(outcome, Opened):
            log.info("elected", group=context.group, epoch=outcome.epoch)
            return outcome.epoch
        log.info("not elected", group=context.group, outcome=repr(outcome))
        following.resume()
        return None

    async def _lead(self, epoch: int, unlogged: frozenset[int]) -> None:
        leading = self.leading = LeadingGroup(self.context, self._registry, epoch, unlogged)
        self._hand_over = self._loop.create_future()
        term = asyncio.create_task(leading.run(), name=f"lead group {self.context.group}")
        try:
            hand_over = self._hand_over
            await asyncio.wait((term, hand_over), return_when=asyncio.FIRST_COMPLETED)
            if hand_over.done() and not term.done():
                request = hand_over.result()
                await leading.hand_over(request.to)
                self.context.voter.watch.released()
            else:
                ended = await term
                log.warning("steps down", group=self.context.group, epoch=epoch, reason=ended.reason)
                if ended.disk_failed:
                    self._unable_until = self._loop.time() + DISK_TROUBLE_SECONDS
        finally:
            self._sealed_epoch = 0
            term.cancel()
            await asyncio.gather(term, return_exceptions=True)
            await leading.stop()
            self.leading = None
            self._hand_over = None

    def _answer(self, number: int) -> None:
        self._answered = number
        self._on_news()
