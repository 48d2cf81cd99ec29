"""What changes the cluster's map."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import orjson

from agent_core.control.cluster_map import Member


@dataclass(frozen=True, slots=True)
class Form:
    """Form the cluster as the nodes' configuration describes it."""

    cluster_id: str
    shard_count: int
    members: tuple[Member, ...]
    shard_group_count: int


@dataclass(frozen=True, slots=True)
class RecordPrimary:
    """A node won an epoch: compare-and-set on the epoch that the map shows."""

    group: int
    expected_epoch: int
    epoch: int
    primary: str


@dataclass(frozen=True, slots=True)
class SetDraining:
    """A node shall lead nothing, or may lead again."""

    node_id: str
    draining: bool


Command = Form | RecordPrimary | SetDraining

_COMMANDS: dict[str, type[Command]] = {kind.__name__: kind for kind in (Form, RecordPrimary, SetDraining)}


def to_json(command: Command) -> str:
    """A command as it goes through Raft."""
    return orjson.dumps({"command": type(command).__name__, **asdict(command)}).decode()


def from_json(text: str) -> Command:
    """Read a command.

    Raises:
        ValueError: It is none.
    """
    try:
        fields = orjson.loads(text)
        kind = _COMMANDS[fields.pop("command")]
        if kind is Form:
            fields["members"] = tuple(Member(**member) for member in fields["members"])
        return kind(**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a command of the control state: {text[:200]!r}") from error
