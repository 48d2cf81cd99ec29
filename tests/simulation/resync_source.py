"""A simulated primary as the source of resyncs: the order of steps of `primary/resync_source.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_core.position import Position
from agent_core.quorum import CommitTracker, quorum_needs
from primary.progress import StandbyProgress, StandbyState
from primary.resync_source import COMMIT_WAIT_SECONDS
from tests.simulation.network import Stream
from tests.simulation.storage import Entry

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What the shard held when a standby asked for it under a number, and until when that may be committed."""

    number: int
    position: Position | None
    entries: tuple[Entry, ...]
    give_up_at: float


class SimulatedResyncSource:
    """Sends what is in the shard when it is asked for, once that is committed."""

    def __init__(self, node: SimulatedNode, progress: Mapping[str, StandbyProgress]) -> None:
        """Serve from the node's shard; `progress` tells of its standbys."""
        self.node = node
        self._progress = progress
        self._resyncing: dict[Stream, str] = {}

    @property
    def receivers(self) -> Iterable[str]:
        """The nodes that are being resynced."""
        return self._resyncing.values()

    def serve(self, stream: Stream, number: int, tracker: CommitTracker) -> None:
        """A standby wants the whole shard."""
        self._resyncing[stream] = stream.other(self.node).name
        shard, give_up_at = self.node.disk.shard, self.node.clock() + COMMIT_WAIT_SECONDS
        self._answer(stream, _Snapshot(number, shard.contains, shard.entries(), give_up_at), tracker)

    def ended(self, stream: Stream) -> None:
        """A standby gave up."""
        self._resyncing.pop(stream, None)

    def close(self) -> None:
        """Serve nobody any more."""
        for stream in self._resyncing:
            stream.end(self.node, "handed over")
        self._resyncing.clear()

    def _answer(self, stream: Stream, snapshot: _Snapshot, tracker: CommitTracker) -> None:
        if stream not in self._resyncing:
            return
        node = self.node
        committed = snapshot.position is None or snapshot.position.lsn <= tracker.committed_lsn
        if not committed and node.clock() < snapshot.give_up_at:
            node.after(0.05, self._answer, stream, snapshot, tracker)
            return
        if not committed and not self._quorum_needs(stream.other(node).name, tracker):
            del self._resyncing[stream]
            stream.end(node, "not committed in time")
            return
        del self._resyncing[stream]
        stream.send(node, "resynced", snapshot.number, snapshot.position, snapshot.entries, committed)

    def _quorum_needs(self, name: str, tracker: CommitTracker) -> bool:
        next_lsn = max(tracker.opening_lsn, tracker.committed_lsn + 1)
        holding = [
            standby
            for standby, one in self._progress.items()
            if one.state is StandbyState.STREAMING and one.durable_lsn >= next_lsn
        ]
        resyncing = frozenset(self._resyncing.values())
        return quorum_needs(name, self.node.voters, {self.node.name, *holding}, resyncing)
