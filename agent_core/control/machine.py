"""The state machine of the cluster's map: a map and a command give the next map, or a reason why not. Pure.

Every Raft member runs the same commands in the same order through it, so it must answer from its two arguments
alone and must not raise whatever they hold: a command that is refused here is refused everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from agent_core.control import commands
from agent_core.control.cluster_map import ClusterMap, Member, Placement
from agent_core.control.commands import Command, Form, RecordPrimary, SetDraining
from agent_core.errors import InvalidRequest
from agent_core.routing import MAX_SHARD_COUNT


@dataclass(frozen=True, slots=True)
class Applied:
    """The command holds now; `cluster_map` is the same as before when it held already."""

    cluster_map: ClusterMap


@dataclass(frozen=True, slots=True)
class Refused:
    """The map stays as it is; `reason` is a sentence for whoever asked."""

    reason: str


Outcome: TypeAlias = Applied | Refused


def apply(cluster_map: ClusterMap, command: Command) -> Outcome:
    """What a command does to a map."""
    match command:
        case Form():
            return _form(cluster_map, command)
        case _ if not cluster_map.formed:
            return Refused("the cluster is not formed yet; a majority of its Raft members must have started")
        case RecordPrimary():
            return _record_primary(cluster_map, command)
        case SetDraining():
            return _set_draining(cluster_map, command)


def apply_json(cluster_map: ClusterMap, text: str) -> Outcome:
    """`apply` for a command as it comes out of the Raft log; one that cannot be read is refused."""
    try:
        command = commands.from_json(text)
    except InvalidRequest as error:
        return Refused(str(error))
    return apply(cluster_map, command)


def _form(cluster_map: ClusterMap, command: Form) -> Outcome:
    if cluster_map.formed:
        return _agree(cluster_map, command)
    formed = ClusterMap(
        version=1,
        cluster_id=command.cluster_id,
        shard_count=command.shard_count,
        members=tuple(replace(member, draining=False) for member in command.members),
        # One more than is allowed is enough to be found wrong, and a length may not be just anything.
        placements=(Placement(),) * min(max(command.shard_group_count, 0), MAX_SHARD_COUNT + 1),
    )
    problems = list(formed.problems())
    return Refused("; ".join(problems[:5])) if problems else Applied(formed)


def _agree(cluster_map: ClusterMap, command: Form) -> Outcome:
    differences = [*_scalar_differences(cluster_map, command), *_member_differences(cluster_map, command)]
    if differences:
        return Refused(
            f"the configuration is not that of cluster {cluster_map.cluster_id}: {'; '.join(differences[:5])}; "
            "these are fixed when a cluster is created"
        )
    configured = {member.node_id: member for member in command.members}
    members = tuple(replace(configured[member.node_id], draining=member.draining) for member in cluster_map.members)
    outcome = _changed(cluster_map, members=members)
    problems = list(outcome.cluster_map.problems())
    return Refused("; ".join(problems[:5])) if problems else outcome


def _scalar_differences(cluster_map: ClusterMap, command: Form) -> Iterator[str]:
    for name, held, configured in (
        ("cluster_id", cluster_map.cluster_id, command.cluster_id),
        ("shard_count", cluster_map.shard_count, command.shard_count),
        ("shard_group_count", len(cluster_map.placements), command.shard_group_count),
    ):
        if held != configured:
            yield f"{name} is {held!r} in the cluster and {configured!r} in the configuration"


def _member_differences(cluster_map: ClusterMap, command: Form) -> Iterator[str]:
    held, configured = cluster_map.members, command.members
    for what, names, wanted in (
        ("nodes", _names(held), _names(configured)),
        ("voters", _names(m for m in held if m.voter), _names(m for m in configured if m.voter)),
        (
            "Raft members",
            _names(m for m in held if m.raft_address is not None),
            _names(m for m in configured if m.raft_address is not None),
        ),
    ):
        if names != wanted:
            yield f"the {what} are {', '.join(names)} in the cluster and {', '.join(wanted)} in the configuration"


def _names(members: Iterator[Member] | tuple[Member, ...]) -> list[str]:
    return sorted(member.node_id for member in members)


def _record_primary(cluster_map: ClusterMap, command: RecordPrimary) -> Outcome:
    if not 0 <= command.group < len(cluster_map.placements):
        return Refused(f"group is {command.group}; allowed are 0 to {len(cluster_map.placements) - 1}")
    held = cluster_map.placements[command.group]
    wanted = Placement(command.epoch, command.primary)
    if held == wanted:
        # Whoever asked did not hear the answer the first time.
        return Applied(cluster_map)
    if held.epoch != command.expected_epoch:
        return Refused(f"group {command.group} is in epoch {held.epoch}, not in {command.expected_epoch}")
    if not held.epoch < command.epoch < 2**63:
        return Refused(f"epoch is {command.epoch}; allowed are those past group {command.group}'s {held.epoch}")
    if command.primary not in cluster_map.voters():
        return Refused(f"primary is {command.primary!r}; allowed are the voters {', '.join(cluster_map.voters())}")
    before, after = cluster_map.placements[: command.group], cluster_map.placements[command.group + 1 :]
    return _changed(cluster_map, placements=(*before, wanted, *after))


def _set_draining(cluster_map: ClusterMap, command: SetDraining) -> Outcome:
    names = [member.node_id for member in cluster_map.members]
    if command.node_id not in names:
        return Refused(f"node_id is {command.node_id!r}; allowed are {', '.join(names)}")
    return _changed(
        cluster_map,
        members=tuple(
            replace(member, draining=command.draining) if member.node_id == command.node_id else member
            for member in cluster_map.members
        ),
    )


def _changed(
    cluster_map: ClusterMap,
    *,
    members: tuple[Member, ...] | None = None,
    placements: tuple[Placement, ...] | None = None,
) -> Applied:
    """The next version, unless nothing differs."""
    after = replace(
        cluster_map,
        members=cluster_map.members if members is None else members,
        placements=cluster_map.placements if placements is None else placements,
    )
    return Applied(cluster_map if after == cluster_map else replace(after, version=cluster_map.version + 1))
