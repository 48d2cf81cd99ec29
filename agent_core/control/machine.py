"""The one deterministic state machine of the control state: a map and a command make the next map. Pure.

It never raises and reads no clock, so every Raft member comes to the same map from the same commands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent_core.control.cluster_map import ClusterMap, Member, Placement
from agent_core.control.commands import Command, Form, RecordPrimary, SetDraining


@dataclass(frozen=True, slots=True)
class Applied:
    """The command was carried out; the map may be the one there was."""

    map: ClusterMap


@dataclass(frozen=True, slots=True)
class Refused:
    """The command changes nothing, and why, in a sentence."""

    reason: str


def apply(cluster_map: ClusterMap, command: Command) -> Applied | Refused:
    """Carry out a command."""
    match command:
        case Form():
            return _form(cluster_map, command)
        case RecordPrimary():
            return _record_primary(cluster_map, command)
        case SetDraining():
            return _set_draining(cluster_map, command)


def _form(cluster_map: ClusterMap, form: Form) -> Applied | Refused:
    if not cluster_map.version:
        placements = (Placement(),) * form.shard_group_count
        return Applied(ClusterMap(1, form.cluster_id, form.shard_count, form.members, placements))
    for field, held, asked in (
        ("cluster.id", cluster_map.cluster_id, form.cluster_id),
        ("cluster.shard_count", cluster_map.shard_count, form.shard_count),
        ("cluster.shard_group_count", len(cluster_map.placements), form.shard_group_count),
        ("the nodes", _names(cluster_map.members), _names(form.members)),
        ("the voters", _voters(cluster_map.members), _voters(form.members)),
        ("the Raft members", _raft_members(cluster_map.members), _raft_members(form.members)),
    ):
        if held != asked:
            return Refused(
                f"the configuration says that {field} is {asked}, but the cluster was formed with {held}; "
                "that cannot be changed by a restart"
            )
    draining = {member.node_id: member.draining for member in cluster_map.members}
    members = tuple(replace(member, draining=draining[member.node_id]) for member in form.members)
    if members == cluster_map.members:
        return Applied(cluster_map)
    return Applied(replace(cluster_map, version=cluster_map.version + 1, members=members))


def _record_primary(cluster_map: ClusterMap, command: RecordPrimary) -> Applied | Refused:
    if not 0 <= command.group < len(cluster_map.placements):
        return Refused(f"group is {command.group}; the cluster has {len(cluster_map.placements)}")
    if command.primary not in cluster_map.voters():
        return Refused(f"primary is {command.primary!r}; allowed are the voters {', '.join(cluster_map.voters())}")
    placement = cluster_map.placements[command.group]
    if placement.epoch != command.expected_epoch or command.epoch <= placement.epoch:
        return Refused(
            f"group {command.group} is in epoch {placement.epoch}, led by {placement.primary}; "
            f"refused epoch {command.epoch}, which expects epoch {command.expected_epoch}"
        )
    placements = list(cluster_map.placements)
    placements[command.group] = Placement(command.epoch, command.primary)
    return Applied(replace(cluster_map, version=cluster_map.version + 1, placements=tuple(placements)))


def _set_draining(cluster_map: ClusterMap, command: SetDraining) -> Applied | Refused:
    names = [member.node_id for member in cluster_map.members]
    if command.node_id not in names:
        return Refused(f"node_id is {command.node_id!r}; allowed are {', '.join(names) or '(none)'}")
    members = tuple(
        replace(member, draining=command.draining) if member.node_id == command.node_id else member
        for member in cluster_map.members
    )
    if members == cluster_map.members:
        return Applied(cluster_map)
    return Applied(replace(cluster_map, version=cluster_map.version + 1, members=members))


def _names(members: tuple[Member, ...]) -> str:
    return ", ".join(sorted(member.node_id for member in members))


def _voters(members: tuple[Member, ...]) -> str:
    return _names(tuple(member for member in members if member.voter))


def _raft_members(members: tuple[Member, ...]) -> str:
    return _names(tuple(member for member in members if member.raft_address is not None))
