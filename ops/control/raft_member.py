"""A Raft member that agrees on the cluster's map with the others. The only module that knows pysyncobj.

pysyncobj unpickles what its peers send, encrypted and authenticated by a password and nothing else: whoever has
the password and reaches the port runs code here. It syncs nothing to disk, and a leader that is cut off thinks
for a while that it still leads. So the safety of data rests on seals and logs; this map only says what they led to.
"""

from __future__ import annotations

import _socket
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
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
from agent_core.control import machine
from agent_core.control.cluster_map import EMPTY, ClusterMap
from agent_core.control.machine import Applied, Outcome, Refused
from agent_core.errors import HeadwaterError, LogDamaged, OutcomeUnknown, Unavailable
from ops.control.host_names import HostNames
from ops.control.raft_journal import JournalEntry, allocate_journal, check_journal

# On import, pysyncobj 0.3.17 puts a function of Windows' in this place on every system.
socket.inet_ntop = _socket.inet_ntop

JOURNAL_FILE = "journal"
DUMP_FILE = "dump"

CONNECTION_SECONDS = 2.0
"""A connection over which nothing was heard for this long is given up."""
_CONNECT_SECONDS = 1.0
_QUEUED_COMMANDS = 256

_NOTHING = {"type": "nothing"}
"""A message of which pysyncobj takes no notice but that the connection is alive."""

_LEADER = 2
"""pysyncobj's number for the state; its class of them is private."""

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

    The defaults were chosen by measurement: three members on one machine with two cores use 1.1 % of a core each
    at rest, and a new leader stands 0.4 s (median) to 0.5 s after the old one was killed.

    Attributes:
        heartbeat_seconds: Between two messages of an idle leader; less than a third of the election timeout.
        election_timeout_seconds: A member stands for election when it heard no leader for a time drawn from here.
        compaction_entries: The journal is replaced by a dump of the map past so many entries.
    """

    heartbeat_seconds: float = 0.1
    election_timeout_seconds: tuple[float, float] = (0.35, 0.6)
    compaction_entries: int = 1000


DEFAULT_TIMING = RaftTiming()


@dataclass(frozen=True, slots=True)
class RaftView:
    """What a member knows.

    Attributes:
        cluster_map: The map as last applied there; on a member that is cut off it may be old.
        leader: The Raft leader's node; None during an election, and for the leader itself until its map holds all
            that was agreed before it led.
        reached: The members that a connection stands to.
    """

    cluster_map: ClusterMap = EMPTY
    leader: str | None = None
    reached: frozenset[str] = frozenset()


class RaftMember:
    """One Raft member: its files, its port, and the map that it has applied. Made by `open`.

    One thread at a time drives it by `turn`; only `propose` may be called from any other.
    """

    def __init__(self, node_id: str, members: Mapping[str, str], raft: SyncObj, replica: _Replica) -> None:
        self._node_id = node_id
        self._names = {_pysyncobj_address(address): name for name, address in members.items()}
        self._raft = raft
        self._replica = replica

    @classmethod
    def open(
        cls, node_id: str, members: Mapping[str, str], directory: Path, *, password: str, timing: RaftTiming
    ) -> Self:
        """Read the files and bind the port. Derives a key, which takes a moment.

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
        raft = _open(replica, node_id, members, directory, password=password, timing=timing)
        return cls(node_id, members, raft, replica)

    def on_turn(self, listener: Callable[[], None]) -> None:
        """Call `listener` in each turn, after what was agreed on is applied and before the wait for messages."""
        self._raft.addOnTickCallback(listener)

    def turn(self, seconds: float) -> None:
        """Do what is due; wait for messages, at most so long. An error is one connection's, or the disk's."""
        self._raft.doTick(seconds)

    def close(self) -> None:
        """Leave off taking part."""
        self._raft.destroy()

    def propose(self, text: str, answered: Callable[[Outcome | HeadwaterError], None]) -> None:
        """Have a command agreed on; `answered` hears what it came to, or why it did not, on any thread."""

        def settled(outcome: Outcome | None, reason: int) -> None:
            if reason == FAIL_REASON.SUCCESS and outcome is not None:
                answered(outcome)
            elif reason in _NOTHING_DONE:
                answered(Unavailable(f"{_NOTHING_DONE[reason]}; nothing was changed"))
            else:
                answered(
                    OutcomeUnknown("the Raft leader changed while a change of the cluster's map was under way")
                )

        self._replica.run(text, callback=settled)

    def view(self) -> RaftView:
        """What this member knows at this moment."""
        leader = self._raft._getLeader()  # noqa: SLF001 - pysyncobj's own documents call it so
        name = None if leader is None else self._names.get(leader.address)
        if name == self._node_id and not self._replica.leads():
            name = None
        reached = frozenset(
            self._names[node.address] for node in self._raft.otherNodes if self._raft.isNodeConnected(node)
        )
        return RaftView(self._replica.cluster_map, name, reached)


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
    """pysyncobj's transport, mended where silence, a partition or a stranger would harm it."""

    _speaks_at = 0.0

    def _onTick(self) -> None:  # noqa: N802 - pysyncobj's name
        """Let every member hear this one often enough that their connection does not count as dead.

        Members that follow have nothing to say to each other until their leader dies. Their connection would be
        given up at the first word then, the word itself with it: a request for votes, which nobody repeats before
        the next election.
        """
        super()._onTick()
        now = time.monotonic()
        if now >= self._speaks_at:
            self._speaks_at = now + CONNECTION_SECONDS / 4
            for node in self._nodes:
                if self._syncObj.isNodeConnected(node):
                    self.send(node, _NOTHING)

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
    """The pysyncobj object with its files read and its port bound."""
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
        connectionTimeout=max(CONNECTION_SECONDS, most),
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

    Raises:
        ValueError: No run of Raft wrote this. Other errors of reading it mean the same.
        OSError: The disk has no room for it.
    """
    journal = createJournal(str(path))
    try:
        entries, term = journal[:], journal.getCurrentTerm()
    finally:
        journal._destroy()  # noqa: SLF001 - it has no other way to be closed
    check_journal([JournalEntry(number, term_of) for _, number, term_of in entries], term)
    allocate_journal(path)


def _damaged(directory: Path, name: str) -> LogDamaged:
    return LogDamaged(
        f"the Raft {name} {directory / name} cannot be read; while the other Raft members run, remove the "
        f"directory {directory} and start this node again: it gets the cluster's map from them"
    )


def _pysyncobj_address(address: str) -> str:
    """`host:port` without the brackets of an IPv6 host, which pysyncobj would take for a part of its name."""
    host, port = HostPort.parse(address)
    return f"{host}:{port}"
