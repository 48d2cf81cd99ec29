"""What must always hold, checked at every step with the eyes of someone who sees all nodes at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent_core.log.record import RecordKind
from agent_core.position import START, Position
from agent_core.quorum import majority
from tests.simulation.storage import Entry, LogRecord, SimulatedDisk
from tests.simulation.world import Violation


class Observed(Protocol):
    """What is looked at of a node."""

    name: str
    disk: SimulatedDisk


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A caller was told that its append is safe."""

    entry: Entry
    seq: int
    position: Position


@dataclass(slots=True)
class Checkers:
    """Raises `Violation` as soon as anything is wrong.

    Attributes:
        voters: The disks that count.
        committed: The one history, as far as any primary called it committed.
        acknowledged: Every append that was acknowledged.
        opened: Who was found to lead each epoch.
    """

    voters: Mapping[str, SimulatedDisk]
    committed: list[LogRecord] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    opened: dict[int, str] = field(default_factory=dict)
    reads: int = 0
    _predecessors: dict[Position, tuple[LogRecord, Position]] = field(default_factory=dict)
    _acknowledged_seq: dict[str, int] = field(default_factory=dict)
    _shown: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    _newest_position: dict[str, Position] = field(default_factory=dict)

    def leads(self, node: str, epoch: int) -> None:
        """A node believes that a majority has sealed `epoch` for it."""
        if self.opened.setdefault(epoch, node) != node:
            raise Violation(f"epoch {epoch} has two primaries: {self.opened[epoch]} and {node}")

    def appends(self, node: str, record: LogRecord, before: Position) -> None:
        """A node appends a record to its log, which ended at `before`."""
        known = self._predecessors.setdefault(record.position, (record, before))
        if known[0] is not record or known[1] != before:
            raise Violation(
                f"{node} holds another record at {record.position}, or another one before it: "
                f"{before}, elsewhere {known[1]}"
            )

    def commits(self, node: str, epoch: int, log: Iterable[LogRecord], lsn: int) -> None:
        """The primary `node` counts everything up to `lsn` as committed; `log` is what its log holds of that."""
        for record in log:
            number = record.position.lsn
            if number <= len(self.committed):
                if self.committed[number - 1] is not record:
                    lost = self.committed[number - 1].position
                    raise Violation(f"{node} commits {record.position}, but {lost} was committed before")
            else:
                self.committed.append(record)
        if not self.committed or lsn > len(self.committed):
            return
        last = self.committed[lsn - 1].position
        if last.epoch != epoch:
            raise Violation(f"{node} committed {last} of an earlier epoch than its own, {epoch}, by count")
        holders = sum(
            disk.log.durable_lsn >= lsn and disk.log.epochs.epoch_at(lsn) == last.epoch
            for disk in self.voters.values()
        )
        if holders < majority(len(self.voters)):
            raise Violation(f"{node} committed {last}, which {holders} of {len(self.voters)} voters hold durably")

    def applies(self, node: str, position: Position, entries: tuple[Entry, ...]) -> None:
        """A standby brings a transaction, or a whole shard, into its shard file."""
        if position.lsn > len(self.committed) or self.committed[position.lsn - 1].position != position:
            raise Violation(f"{node} applied {position} to its shard, which is not committed")
        record = self.committed[position.lsn - 1]
        if record.kind is RecordKind.TRANSACTION and entries[-len(record.entries) :] != record.entries:
            raise Violation(f"{node} applied another content at {position}")

    def publishes(self, node: str, position: Position) -> None:
        """A node tells readers that its shards reach up to `position`."""
        if position < self._newest_position.get(node, START):
            raise Violation(f"the position of {node} went back from {self._newest_position[node]} to {position}")
        self._newest_position[node] = position

    def restarts(self, node: str) -> None:
        """A process may begin behind the one before it: it knows nothing of what is committed."""
        self._newest_position.pop(node, None)

    def acknowledges(self, node: str, epoch: int, floor: int, append: Acknowledged) -> None:
        """A primary answers a caller."""
        if floor > epoch:
            raise Violation(f"{node} acknowledged in epoch {epoch} after it promised epoch {floor} to another")
        if append.position.lsn > len(self.committed):
            raise Violation(f"{node} acknowledged {append.position}, which is not committed")

    def told(self, append: Acknowledged) -> None:
        """The caller has heard of it."""
        self.acknowledged.append(append)
        session = append.entry.session
        self._acknowledged_seq[session] = max(append.seq, self._acknowledged_seq.get(session, 0))

    def acknowledged_seq(self, session: str) -> int:
        """The highest seq of a session that any caller knows, or any reader has been shown."""
        return self._acknowledged_seq.get(session, 0)

    def shown(self, node: str, session: str, keys: tuple[str, ...], at_least: int, *, strict: bool) -> None:
        """A reader was shown a session's entries.

        Args:
            node: Who answered.
            session: Which session.
            keys: Its entries' idempotency keys.
            at_least: What had been acknowledged or shown when a linearizable read began, or the reader's own
                last write.
            strict: A linearizable read: what it shows, every later one must show.
        """
        self.reads += 1
        if len(keys) < at_least:
            raise Violation(
                f"{node} showed {len(keys)} entries of {session}; {at_least} were there before the read"
            )
        if strict:
            self._acknowledged_seq[session] = max(len(keys), self.acknowledged_seq(session))
        self._shown.append((session, keys))

    def finish(self, nodes: Iterable[Observed]) -> None:
        """All is healed and quiet: the nodes are identical, and hold every acknowledged append once, in order."""
        sessions: dict[str, list[str]] = {}
        first: Observed | None = None
        for node in nodes:
            entries = node.disk.shard.entries()
            if first is None:
                first = node
                for entry in entries:
                    sessions.setdefault(entry.session, []).append(entry.key)
            elif node.disk.log.last != first.disk.log.last or entries != first.disk.shard.entries():
                raise Violation(f"{node.name} and {first.name} differ though all is healed")
        for session, keys in sessions.items():
            if len(set(keys)) != len(keys):
                raise Violation(f"session {session} holds an append twice: {keys}")
        for append in self.acknowledged:
            keys = sessions.get(append.entry.session, [])
            if keys[append.seq - 1 : append.seq] != [append.entry.key]:
                raise Violation(f"{append.entry} was acknowledged as entry {append.seq} and is not there")
        for session, shown in self._shown:
            if tuple(sessions.get(session, [])[: len(shown)]) != shown:
                raise Violation(f"a reader was shown entries of {session} that are not in its history")
