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
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog

from agent_core.errors import HeadwaterError, Unavailable
from agent_core.position import Position
from agent_core.rpc_errors import end_if_cancelled
from agent_core.uninterrupted import to_its_end
from ops.candidacy import Candidacy
from ops.following import FollowingGroup
from ops.group_context import GroupContext
from ops.lasting_tasks import LastingTask, LastingTasks
from ops.leading import LeadingGroup
from ops.preparing import prepare
from primary.electing.exchange import GroupReport
from primary.registry import SessionRegistry
from replica.following import FollowerState

log = structlog.get_logger(__name__)

START_AGAIN_SECONDS = 1.0
SETTLE_SECONDS = 1.0
"""How long a standby that says hello to a node on its way to lead waits for that, instead of being refused."""
TROUBLE_SECONDS = 30.0
"""How long a node that its disk, or any other error, kept from leading does not stand for election."""


class GroupMember:
    """This node's part in one group. Everything runs on the event loop.

    Attributes:
        following: While this node follows, or stands for election.
        leading: While this node leads.
        failure: Why this node takes no part in the group for the moment; None while it does.
        sealed_epoch: The epoch that this node leads, from a majority's seals until it hands over; 0 while it leads
            none.
        candidacy: How this node stands for election, and what came of it.
        step_downs: Terms as primary that ended, for whatever reason.
    """

    def __init__(
        self,
        context: GroupContext,
        registry: SessionRegistry,
        tasks: LastingTasks,
        *,
        on_news: Callable[[], None],
    ) -> None:
        """Take part in a group.

        Args:
            context: What both roles need.
            registry: Told when this node leads the group, and when it no longer does.
            tasks: Where the group's life runs.
            on_news: Called when the supervisor should hear of a change at once.
        """
        self.context = context
        self.following: FollowingGroup | None = None
        self.leading: LeadingGroup | None = None
        self.failure: str | None = None
        self.candidacy = Candidacy(context)
        self.step_downs = 0
        self._registry = registry
        self._tasks = tasks
        self._on_news = on_news
        self._loop = asyncio.get_running_loop()
        self._nominated = asyncio.Event()
        self._nomination = 0
        self._hand_over: asyncio.Future[str] | None = None
        self._current_until = self._loop.time()
        self._answered = 0
        self.sealed_epoch = 0
        self._settled = asyncio.Event()
        self._settled.set()
        self._unable_until = float("-inf")
        self._life: LastingTask | None = None
        # Where the log ended when this node had written both it and the shards.
        self._written: Position | None = None
        context.voter.primary_is_gone = context.primary_is_gone

    def start(self) -> None:
        """Begin to follow."""
        self._life = self._tasks.start(f"the part in group {self.context.group}", self._live)

    async def stop(self, drain_seconds: float) -> None:
        """Leave whatever role it has, in order.

        Args:
            drain_seconds: How long a primary waits for what it has written to be acknowledged.
        """
        if self.leading is not None:
            await self.leading.drain(drain_seconds)
        if self._life is not None:
            await self._life.stop()

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
            self._hand_over.set_result(to)

    def report(self) -> GroupReport:
        """What the supervisor shall know."""
        following = self.following
        hears, silent_seconds = "", 0.0
        if following is not None:
            resyncing = following.follower.state is FollowerState.RESYNCING
            silent = 0.0 if resyncing else following.follower.silent_seconds
            hears = "" if silent is None else following.follower.primary
            silent_seconds = silent or 0.0
        return GroupReport(
            group=self.context.group,
            leads_epoch=self.sealed_epoch,
            last=self.context.log.last,
            hears=hears,
            silent_seconds=silent_seconds,
            answered=self._answered,
            able=following is not None and following.able and self._disk_works,
        )

    @property
    def _disk_works(self) -> bool:
        return self.context.log.refusal is None and self._loop.time() >= self._unable_until

    @property
    def age_seconds(self) -> float:
        """How old what this node has of the group is: the lag of a standby, a primary's time without its lease.

        Between roles it goes on from what it was when the last one ended.
        """
        if self.following is not None:
            return self.following.follower.lag().seconds
        current_until = self._current_until
        if self.leading is not None and self.sealed_epoch:
            current_until = _current_until(self.leading)
        return max(0.0, self._loop.time() - current_until)

    def not_ready(self) -> Iterator[str]:
        """Why the group is not served from here as it should be, as far as that is not its role's own matter."""
        if self.failure is not None:
            yield self.failure
        elif self.following is None and not self.sealed_epoch:
            yield "changes its role"
        elif self.candidacy.not_elected is not None and not self.following_well:
            yield f"this node was not elected: {self.candidacy.not_elected}"

    @property
    def following_well(self) -> bool:
        """Whether this node follows a primary at this moment."""
        return self.following is not None and self.following.follower.state is FollowerState.FOLLOWING

    async def prepare(self, session_ids: Sequence[str]) -> int:
        """Read sessions that this node may serve soon; how many were read in time.

        Raises:
            Unavailable: It follows nobody at the moment.
        """
        if not self.following_well:
            raise Unavailable(f"{self.context.node_id} does not follow group {self.context.group} at the moment")
        return await prepare(self.context, self._registry, session_ids)

    async def settled(self) -> None:
        """Wait a moment while this node stands for election, or opens its epoch: then it is known who leads."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._settled.wait()

    def placement_changed(self) -> None:
        """The map names another primary: follow that one at once, and tell callers."""
        placement = self.context.view.placement(self.context.group)
        if placement.epoch > self.sealed_epoch and placement.primary != self.context.node_id:
            self._registry.succession.end(self.context.group)
        if self.following is not None:
            self.following.primary_changed()
        if self.leading is not None:
            self.leading.placed(placement)

    async def _live(self) -> None:
        while True:
            try:
                await self._follow_until_elected()
                self.failure = None
            except Exception as error:
                # Whatever it was, a group that this node takes no part in must say so, and be tried again.
                known = isinstance(error, HeadwaterError | OSError)
                self.failure = str(error) if known else f"{type(error).__name__}: {error}"
                self._unable_until = self._loop.time() + TROUBLE_SECONDS
                log.exception("group failed", group=self.context.group)
                # It may have failed to close its shards as the node stops: then there is no next time.
                end_if_cancelled()
            finally:
                self.sealed_epoch = 0
                self._settled.set()
                self._registry.step_down(self.context.group)
            self._on_news()
            await asyncio.sleep(START_AGAIN_SECONDS if self.failure else 0)

    async def _follow_until_elected(self) -> None:
        """Follow until a nomination was won; then lead until that is over."""
        written, self._written = self._written, None
        following = await FollowingGroup.start(self.context, contained=written)
        self.following, self.failure = following, None
        closing = contextlib.AsyncExitStack()
        # To its end: once that has begun nobody else closes it, and the term that does may end meanwhile.
        closing.push_async_callback(lambda: to_its_end(following.stop()))
        self._on_news()
        try:
            epoch = await self._until_elected(following)
            unlogged = await following.shards.bring_up()
            self._follows_no_more()
            # The shards stay open until they are open for writing too: whoever closes one last must checkpoint it.
            await self._lead(epoch, unlogged, closing.aclose)
        finally:
            self._follows_no_more()
            await closing.aclose()

    def _follows_no_more(self) -> None:
        if self.following is not None:
            self._current_until = self._loop.time() - self.following.follower.lag().seconds
            self.following = None
        if self._nominated.is_set():
            # It came when this node was elected already, or failed, and is not meant for when it follows again.
            self._nominated.clear()
            self._answer(self._nomination)

    async def _until_elected(self, following: FollowingGroup) -> int:
        """Stand for election whenever this node is nominated; the epoch that it leads in the end."""
        while True:
            await self._nominated.wait()
            self._nominated.clear()
            number, epoch = self._nomination, None
            # Where the stream to the primary has ended it may say that it leads nothing, which frees this vote.
            following.follower.try_now(elsewhere=False)
            if following.able and await self.candidacy.may_stand():
                self._settled.clear()
                await following.pause()
                epoch = await self.candidacy.stand()
                if epoch is None:
                    self._settled.set()
                    following.resume()
                else:
                    self.sealed_epoch = epoch
                    self._registry.succession.begin(self.context.group)
            self._answer(number)
            if epoch is not None:
                return epoch

    async def _lead(
        self, epoch: int, unlogged: frozenset[int], close_standby: Callable[[], Awaitable[None]]
    ) -> None:
        async def begun() -> None:
            self._settled.set()
            await close_standby()

        leading = self.leading = LeadingGroup(self.context, self._registry, epoch, unlogged, on_begun=begun)
        self._hand_over = self._loop.create_future()
        term = asyncio.create_task(leading.run(), name=f"lead group {self.context.group}")
        try:
            hand_over = self._hand_over
            await asyncio.wait((term, hand_over), return_when=asyncio.FIRST_COMPLETED)
            self.step_downs += 1
            if hand_over.done() and not term.done():
                await leading.hand_over(hand_over.result())
            else:
                ended = await term
                log.warning("steps down", group=self.context.group, epoch=epoch, reason=ended.reason)
                if ended.disk_failed:
                    self._unable_until = self._loop.time() + TROUBLE_SECONDS
        finally:
            self.sealed_epoch = 0
            # A lease that would last longer is given up with the term.
            self._current_until = min(self._loop.time(), _current_until(leading))
            term.cancel()
            await asyncio.gather(term, return_exceptions=True)
            # Nobody reads under its own lease any more, so that binds its vote no longer. Its successor need not
            # wait until this node has closed its shards.
            self._registry.step_down(self.context.group)
            self.context.voter.release()
            self._on_news()
            self._hand_over = None
            try:
                await leading.stop()
                self._written = self.context.log.last
            finally:
                self.leading = None
                await self._registry.release(self.context.group)

    def _answer(self, number: int) -> None:
        self._answered = number
        self._on_news()


def _current_until(leading: LeadingGroup) -> float:
    """The moment up to which what a primary has is the newest that there is; infinity for a single voter."""
    return max(leading.lease.valid_until(), leading.began_at)
