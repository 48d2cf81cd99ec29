"""When a write counts as safe: the acknowledgement modes and the arithmetic of majorities.

Pure decisions. The durable lsns of the voters go in; the lsn up to which everything is committed comes out.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from enum import StrEnum


class Acknowledgement(StrEnum):
    """What must hold before a caller is told that its write is safe."""

    LOCAL = "local"
    """The primary's own log holds it, with fsync."""
    QUORUM = "quorum"
    """A majority of the group's voters hold it durably, the primary counted."""
    ALL = "all"
    """Every voter holds it durably."""


def majority(voters: int) -> int:
    """How many of `voters` make a majority."""
    return voters // 2 + 1


def quorum_needs(node: str, voters: Set[str], holding: Set[str], resyncing: Set[str]) -> bool:
    """Whether nothing is committed until `node` is resynced.

    Args:
        node: The node that waits for the end of its resync.
        voters: All voters of the group.
        holding: Nodes that hold what must be committed first.
        resyncing: Nodes that wait like `node`; several may be needed, and each of them waits for the others.

    That is so when the voters that hold it make no majority, and with those that are being resynced they do.
    """
    needed = majority(len(voters))
    others = (holding & voters) - {node}
    return node in voters and len(others) < needed <= len(others | (resyncing & voters) | {node})


@dataclass(slots=True)
class CommitTracker:
    """Counts the voters' durable lsns of one group in one epoch.

    A record of an earlier epoch is never committed by counting alone (Raft, section 5.4.2): nothing counts
    before the record that opened this epoch, and with it everything before it.

    Attributes:
        primary: The node that leads; its durable lsn is its own log's.
        voters: All voters of the group, the primary among them.
        opening_lsn: The lsn of the record that opened the epoch.
        committed_lsn: Never goes back.
    """

    primary: str
    voters: frozenset[str]
    opening_lsn: int
    committed_lsn: int = 0
    _durable: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.primary in self.voters, f"{self.primary} leads a group in which it does not vote"

    def durable(self, node: str, lsn: int) -> bool:
        """Take note that `node` holds everything up to `lsn` durably; True when the committed lsn rose.

        A voter's number may go back: it was cut, or its disk was replaced. The committed lsn stays.
        """
        if node not in self.voters:
            return False
        self._durable[node] = lsn
        reached = sorted((self._durable.get(voter, 0) for voter in self.voters), reverse=True)
        candidate = reached[majority(len(self.voters)) - 1]
        if candidate < self.opening_lsn or candidate <= self.committed_lsn:
            return False
        self.committed_lsn = candidate
        return True

    def goes_on_from(self, node: str, lsn: int) -> None:
        """Take note that `node` holds nothing past `lsn` any more, whatever it told before.

        What it holds up to there it must tell itself: its log may hold more than it acknowledges.
        """
        if lsn < self._durable.get(node, 0):
            self._durable[node] = lsn

    def safe_lsn(self, mode: Acknowledgement) -> int:
        """The lsn up to which writes count as acknowledged under `mode`."""
        match mode:
            case Acknowledgement.LOCAL:
                return self._durable.get(self.primary, 0)
            case Acknowledgement.QUORUM:
                return self.committed_lsn
            case Acknowledgement.ALL:
                everywhere = min(self._durable.get(voter, 0) for voter in self.voters)
                return min(everywhere, self.committed_lsn)
