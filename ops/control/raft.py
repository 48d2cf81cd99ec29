"""Keeps the cluster's map in agreement over the Raft members. The only module that knows pysyncobj.

pysyncobj unpickles what its peers send, encrypted and authenticated by a password and nothing else: whoever has
the password and reaches the port runs code here. It syncs nothing to disk, and a leader that is cut off thinks
for a while that it still leads. So the safety of data rests on seals and logs; this map only says what they led to.

pysyncobj is driven by a thread of its own, which sleeps in poll() and so costs nothing between messages. What it
finds is told on the event loop.
"""

from __future__ import annotations

import _socket
import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Self

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, SyncObjConsumer, replicated
from pysyncobj.journal import createJournal
from pysyncobj.node import TCPNode
from pysyncobj.syncobj import SyncObjException
from pysyncobj.tcp_connection import CONNECTION_STATE, TcpConnection
from pysyncobj.transport import TCPTransport

from agent_core.cluster import HostPort
from agent_core.control import cluster_map as maps
from agent_core.control import commands, machine
from agent_core.control.cluster_map import EMPTY, ClusterMap
from agent_core.control.commands import Command
from agent_core.control.machine import Applied, Outcome, Refused
from agent_core.errors import ChangeRefused, HeadwaterError, LogDamaged, OutcomeUnknown, Unavailable
from ops.control.host_names import HostNames

# On import, pysyncobj 0.3.17 puts a function of Windows' in this place on every system.
socket.inet_ntop = _socket.inet_ntop

JOURNAL_FILE = "journal"
DUMP_FILE = "dump"

_TICK_SECONDS = 0.05
"""How long one wait for messages may take: the grain of all timeouts."""
_CONNECT_SECONDS = 1.0
_JOURNAL_BYTES = 4 << 20
"""Far more than the journal holds before it is replaced by a dump."""
_QUEUED_COMMANDS = 256
_PROPOSAL_SECONDS = 5.0

_LEADER = 2
"""pysyncobj's number for the state; its class of them is private."""

_logger = logging.getLogger(__name__)

_NOTHING_DONE = {
    FAIL_REASON.QUEUE_FULL: "too many changes of the cluster's map wait already",
    FAIL_REASON.MISSING_LEADER: "the Raft members have no leader now",
    FAIL_REASON.NOT_LEADER: "the Raft leader changed before it took the change",
    FAIL_REASON.DISCARDED: "a new Raft leader dropped the change",
    FAIL_REASON.REQUEST_DENIED: "the Raft leader did not take the change",
}
"""Reasons after which the change is known not to have been made. After any other it may have been."""


@dataclass(frozen=True, slots=True)
class RaftTiming:
    """How often the Raft leader is heard, and when it is missed.

    The defaults were chosen by measurement: three members on one machine with two cores use 0.8 % of a core each
    at rest, and a new leader stands 0.4 s (median) to 1.0 s after the old one was killed.

    Attributes:
        heartbeat_seconds: Between two messages of an idle leader; less than a third of the election timeout.
        election_timeout_seconds: A member stands for election when it heard no leader for a time drawn from here.
        compaction_entries: The journal is replaced by a dump of the map past so many entries.
    """

    heartbeat_seconds: float = 0.1
    election_timeout_seconds: tuple[float, float] = (0.35, 0.6)
    compaction_entries: int = 1000


