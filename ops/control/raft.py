"""The cluster's map, replicated among the Raft members by pysyncobj. The only module that imports it.

pysyncobj runs in a thread of its own and unpickles what its peers send, so it always gets a password, from which
it derives a key (Fernet) that every message must carry. It writes its journal without fsync: a process may die at
any moment, but after a power cut a member may have forgotten what it agreed to. Nothing that was acknowledged to a
writer rests on it; seals and logs carry that.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import structlog
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, SyncObjConsumer, replicated

from agent_core.control import machine
from agent_core.control.cluster_map import EMPTY, ClusterMap
from agent_core.control.commands import Command, from_json, to_json
from agent_core.errors import InvalidRequest, OutcomeUnknown, Unavailable
from ops.settings import NodeConfiguration

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 0.08
TICK_SECONDS = 0.02
"""How late a timeout is noticed: members whose timeouts lie closer together may split the vote."""
SHORTEST_ELECTION_SECONDS = 0.3
LONGEST_ELECTION_SECONDS = 0.7
LEADER_FALLBACK_SECONDS = 1.0
"""A leader that no majority answers for so long gives up."""
RECONNECT_SECONDS = 0.2
PROPOSAL_SECONDS = 2.0

_NOT_TAKEN = frozenset({FAIL_REASON.QUEUE_FULL, FAIL_REASON.MISSING_LEADER, FAIL_REASON.NOT_LEADER})
"""Failures after which a command cannot have been carried out."""


class _Replica(SyncObjConsumer):  # type: ignore[misc] # pysyncobj ships no types
    """What pysyncobj replicates and dumps: the map as JSON. Lives on pysyncobj's thread."""

    def __init__(self, on_change: Callable[[ClusterMap], None]) -> None:
        self._on_change = on_change
        super().__init__()  # What stands before this is not dumped.
        self.text = EMPTY.to_json().decode()

    @replicated  # type: ignore[untyped-decorator] # pysyncobj ships no types
    def carry_out(self, command: str) -> str:
        """Apply a command: why it was refused; empty when it was not."""
        try:
            outcome = machine.apply(ClusterMap.from_json(self.text), from_json(command))
        except ValueError as error:
            return str(error)
        if isinstance(outcome, machine.Refused):
            return outcome.reason
        self.text = outcome.map.to_json().decode()
        self._on_change(outcome.map)
        return ""

    def _deserialize(self, data: object) -> None:
        super()._deserialize(data)
        self._on_change(ClusterMap.from_json(self.text))


class ReplicatedMap:
    """This node's share in the map, as a Raft member. Everything but pysyncobj runs on the event loop.

    Attributes:
        map: As last applied here.
        leader: The Raft leader as this member knows it; None while there is none.
    """

    def __init__(self, configuration: NodeConfiguration) -> None:
        """Prepare; nothing is opened before `start`."""
        self._configuration = configuration
        self._loop = asyncio.get_running_loop()
        self._map_listeners: list[Callable[[ClusterMap], None]] = []
        self._leader_listeners: list[Callable[[], None]] = []
        self._names = {entry.raft: entry.id for entry in configuration.nodes if entry.raft is not None}
        self._replica = _Replica(lambda changed: self._on_loop(self._take, changed))
        self._raft: SyncObj | None = None
        self._seen_leader: str | None = None
        self.map = EMPTY
        self.leader: str | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this member leads the Raft members, as far as it knows."""
        return self.leader == self._configuration.node.id

    def on_change(self, listener: Callable[[ClusterMap], None]) -> None:
        """Call `listener` with each new map."""
        self._map_listeners.append(listener)

    def on_leader_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when another leads."""
        self._leader_listeners.append(listener)

    async def start(self) -> None:
        """Join the other members.

        Raises:
            OSError: The address cannot be listened on, or the files cannot be made.
        """
        configuration = self._configuration
        directory = configuration.node.data_directory / "raft"
        directory.mkdir(exist_ok=True)
        (own,) = (entry.raft for entry in configuration.nodes if entry.id == configuration.node.id)
        settings = SyncObjConf(
            password=_password(configuration),
            journalFile=str(directory / "journal"),
            fullDumpFile=str(directory / "dump"),
            # One member forks while threads hold locks otherwise; the map is small enough to dump in place.
            useFork=False,
            # Batching would make each command wait for the next heartbeat.
            appendEntriesUseBatch=False,
            appendEntriesPeriod=HEARTBEAT_SECONDS,
            autoTickPeriod=TICK_SECONDS,
            raftMinTimeout=SHORTEST_ELECTION_SECONDS,
            raftMaxTimeout=LONGEST_ELECTION_SECONDS,
            leaderFallbackTimeout=LEADER_FALLBACK_SECONDS,
            connectionRetryTime=RECONNECT_SECONDS,
            connectionTimeout=LEADER_FALLBACK_SECONDS,
            commandsWaitLeader=False,
            maxBindRetries=3,
        )
        others = [address for address in self._names if address != own]
        raft = await asyncio.to_thread(SyncObj, own, others, settings, consumers=[self._replica])
        raft.addOnTickCallback(self._look_for_leader)
        self._raft = raft

    async def stop(self) -> None:
        """Leave the other members; what was agreed stays on the disk."""
        if self._raft is not None:
            await asyncio.to_thread(self._raft.destroy_synchronous)

    async def propose(self, command: Command) -> ClusterMap:
        """Let the members agree on a command; the map that holds it.

        Raises:
            InvalidRequest: The state machine refused it; the message says why.
            Unavailable: It was not taken; there is no leader, or it has too much to do.
            OutcomeUnknown: It may be carried out yet.
        """
        if self._raft is None:
            raise Unavailable("this Raft member has not started yet")
        outcome: asyncio.Future[tuple[str | None, int]] = self._loop.create_future()

        def done(result: str | None, reason: int) -> None:
            self._on_loop(_settle, outcome, (result, reason))

        self._replica.carry_out(to_json(command), callback=done)
        try:
            async with asyncio.timeout(PROPOSAL_SECONDS):
                refusal, failure = await outcome
        except TimeoutError:
            raise OutcomeUnknown(f"the Raft members did not agree within {PROPOSAL_SECONDS:g} s") from None
        if failure in _NOT_TAKEN:
            raise Unavailable("the Raft members have no leader that takes commands")
        if failure != FAIL_REASON.SUCCESS:
            raise OutcomeUnknown("the Raft leader changed before the members agreed")
        if refusal:
            raise InvalidRequest(refusal)
        return self.map

    def _look_for_leader(self) -> None:
        """On pysyncobj's thread, at each of its ticks."""
        assert self._raft is not None, "ticks come from it"
        node = self._raft._getLeader()  # noqa: SLF001 - pysyncobj documents it
        leader = self._names.get(node.id) if node is not None else None
        if leader != self._seen_leader:
            self._seen_leader = leader
            self._on_loop(self._follow, leader)

    def _follow(self, leader: str | None) -> None:
        log.info("raft leader", leader=leader)
        self.leader = leader
        for listener in self._leader_listeners:
            listener()

    def _take(self, changed: ClusterMap) -> None:
        self.map = changed
        for listener in self._map_listeners:
            listener(changed)

    def _on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def _settle(outcome: asyncio.Future[tuple[str | None, int]], result: tuple[str | None, int]) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _password(configuration: NodeConfiguration) -> str:
    """The members' shared secret. On loopback it may be left out: then it only keeps two clusters apart."""
    chosen = configuration.election.raft_password
    if chosen is not None:
        return chosen.get_secret_value()
    return hashlib.sha256(f"headwater loopback {configuration.cluster.id}".encode()).hexdigest()
