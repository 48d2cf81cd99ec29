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
from dataclasses import dataclass

import structlog

from agent_core.errors import HeadwaterError, Unavailable
from agent_core.log.durable_mark import MARK_FILE
from agent_core.rpc import replication_pb2 as pb
from ops.following import FollowingGroup
from ops.group_context import GroupContext
from ops.lasting_tasks import LastingTask, LastingTasks
from ops.leading import LeadingGroup
from ops.preparing import prepare
from primary.electing.supervisor import GroupReport
from primary.opening import EpochOpening, LongerLog, Opened, open_epoch, seal_over_rpc
from primary.registry import SessionRegistry
from replica.following import FollowerState

log = structlog.get_logger(__name__)

START_AGAIN_SECONDS = 1.0
RELEASE_SECONDS = 0.1
"""How long a nominee waits for the word of the primary that hands over."""
BEGIN_SECONDS = 1.0
"""How long a standby that says hello to a node on its way to lead waits for that, instead of being refused."""
TROUBLE_SECONDS = 30.0
"""How long a node that its disk, or any other error, kept from leading does not stand for election."""


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
        failure: Why this node takes no part in the group for the moment; None while it does.
        sealed_epoch: The epoch that this node leads, from a majority's seals until it hands over; 0 while it leads
            none.
        not_elected: Why this node, when it stood for election last, did not win; None when it did.
        elections_won: Elections that this node stood for and won.
        elections_lost: Elections that it stood for and did not win.
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
        self.not_elected: str | None = None
        self.elections_won = 0
        self.elections_lost = 0
        self.step_downs = 0
        self._registry = registry
        self._tasks = tasks
        self._on_news = on_news
        self._loop = asyncio.get_running_loop()
        self._nominated = asyncio.Event()
        self._nomination = 0
        self._hand_over: asyncio.Future[HandOverRequest] | None = None
        self._followed_at = self._loop.time()
        self._answered = 0
        self.sealed_epoch = 0
        self._begun = asyncio.Event()
        self._begun.set()
        self._unable_until = float("-inf")
        self._life: LastingTask | None = None
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
            self._hand_over.set_result(HandOverRequest(number, to))

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
        """How old what this node has of the group is: the lag of a standby, a primary's time without its lease."""
        if self.leading is not None:
            led_until = max(self.leading.lease.valid_until(), self.leading.began_at)
            return max(0.0, self._loop.time() - led_until)
        if self.following is not None:
            self._followed_at = self._loop.time()
            return self.following.follower.lag().seconds
        return self._loop.time() - self._followed_at

    def not_ready(self) -> Iterator[str]:
        """Why the group is not served from here as it should be, as far as that is not its role's own matter."""
        if self.failure is not None:
            yield self.failure
        elif self.following is None and not self.sealed_epoch:
            yield "changes its role"
        elif self.not_elected is not None and not self.following_well:
            yield f"this node was not elected: {self.not_elected}"

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

    async def begun(self) -> None:
        """Wait a moment while this node stands for election, or opens its epoch: then it is known who leads."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_SECONDS):
                await self._begun.wait()

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
            finally:
                self.sealed_epoch = 0
                self._begun.set()
                self._registry.step_down(self.context.group)
            self._on_news()
            await asyncio.sleep(START_AGAIN_SECONDS if self.failure else 0)

    async def _follow_until_elected(self) -> None:
        """Follow until a nomination was won; then lead until that is over."""
        following = await FollowingGroup.start(self.context)
        self.following, self.failure = following, None
        closing = contextlib.AsyncExitStack()
        closing.push_async_callback(following.stop)
        self._on_news()
        try:
            epoch = await self._elected(following)
            unlogged = await following.shards.bring_up()
            self.following = None
            # The shards stay open until they are open for writing too: whoever closes one last must checkpoint it.
            await self._lead(epoch, unlogged, closing.aclose)
        finally:
            self.following = None
            await closing.aclose()

    async def _elected(self, following: FollowingGroup) -> int:
        while True:
            await self._nominated.wait()
            self._nominated.clear()
            number = self._nomination
            epoch = await self._stand(following)
            if epoch is not None:
                self.sealed_epoch = epoch
                self._registry.succession.begin(self.context.group)
                self._answer(number)
                return epoch
            self._answer(number)

    async def _stand(self, following: FollowingGroup) -> int | None:
        """Ask for the voters' seals: the epoch that this node leads now; None when it does not."""
        context = self.context
        if not following.able or not await self._primary_lets_go():
            return None
        over_rpc = seal_over_rpc(context.peers.stub)

        async def ask(voter: str, request: pb.SealRequest) -> pb.SealResponse:
            return await (context.voter.seal(request) if voter == context.node_id else over_rpc(voter, request))

        self._begun.clear()
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
            # After a loss on its disk a majority of the others may have elected it without its own vote.
            await context.voter.adopt(outcome.epoch, context.node_id)
            log.info("elected", group=context.group, epoch=outcome.epoch)
            self.not_elected = None
            self.elections_won += 1
            return outcome.epoch
        self.not_elected = (
            why_not_leading(outcome) if isinstance(outcome, LongerLog) else "too few voters answered this candidate"
        )
        self.elections_lost += 1
        log.info("not elected", group=context.group, reason=self.not_elected)
        self._begun.set()
        following.resume()
        return None

    async def _primary_lets_go(self) -> bool:
        """Whether no lease of the present primary binds this node any more."""
        voter = self.context.voter
        if not voter.watch.binding_seconds(self._loop.time()) or await self.context.primary_is_gone():
            return True
        # A primary that hands over tells the supervisor and its standbys at once: either may hear first.
        return await voter.released(RELEASE_SECONDS)

    async def _lead(
        self, epoch: int, unlogged: frozenset[int], close_standby: Callable[[], Awaitable[None]]
    ) -> None:
        async def begun() -> None:
            self._begun.set()
            await close_standby()

        leading = self.leading = LeadingGroup(self.context, self._registry, epoch, unlogged, on_begun=begun)
        self._hand_over = self._loop.create_future()
        term = asyncio.create_task(leading.run(), name=f"lead group {self.context.group}")
        try:
            hand_over = self._hand_over
            await asyncio.wait((term, hand_over), return_when=asyncio.FIRST_COMPLETED)
            self.step_downs += 1
            if hand_over.done() and not term.done():
                request = hand_over.result()
                await leading.hand_over(request.to)
            else:
                ended = await term
                log.warning("steps down", group=self.context.group, epoch=epoch, reason=ended.reason)
                if ended.disk_failed:
                    self._unable_until = self._loop.time() + TROUBLE_SECONDS
        finally:
            self.sealed_epoch = 0
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
            finally:
                self.leading = None
                await self._registry.release(self.context.group)

    def _answer(self, number: int) -> None:
        self._answered = number
        self._on_news()


def why_not_leading(longer: LongerLog) -> str:
    """What keeps a candidate from leading, and what to do about it."""
    if not longer.lost:
        return f"the log of {longer.voter} goes further, to {longer.last}; {longer.voter} should lead the group"
    return (
        f"{longer.voter} once held records up to {longer.last} which its disk lost and no node that could be asked "
        "holds; they may have been acknowledged. Bring the other voters back; or, to give these records up, stop "
        f"{longer.voter} and remove {MARK_FILE} from its log of the group"
    )