class ReplicatedMap:
    """This Raft member's view of the cluster's map, and the way to change it. Made by `start`.

    Everything but `start` belongs to the event loop it was started on. Listeners are called there, without
    arguments, after what they are about has changed; several changes may come as one call.
    """

    def __init__(self, node_id: str, members: Mapping[str, str], raft: SyncObj, replica: _Replica) -> None:
        self._node_id = node_id
        self._names = {_pysyncobj_address(address): name for name, address in members.items()}
        self._raft = raft
        self._replica = replica
        self._loop = asyncio.get_running_loop()
        self._map_listeners: list[Callable[[], None]] = []
        self._leader_listeners: list[Callable[[], None]] = []
        self._proposals: set[asyncio.Future[Outcome]] = set()
        self._stopping = threading.Event()
        # Called in the middle of each turn, after what was agreed on is applied and before the wait for messages.
        raft.addOnTickCallback(self._observe)
        self._seen = self._told = self._view()
        self._thread = threading.Thread(target=self._drive, name="raft", daemon=True)

    @classmethod
    async def start(
        cls,
        node_id: str,
        members: Mapping[str, str],
        directory: Path,
        password: str,
        timing: RaftTiming = RaftTiming(),
    ) -> Self:
        """Take part from now on.

        Args:
            node_id: This node; one of `members`.
            members: Every Raft member's name and address (`host:port`), written alike on all of them.
            directory: Where the journal and the dump lie; made when it is not there.
            password: The same on all members; one with another is as if it were not there.
            timing: Alike on all members.

        Raises:
            Unavailable: The own address cannot be listened on.
            LogDamaged: The journal or the dump cannot be read.
            OSError: The directory cannot be made or written.
        """
        replica = _Replica()
        raft = await asyncio.to_thread(
            _open, replica, node_id, members, directory, password=password, timing=timing
        )
        self = cls(node_id, members, raft, replica)
        self._thread.start()
        return self

    @property
    def map(self) -> ClusterMap:
        """The map as last applied here; on a member that is cut off it may be old."""
        return self._told.cluster_map

    @property
    def leader(self) -> str | None:
        """The Raft leader's node as known here; None during an election. Two members may differ for a while."""
        return self._told.leader

    @property
    def is_leader(self) -> bool:
        """Whether this member leads and its map holds all that was agreed before it did."""
        return self._told.leader == self._node_id

    @property
    def reached(self) -> frozenset[str]:
        """The members that a connection stands to. A wrong password looks like one that is not there."""
        return self._told.reached

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when `map` has changed."""
        self._map_listeners.append(listener)

    def on_leader_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when `leader` has changed."""
        self._leader_listeners.append(listener)

    async def propose(self, command: Command, *, timeout_seconds: float = _PROPOSAL_SECONDS) -> ClusterMap:
        """Have a command agreed on; returns the map right after it, as applied here.

        Raises:
            ChangeRefused: The map does not allow it; the reason is the message.
            Unavailable: It was not done; there is no Raft leader, or it changed.
            OutcomeUnknown: It may have been done or may yet be; repeating a command is safe.
        """
        if self._stopping.is_set():
            raise Unavailable("this Raft member is stopping")
        proposal: asyncio.Future[Outcome] = self._loop.create_future()
        self._proposals.add(proposal)
        try:
            self._replica.run(commands.to_json(command), callback=partial(self._answered, proposal))
            async with asyncio.timeout(timeout_seconds):
                outcome = await proposal
        except TimeoutError:
            raise OutcomeUnknown(
                f"the Raft members did not agree on a change of the cluster's map within {timeout_seconds:g} s"
            ) from None
        finally:
            self._proposals.discard(proposal)
        if isinstance(outcome, Refused):
            raise ChangeRefused(outcome.reason)
        if outcome.cluster_map.version > self.map.version:
            # Whoever changed the map finds it changed.
            self._tell(replace(self._told, cluster_map=outcome.cluster_map))
        return outcome.cluster_map

    async def stop(self) -> None:
        """Leave off taking part; who waits for a command is told that its outcome is unknown."""
        self._stopping.set()
        for proposal in self._proposals:
            if not proposal.done():
                proposal.set_exception(OutcomeUnknown("this Raft member stopped before a change was agreed on"))
        await asyncio.to_thread(self._thread.join)

    def _answered(self, proposal: asyncio.Future[Outcome], outcome: Outcome | None, reason: int) -> None:
        """Called by pysyncobj on its thread, or on the loop when it refuses at once."""
        self._loop.call_soon_threadsafe(_settle, proposal, outcome, reason)

    def _drive(self) -> None:
        while not self._stopping.is_set():
            try:
                self._raft.doTick(_TICK_SECONDS)
            except Exception:
                # One connection's trouble or a full disk: the member is of use again when it has passed.
                _logger.exception("a turn of Raft failed")
                time.sleep(_TICK_SECONDS)
        self._raft.destroy()

    def _observe(self) -> None:
        view = self._view()
        if view != self._seen:
            self._seen = view
            self._loop.call_soon_threadsafe(self._tell, view)

    def _view(self) -> _View:
        leader = self._raft._getLeader()  # noqa: SLF001 - pysyncobj's own documents call it so
        name = None if leader is None else self._names.get(leader.address)
        if name == self._node_id and not self._replica.leads():
            name = None
        reached = frozenset(
            self._names[node.address] for node in self._raft.otherNodes if self._raft.isNodeConnected(node)
        )
        return _View(self._replica.cluster_map, name, reached)

    def _tell(self, view: _View) -> None:
        before, self._told = self._told, view
        if self._stopping.is_set():
            return
        if view.cluster_map != before.cluster_map:
            for listener in tuple(self._map_listeners):
                listener()
        if view.leader != before.leader:
            for listener in tuple(self._leader_listeners):
                listener()


