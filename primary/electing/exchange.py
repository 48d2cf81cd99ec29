"""What nodes report to the supervisor, and what it asks for. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

from agent_core.control.commands import RecordPrimary
from agent_core.position import START, Position


@dataclass(frozen=True, slots=True)
class GroupReport:
    """What a node tells of one group that it takes part in.

    Attributes:
        group: The shard group.
        leads_epoch: The epoch that it leads, from its seal on; 0 while it leads none.
        last: The end of its log.
        hears: The primary that it follows; empty when there is none.
        silent_seconds: For how long it has not heard that primary; 0 for the primary itself.
        answered: The number of the last nomination or hand-over request that it is done with; 0 for none.
        able: It could lead: its shards are what its log says, its log takes records, and no error of its disk ended
            its part in the group lately.
    """

    group: int
    leads_epoch: int = 0
    last: Position = START
    hears: str = ""
    silent_seconds: float = 0.0
    answered: int = 0
    able: bool = True


@dataclass(frozen=True, slots=True)
class AskForReport:
    """Ask a node for its reports now."""

    node: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Try to connect to a node's port, and tell `Supervisor.probed` whether it refused."""

    node: str


@dataclass(frozen=True, slots=True)
class Nominate:
    """Ask a node to become the group's primary; its report gives `number` back once it knows how that ended."""

    node: str
    group: int
    number: int


@dataclass(frozen=True, slots=True)
class AskToHandOver:
    """Ask the group's primary to drain and step down in favour of `to`."""

    node: str
    group: int
    to: str
    number: int


@dataclass(frozen=True, slots=True)
class Record:
    """Put a command before the Raft members; proposed again for as long as the map does not show it."""

    command: RecordPrimary


Action = AskForReport | Probe | Nominate | AskToHandOver | Record


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node cannot be given a group.

    Attributes:
        reason: In a sentence.
        passing: It may be otherwise in a moment.
    """

    reason: str
    passing: bool = False
