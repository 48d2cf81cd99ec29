"""What happened between two pictures of the cluster: fail-overs, switch-overs, nodes that came and went. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ops.dashboard.cluster.picture import Group, Node, Picture


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened: how serious it is, an icon's name, and a sentence."""

    level: Literal["good", "neutral", "warning", "bad"]
    icon: str
    sentence: str


def changes(before: Picture, after: Picture) -> list[Change]:
    """What happened, elections first."""
    return [
        *(change for group in after.groups for change in _of_group(_find(before.groups, group), group, after)),
        *(change for node in after.nodes for change in _of_node(_named(before, node.node_id), node)),
        *_of_raft(before, after),
    ]


def _of_group(before: Group | None, after: Group, picture: Picture) -> Iterator[Change]:
    if before is None:
        return
    if after.epoch > before.epoch:
        if after.primary == before.primary:
            sentence = f"Group {after.group}: {after.primary} leads again, in epoch {after.epoch}"
            yield Change("neutral", "how_to_vote", sentence)
        else:
            old = _named(picture, before.primary)
            gone = old is not None and old.answers is False
            how = "fail-over" if gone else "change of primary"
            yield Change(
                "warning" if gone else "neutral",
                "how_to_vote",
                f"Group {after.group}: {how} from {before.primary or 'nobody'} to {after.primary or 'nobody'}, "
                f"epoch {before.epoch} → {after.epoch}",
            )
    connected = {member.node_id: member.connected for member in before.members}
    for member in after.members:
        was = connected.get(member.node_id)
        if was is True and member.connected is False:
            yield Change("warning", "link_off", f"Group {after.group}: {member.node_id} lost its primary")
        elif was is False and member.connected is True:
            yield Change("good", "link", f"Group {after.group}: {member.node_id} follows {after.primary}")


def _of_node(before: Node | None, after: Node) -> Iterator[Change]:
    if before is None:
        yield Change("neutral", "add_circle", f"{after.node_id} is part of the cluster")
        return
    if after.answers is False and before.answers is not False:
        yield Change("bad", "heart_broken", f"{after.node_id} stopped answering: {'; '.join(after.problems)}")
    elif before.answers is False and after.answers is not False:
        yield Change("good", "favorite", f"{after.node_id} is back")
    if after.draining != before.draining:
        said = "is draining: it shall lead nothing" if after.draining else "may lead again"
        yield Change("neutral", "water_drop", f"{after.node_id} {said}")


def _of_raft(before: Picture, after: Picture) -> Iterator[Change]:
    if after.raft_leader and before.raft_leader and after.raft_leader != before.raft_leader:
        sentence = f"Raft leader: {before.raft_leader} → {after.raft_leader}"
        yield Change("neutral", "account_tree", sentence)


def _find(groups: tuple[Group, ...], wanted: Group) -> Group | None:
    return next((group for group in groups if group.group == wanted.group), None)


def _named(picture: Picture, node_id: str) -> Node | None:
    return next((node for node in picture.nodes if node.node_id == node_id), None)