@dataclass(frozen=True, slots=True)
class _View:
    """What the event loop is told of."""

    cluster_map: ClusterMap = EMPTY
    leader: str | None = None
    reached: frozenset[str] = frozenset()


class _Replica(SyncObjConsumer):  # type: ignore[misc] # pysyncobj has no types
    """The state that pysyncobj replicates. Only JSON goes in and out of it; its own pickling sees strings.

    It is used on the thread that drives pysyncobj, but for calls of `run`, which only queue a command.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cluster_map = EMPTY
        self.restored = False
        self._commit_index_at_election: int | None = None

    @replicated  # type: ignore[untyped-decorator] # pysyncobj has no types
    def run(self, text: object) -> Outcome:
        """Apply one command; on every member, in the same order."""
        if not isinstance(text, str):
            return Refused("not a command: content is no text")
        outcome = machine.apply_json(self.cluster_map, text)
        if isinstance(outcome, Applied):
            self.cluster_map = outcome.cluster_map
        return outcome

    def state_changed(self, _: int, state: int) -> None:
        """Pysyncobj went into another state."""
        self._commit_index_at_election = self._syncObj.raftCommitIndex if state == _LEADER else None

    def leads(self) -> bool:
        """Whether this member leads and has applied everything that former leaders committed.

        A leader commits by counting only what it wrote itself, so its first commit covers all that came before.
        """
        return (
            self._commit_index_at_election is not None
            and self._syncObj.raftCommitIndex > self._commit_index_at_election
            and self._syncObj.raftLastApplied == self._syncObj.raftCommitIndex
        )

    def _serialize(self) -> str:
        return maps.to_json(self.cluster_map)

    def _deserialize(self, data: object) -> None:
        self.cluster_map = maps.from_json(str(data))
        self.restored = True


class _Node(TCPNode):  # type: ignore[misc] # pysyncobj has no types
    """A member by its address, whose host may move; pysyncobj would look for it where it was for ten minutes."""

    def __init__(self, address: str, names: HostNames) -> None:
        super().__init__(address)
        self._names = names

    @property
    def ip(self) -> str | None:
        """Where its host is as far as known."""
        return self._names.address(self.host)


class _Transport(TCPTransport):  # type: ignore[misc] # pysyncobj has no types
    """pysyncobj's transport, mended where a partition or a stranger would harm it."""

    def _connectIfNecessarySingle(self, node: TCPNode) -> bool:  # noqa: N802 - pysyncobj's name
        """Give up a connection attempt in time: the kernel would go on for two minutes, ever more rarely."""
        connection = self._connections.get(node)
        if (
            connection is not None
            and connection.state == CONNECTION_STATE.CONNECTING
            and time.monotonic() - self._lastConnectAttempt[node] > _CONNECT_SECONDS
        ):
            connection.disconnect()
        return bool(super()._connectIfNecessarySingle(node))

    def _onDisconnected(self, conn: TcpConnection) -> None:  # noqa: N802 - pysyncobj's name
        """Forget a connection that belongs to no member; pysyncobj would raise in the middle of its turn."""
        if self._connToNode(conn) is None:
            self._unknownConnections.discard(conn)
        else:
            super()._onDisconnected(conn)


