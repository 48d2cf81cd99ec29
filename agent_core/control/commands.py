"""What may be done to the cluster's map, and its JSON form. `agent_core.control.machine` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from agent_core.control.cluster_map import MAX_JSON_BYTES, MAX_MEMBERS, STRICT, Epoch, Member, describe
from agent_core.errors import InvalidRequest
from agent_core.routing import MAX_SHARD_COUNT

Group = Annotated[int, Field(ge=0, lt=MAX_SHARD_COUNT)]
Count = Annotated[int, Field(ge=1, le=MAX_SHARD_COUNT)]


@dataclass(frozen=True, slots=True)
class Form:
    """Make the configuration the cluster's map, or, once there is one, find that both agree.

    Attributes:
        cluster_id: The cluster's name.
        shard_count: Session shards.
        members: Every node as configured; `draining` is not looked at.
        shard_group_count: Groups, at most `shard_count`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    cluster_id: str
    shard_count: Count
    members: Annotated[tuple[Member, ...], Field(max_length=MAX_MEMBERS)]
    shard_group_count: Count


@dataclass(frozen=True, slots=True)
class RecordPrimary:
    """Compare-and-set: if the group's epoch is `expected_epoch`, it is now `epoch`, led by `primary`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    group: Group
    expected_epoch: Epoch
    epoch: Epoch
    primary: str


@dataclass(frozen=True, slots=True)
class SetDraining:
    """Say whether a node is to be free of groups."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    node_id: str
    draining: bool


Command: TypeAlias = Form | RecordPrimary | SetDraining


@dataclass(frozen=True, slots=True)
class _Envelope:
    """`{"form": {…}}`: a command under its name."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    form: Form | None = None
    record_primary: RecordPrimary | None = None
    set_draining: SetDraining | None = None


_JSON = TypeAdapter(_Envelope)


def to_json(command: Command) -> str:
    """The command as one line of JSON."""
    match command:
        case Form():
            envelope = _Envelope(form=command)
        case RecordPrimary():
            envelope = _Envelope(record_primary=command)
        case SetDraining():
            envelope = _Envelope(set_draining=command)
    return _JSON.dump_json(envelope, exclude_defaults=True).decode()


def from_json(text: str) -> Command:
    """Read what `to_json` wrote.

    Raises:
        InvalidRequest: It is not a command that this version knows.
    """
    if len(text) > MAX_JSON_BYTES:
        raise InvalidRequest(f"a command of {len(text)} characters; allowed are {MAX_JSON_BYTES}")
    try:
        envelope = _JSON.validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(f"not a command: {describe(error)}") from error
    named = [
        command
        for command in (envelope.form, envelope.record_primary, envelope.set_draining)
        if command is not None
    ]
    if len(named) != 1:
        raise InvalidRequest(f"not a command: content names {len(named)} commands; allowed is one")
    return named[0]
