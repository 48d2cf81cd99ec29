"""How a node comes to lead an epoch: it asks every voter for a seal until a majority has given it.

`EpochOpening` decides and `open_epoch` does the asking. The node's own vote is asked for like any other, so
its own promise is durable before it leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from agent_core.backoff import Backoff
from agent_core.errors import HeadwaterError, Unavailable
from agent_core.position import Position
from agent_core.quorum import majority
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc_errors import from_rpc_error
from agent_core.stream import from_message, to_message

if TYPE_CHECKING:
    # The asynchronous stub exists for type checkers only.
    from agent_core.rpc.replication_pb2_grpc import ReplicationAsyncStub

log = structlog.get_logger(__name__)

SEAL_TIMEOUT_SECONDS = 1.0
GRACE_SECONDS = 0.05
"""How long a majority waits for the others: a higher promise is better learnt now than from their streams."""


@dataclass(frozen=True, slots=True)
class Vote:
    """A voter's answer.

    Attributes:
        sealed: It promised the epoch to this node.
        promised_epoch: If not: the highest epoch that it has promised …
        last: … and the end of its own log.
        lost: The voter's disk lost that end: it cannot lead with it.
    """

    sealed: bool
    promised_epoch: int
    last: Position
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask these voters to seal `epoch`."""

    epoch: int
    voters: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wait:
    """Too few have answered; ask `silent` again for the same epoch."""

    silent: frozenset[str]


@dataclass(frozen=True, slots=True)
class Opened:
    """A majority has sealed `epoch`: this node leads it, and nobody else can."""

    epoch: int


@dataclass(frozen=True, slots=True)
class LongerLog:
    """No majority can be had, since logs of voters go further, or did; that of `voter` goes furthest.

    Attributes:
        voter: A voter that should lead, since its log goes further; with `lost` it cannot.
        last: The end of its log.
        lost: Only such logs go further whose end their own disk lost, and this one is among them.
    """

    voter: str
    last: Position
    lost: bool = False


Step = Ask | Wait | Opened | LongerLog


class EpochOpening:
    """Collects the votes for one node's epochs. Pure.

    Attributes:
        epoch: The epoch that is being asked for.
        last: The end of the candidate's log. It must not grow until the epoch is open.
        promised_epoch: The highest promise heard of.
    """

    def __init__(self, *, voters: Iterable[str], last: Position, promised_epoch: int) -> None:
        """Begin above every epoch that this node knows of, the one that `promised_epoch` names among them."""
        self._voters = frozenset(voters)
        self.last = last
        self.promised_epoch = max(promised_epoch, last.epoch)
        self.epoch = self.promised_epoch + 1
        self._sealed: set[str] = set()
        self._longer: dict[str, Vote] = {}
        self._asked = False

    @property
    def has_majority(self) -> bool:
        """Whether enough voters have sealed the epoch."""
        return len(self._sealed) >= majority(len(self._voters))

    def answer(self, voter: str, epoch: int, vote: Vote) -> None:
        """A voter answered about `epoch`; what concerns an earlier one, or comes from no voter, changes little."""
        if voter not in self._voters:
            return
        if vote.sealed:
            if epoch == self.epoch:
                self._sealed.add(voter)
            return
        if vote.last > self.last:
            self._longer[voter] = vote
        self.promised_epoch = max(self.promised_epoch, vote.promised_epoch)

    def next_step(self) -> Step:
        """What to do now."""
        if self.promised_epoch >= self.epoch:
            self.epoch = self.promised_epoch + 1
            self._sealed.clear()
            self._asked = False
        if len(self._voters) - len(self._longer) < majority(len(self._voters)):
            voter, vote = max(self._longer.items(), key=lambda item: (not item[1].lost, item[1].last))
            return LongerLog(voter, vote.last, vote.lost)
        if not self._asked:
            self._asked = True
            return Ask(self.epoch, self._voters)
        if self.has_majority:
            return Opened(self.epoch)
        return Wait(self._voters - self._sealed - self._longer.keys())


AskForSeal = Callable[[str, pb.SealRequest], Awaitable[pb.SealResponse]]
"""Asks the voter of this name, this node itself included."""


def seal_over_rpc(stub_of: Callable[[str], ReplicationAsyncStub]) -> AskForSeal:
    """An asker for the voters on other nodes.

    The returned function raises whatever the voter answered with, or Unavailable when it did not answer.
    """

    async def ask(voter: str, request: pb.SealRequest) -> pb.SealResponse:
        try:
            return await stub_of(voter).Seal(request, timeout=SEAL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, unanswered=Unavailable) from error

    return ask


async def open_epoch(
    opening: EpochOpening,
    ask: AskForSeal,
    *,
    cluster_id: str,
    group: int,
    candidate: str,
    backoff: Backoff | None = None,
    on_waiting: Callable[[str], None] = lambda _reason: None,
) -> Opened | LongerLog:
    """Ask until the epoch is open, or cannot be. Waits for voters as long as it takes; cancel it to give up.

    Args:
        opening: The votes; its log's end must not change meanwhile.
        ask: Asks one voter.
        cluster_id: The cluster.
        group: The shard group.
        candidate: This node.
        backoff: Delays between rounds in which too few answered.
        on_waiting: Told in a sentence what is being waited for, for readiness reports.
    """
    backoff = backoff or Backoff()

    async def ask_one(voter: str, request: pb.SealRequest) -> None:
        try:
            response = await ask(voter, request)
        except (HeadwaterError, OSError) as error:
            log.info("voter did not answer", group=group, voter=voter, reason=str(error))
            return
        vote = Vote(response.sealed, response.promised_epoch, from_message(response.last), response.lost)
        opening.answer(voter, request.epoch, vote)

    voters: frozenset[str] = frozenset()
    while True:
        match opening.next_step():
            case Ask() as question:
                voters = question.voters
            case Wait(silent):
                on_waiting(
                    f"epoch {opening.epoch} of group {group} waits for a seal of {', '.join(sorted(silent))}"
                )
                await asyncio.sleep(backoff.next_delay())
                voters = silent
            case Opened() | LongerLog() as outcome:
                log.info("epoch decided", group=group, outcome=repr(outcome))
                return outcome
        request = pb.SealRequest(
            cluster_id=cluster_id,
            group=group,
            epoch=opening.epoch,
            candidate=candidate,
            last=to_message(opening.last),
        )
        await _round({asyncio.create_task(ask_one(voter, request)) for voter in voters}, opening)


async def _round(asking: set[asyncio.Task[None]], opening: EpochOpening) -> None:
    """Wait for every answer; once a majority is there, for the others only a moment."""
    try:
        while asking:
            timeout = GRACE_SECONDS if opening.has_majority else None
            done, asking = await asyncio.wait(asking, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return
            for task in done:
                task.result()
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