def _open(
    replica: _Replica,
    node_id: str,
    members: Mapping[str, str],
    directory: Path,
    *,
    password: str,
    timing: RaftTiming,
) -> SyncObj:
    """The pysyncobj object with its files read and its port bound. Derives a key, which takes a moment."""
    directory.mkdir(parents=True, exist_ok=True)
    dump = directory / DUMP_FILE
    had_dump = dump.exists()
    _check_address(members[node_id])
    own = _pysyncobj_address(members[node_id])
    others = [_pysyncobj_address(address) for name, address in members.items() if name != node_id]
    least, most = timing.election_timeout_seconds
    configuration = SyncObjConf(
        password=password,
        autoTick=False,
        appendEntriesUseBatch=False,  # a command then commits in a millisecond instead of a hundred
        appendEntriesPeriod=timing.heartbeat_seconds,
        raftMinTimeout=least,
        raftMaxTimeout=most,
        leaderFallbackTimeout=2 * most,
        connectionTimeout=max(2.0, most),
        connectionRetryTime=0.2,
        commandsQueueSize=_QUEUED_COMMANDS,
        commandsWaitLeader=False,
        bindAddress=own,  # it would listen on all addresses
        maxBindRetries=1,
        journalFile=str(directory / JOURNAL_FILE),
        fullDumpFile=str(dump),
        useFork=False,  # a forked process with gRPC's threads may hang
        logCompactionMinEntries=timing.compaction_entries,
        onStateChanged=replica.state_changed,
    )
    try:
        _prepare_journal(directory / JOURNAL_FILE)
        raft = SyncObj(
            own,
            others,
            configuration,
            consumers=[replica],
            nodeClass=partial(_Node, names=HostNames()),
            transportClass=_Transport,
        )
        raft.doTick(0.0)
    except SyncObjException as error:
        raise Unavailable(f"the Raft address {members[node_id]} cannot be listened on") from error
    except OSError:
        raise
    except Exception as error:
        raise _damaged(directory, JOURNAL_FILE) from error
    if had_dump and not replica.restored:
        raft.destroy()
        raise _damaged(directory, DUMP_FILE)
    return raft


def _check_address(address: str) -> None:
    """Try to listen; pysyncobj would say neither why it cannot nor give back what it had opened.

    Raises:
        Unavailable: It cannot be listened on.
    """
    host, port = HostPort.parse(address)
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise Unavailable(f"the Raft address {address} cannot be listened on: {error.strerror}") from error


def _prepare_journal(path: Path) -> None:
    """Check what stands in the journal, and allocate its blocks.

    Pysyncobj has no checksums; what a power cut tore mostly shows in the numbering. It writes through a memory map
    and grows the file by a hole: on a full disk the write to that would end the process with SIGBUS.

    Raises:
        ValueError: No run of Raft wrote this. Other errors of reading it mean the same.
        OSError: The disk has no room for it.
    """
    journal = createJournal(str(path))
    try:
        entries, term = journal[:], journal.getCurrentTerm()
    finally:
        journal._destroy()  # noqa: SLF001 - it has no other way to be closed
    for index, (before, after) in enumerate(pairwise(entries)):
        if after[1] != before[1] + 1 or after[2] < before[2]:
            raise ValueError(f"entry {index + 1} does not follow the one before it")
    if entries and entries[-1][2] > term:
        raise ValueError("its last entry is of a term that never began")
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, _JOURNAL_BYTES)


def _damaged(directory: Path, name: str) -> LogDamaged:
    return LogDamaged(
        f"the Raft {name} {directory / name} cannot be read; while the other Raft members run, remove the "
        f"directory {directory} and start this node again: it gets the cluster's map from them"
    )


def _pysyncobj_address(address: str) -> str:
    """`host:port` without the brackets of an IPv6 host, which pysyncobj would take for a part of its name."""
    host, port = HostPort.parse(address)
    return f"{host}:{port}"


def _settle(proposal: asyncio.Future[Outcome], outcome: Outcome | None, reason: int) -> None:
    if proposal.done():
        return
    if reason == FAIL_REASON.SUCCESS and outcome is not None:
        proposal.set_result(outcome)
        return
    error: HeadwaterError
    if reason in _NOTHING_DONE:
        error = Unavailable(f"{_NOTHING_DONE[reason]}; nothing was changed")
    else:
        error = OutcomeUnknown("the Raft leader changed while a change of the cluster's map was under way")
    proposal.set_exception(error)
