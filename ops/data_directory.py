"""Claims a node's data directory: whose it is stands in it, and one daemon at a time holds it.

Everything that could refuse a directory only looks; the first byte is written when nothing speaks against it.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_core.cluster import MAX_VOTERS, RAFT_MEMBERS
from agent_core.errors import Unavailable, WrongCluster
from agent_core.log.segment import sync_directory
from agent_core.routing import MAX_SHARD_COUNT
from ops.settings import NodeConfiguration

IDENTITY_FILE = "identity.json"
_PARTIAL_FILE = "identity.json.partial"

_NOT_FOREIGN = frozenset({_PARTIAL_FILE, "lost+found"})
"""What a directory without an identity may hold: our own interrupted claim, and what mkfs makes."""

_FIXED_SETS = frozenset({"voters", "raft_members"})
"""What makes the cluster another one, though the data is this node's."""


class Identity(BaseModel):
    """Whose data a directory holds. All of it is fixed when the directory is first used.

    Attributes:
        voters: The nodes that count for quorums, sorted. With another set, a majority could form that holds
            nothing of what the old majority acknowledged.
        raft_members: The nodes that keep the map of primaries, sorted; for the same reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format_version: Literal[1] = 1
    cluster_id: str
    node_id: str
    shard_count: int = Field(ge=1, le=MAX_SHARD_COUNT)
    shard_group_count: int = Field(ge=1, le=MAX_SHARD_COUNT)
    voters: tuple[str, ...] = Field(min_length=1, max_length=MAX_VOTERS)
    raft_members: tuple[str, ...] = Field(min_length=1, max_length=max(RAFT_MEMBERS))

    @classmethod
    def of(cls, configuration: NodeConfiguration) -> Self:
        """What the directory of a node with this configuration must hold."""
        return cls(
            cluster_id=configuration.cluster.id,
            node_id=configuration.node.id,
            shard_count=configuration.cluster.shard_count,
            shard_group_count=configuration.cluster.shard_group_count,
            voters=tuple(sorted(node.node_id for node in configuration.cluster_map.voters())),
            raft_members=tuple(sorted(entry.id for entry in configuration.nodes if entry.raft is not None)),
        )


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A directory that this process holds until `release` or its end."""

    path: Path
    identity: Identity
    _descriptor: int

    @classmethod
    def claim(cls, path: Path, identity: Identity) -> Self:
        """Take hold of the directory; on first use, create it and write the identity durably.

        Raises:
            WrongCluster: It holds another cluster's or node's data, data with other counts of shards or groups,
                other voters or Raft members, or of another format version, or files that are not Headwater's. It
                is left as it was.
            Unavailable: Another daemon holds it. It is left as it was.
            OSError: It cannot be read or created; the message names it.
        """
        try:
            _create(path)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the data directory {path} cannot be made: {error.strerror}; "
                "name one that can be written with node.data_directory",
            ) from error
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _occupy(path, identity, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, identity, descriptor)

    def release(self) -> None:
        """Let another daemon have it."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def read_identity(path: Path) -> Identity | None:
    """Whose data a directory holds; None when it has no identity yet.

    Raises:
        WrongCluster: There is an identity that this version cannot read.
    """
    try:
        content = (path / IDENTITY_FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Identity.model_validate_json(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'content'}: {problem['msg']}" for problem in error.errors()
        )
        raise WrongCluster(
            f"{path / IDENTITY_FILE} is not an identity that this version of Headwater reads: {problems}"
        ) from error


def _create(path: Path) -> None:
    """Make the directory and its parents, each new name durable."""
    if path.is_dir():
        return
    if path.parent != path:
        _create(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def _occupy(path: Path, identity: Identity, descriptor: int) -> None:
    try:
        # The lock is on the directory itself: a lock file would already be a change.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unavailable(
            f"the data directory {path} is in use by another daemon; stop that one or give this node its own"
        ) from None
    held = read_identity(path)
    if held is None:
        _refuse_foreign_files(path)
        _write_identity(path, identity, descriptor)
    elif held != identity:
        raise WrongCluster(_difference(path, held, identity))


def _refuse_foreign_files(path: Path) -> None:
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in _NOT_FOREIGN)
    if foreign:
        shown = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise WrongCluster(
            f"the data directory {path} holds files but no {IDENTITY_FILE}, so it is not Headwater's: {shown}; "
            "allowed is an empty directory, one that does not exist, or this node's own"
        )


def _difference(path: Path, held: Identity, wanted: Identity) -> str:
    differing = [name for name in Identity.model_fields if getattr(held, name) != getattr(wanted, name)]
    differences = "; ".join(
        f"{name} is {_shown(getattr(held, name))} there and {_shown(getattr(wanted, name))} in the configuration"
        for name in differing
    )
    if _FIXED_SETS.issuperset(differing):
        return (
            f"the cluster in the data directory {path} was made with other nodes: {differences}. A restart cannot "
            "change who votes: a new majority might hold nothing of what the old one acknowledged. Give [[nodes]] "
            "back the voter and raft settings it had; the data was left as it was"
        )
    return f"the data directory {path} is not this node's: {differences}. It was left as it was"


def _shown(value: str | int | tuple[str, ...]) -> str:
    return f"({', '.join(value)})" if isinstance(value, tuple) else repr(value)


def _write_identity(path: Path, identity: Identity, directory_descriptor: int) -> None:
    partial = path / _PARTIAL_FILE
    with partial.open("wb") as file:
        file.write(orjson.dumps(identity.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path / IDENTITY_FILE)
    os.fsync(directory_descriptor)
