"""This node stands for election in one group: it asks the voters for their seals."""

from __future__ import annotations

import asyncio

import structlog

from agent_core.log.durable_mark import MARK_FILE
from agent_core.rpc import replication_pb2 as pb
from ops.group_context import GroupContext
from primary.opening import EpochOpening, LongerLog, Opened, open_epoch, seal_over_rpc

log = structlog.get_logger(__name__)

RELEASE_SECONDS = 0.1
"""How long a nominee waits for the word of the primary that hands over."""


class Candidacy:
    """What came of this node's candidacies in a group, and the way to the next one.

    Attributes:
        not_elected: Why this node, when it stood for election last, did not win; None when it did.
        won: Elections that this node stood for and won.
        lost: Elections that it stood for and did not win.
    """

    def __init__(self, context: GroupContext) -> None:
        self._context = context
        self.not_elected: str | None = None
        self.won = 0
        self.lost = 0

    async def may_stand(self) -> bool:
        """Whether no lease of the present primary binds this node any more."""
        voter = self._context.voter
        now = asyncio.get_running_loop().time()
        if not voter.watch.binding_seconds(now) or await self._context.primary_is_gone():
            return True
        # A primary that hands over tells the supervisor and its standbys at once: either may hear first.
        return await voter.released(RELEASE_SECONDS)

    async def stand(self) -> int | None:
        """Ask for the voters' seals: the epoch that this node leads now; None when it does not.

        The log must not grow meanwhile.

        Raises:
            OSError: A majority sealed it, but its own promise could not be made durable: it must not lead.
        """
        context = self._context
        over_rpc = seal_over_rpc(context.peers.stub)

        async def ask(voter: str, request: pb.SealRequest) -> pb.SealResponse:
            return await (context.voter.seal(request) if voter == context.node_id else over_rpc(voter, request))

        opening = EpochOpening(
            voters=[node.node_id for node in context.cluster.voters()],
            last=context.log.last,
            promised_epoch=max(context.voter.promise.epoch, context.view.placement(context.group).epoch),
        )
        try:
            async with asyncio.timeout(context.configuration.election.failure_timeout_seconds):
                outcome = await open_epoch(
                    opening,
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
            self.won += 1
            return outcome.epoch
        self.not_elected = (
            why_not_leading(outcome) if isinstance(outcome, LongerLog) else "too few voters answered this candidate"
        )
        self.lost += 1
        log.info("not elected", group=context.group, reason=self.not_elected)
        return None


def why_not_leading(longer: LongerLog) -> str:
    """What keeps a candidate from leading, and what to do about it."""
    if not longer.lost:
        return f"the log of {longer.voter} goes further, to {longer.last}; {longer.voter} should lead the group"
    return (
        f"{longer.voter} once held records up to {longer.last} which its disk lost and no node that could be asked "
        "holds; they may have been acknowledged. Bring the other voters back; or, to give these records up, stop "
        f"{longer.voter} and remove {MARK_FILE} from its log of the group"
    )
