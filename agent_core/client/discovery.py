"""Learning a cluster's other nodes from the one that was reached, beside the work and never in front of it.

Nothing runs while nothing happens: a node that takes a connection is asked a moment later which nodes its cluster
has, and again when a connection is made after a while, or to another node. The nodes that it tells are asked at
once whether they can be reached from here and are of the same cluster; those that do not answer are asked again,
with pauses, whenever a node fails to serve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import grpc
import grpc.aio

from agent_core.backoff import Backoff
from agent_core.client.addresses import MAX_TOLD, Addresses, Told
from agent_core.cluster import NAME_PATTERN, HostPort
from agent_core.rpc.cluster_pb2 import GetClusterRequest, GetClusterResponse
from agent_core.rpc.cluster_pb2_grpc import ClusterReadingStub
from agent_core.rpc_errors import end_if_cancelled
from agent_core.transport import close_channel

BESIDE_SECONDS = 0.1
"""Before a node is asked: the client's own first calls go first, and one that is done by then asks nothing."""
ASK_SECONDS = 2.0
"""How long a node may take to answer, its connection included."""
LATER_SECONDS = 5.0
"""Before a client that was answered asks again, at most: when a node dies all its clients move at once, and their
questions shall not come at once."""
AGAIN_SECONDS = 60.0
"""After so long a connection that is made has its node asked once more: a cluster may have got other nodes."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 4.0
"""Between two questions that get no answer: doubling from the first to the second."""


def what_is_told(answer: GetClusterResponse) -> Told | None:
    """What a node's answer says of its cluster; None when it does not name itself and the cluster as it should.

    An address that no node could have is left out, and so is what comes after the first `MAX_TOLD` nodes.
    """
    if not (NAME_PATTERN.fullmatch(answer.cluster_id) and NAME_PATTERN.fullmatch(answer.node_id)):
        return None
    addresses = {
        node.node_id: node.grpc_address
        for node in answer.nodes[:MAX_TOLD]
        if NAME_PATTERN.fullmatch(node.node_id) and _reachable(node.grpc_address)
    }
    return Told(answer.cluster_id, answer.node_id, addresses)


class Discovery:
    """Asks nodes for the others, and tells the answers to a client's addresses.

    Args:
        addresses: Takes the answers.
        open_channel: Opens a channel to an address, for one question.
    """

    def __init__(self, addresses: Addresses, open_channel: Callable[[str], grpc.aio.Channel]) -> None:
        self._addresses = addresses
        self._open_channel = open_channel
        self._reached: tuple[str, grpc.aio.Channel] | None = None
        self._asked: str | None = None
        self._ask_again_at = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._pauses = _new_pauses()
        self._prove_again_at = 0.0
        self._proving: asyncio.Task[None] | None = None

    def reached(self, address: str, channel: grpc.aio.Channel) -> None:
        """A node has taken a connection: ask it soon, if it was not asked lately."""
        self._reached = address, channel
        if self._asking is None and (address != self._asked or _now() >= self._ask_again_at):
            self._asking = _started(self._ask(), "headwater discovery", self._asking_ended)

    def prove(self) -> None:
        """See which of the nodes that were told can be turned to; soon again, if it was done just now."""
        if self._proving is None and self._addresses.unproven and _now() >= self._prove_again_at:
            self._proving = _started(self._prove(), "headwater discovery of reachable nodes", self._proving_ended)

    async def close(self) -> None:
        """End the questions that are under way."""
        tasks = {task for task in (self._asking, self._proving) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _ask(self) -> None:
        """Ask the node that was reached last, until one answers."""
        later = Backoff(first_seconds=LATER_SECONDS, longest_seconds=LATER_SECONDS)
        await asyncio.sleep(BESIDE_SECONDS if self._asked is None else later.next_delay())
        pauses, answer = _new_pauses(), None
        while answer is None:
            assert self._reached is not None, "this runs for a node that was reached"
            address, channel = self._reached
            try:
                answer = await _cluster(channel)
            except grpc.aio.AioRpcError as error:
                end_if_cancelled()
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    answer = GetClusterResponse()  # an older node: it tells nothing
                else:
                    await asyncio.sleep(pauses.next_delay())
        self._asked, self._ask_again_at = address, _now() + AGAIN_SECONDS
        told = what_is_told(answer)
        if told is not None:
            self._addresses.learn(address, told)
            self._pauses, self._prove_again_at = _new_pauses(), 0.0
            self.prove()

    async def _prove(self) -> None:
        answered = await asyncio.gather(*map(self._answers, self._addresses.unproven))
        if any(answered):
            self._pauses.reset()
        self._prove_again_at = _now() + self._pauses.next_delay()

    async def _answers(self, address: str) -> bool:
        channel = self._open_channel(address)
        try:
            told = what_is_told(await _cluster(channel))
        except grpc.aio.AioRpcError:
            return False
        finally:
            await close_channel(channel)
        if told is not None:
            self._addresses.prove(address, told)
        return told is not None

    def _asking_ended(self) -> None:
        self._asking = None

    def _proving_ended(self) -> None:
        self._proving = None


async def _cluster(channel: grpc.aio.Channel) -> GetClusterResponse:
    call: grpc.aio.UnaryUnaryCall[GetClusterRequest, GetClusterResponse] = ClusterReadingStub(channel).GetCluster(
        GetClusterRequest(), timeout=ASK_SECONDS
    )
    return await call


def _started(work: Coroutine[None, None, None], name: str, ended: Callable[[], None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(lambda _task: ended())
    return task


def _new_pauses() -> Backoff:
    return Backoff(first_seconds=FIRST_PAUSE_SECONDS, longest_seconds=LONGEST_PAUSE_SECONDS)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _reachable(address: str) -> bool:
    try:
        HostPort.parse(address)
    except ValueError:
        return False
    return True
