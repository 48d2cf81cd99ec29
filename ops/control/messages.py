"""How the control plane's values stand in messages."""

from __future__ import annotations

from collections.abc import Iterable

from agent_core.rpc import control_pb2 as pb
from agent_core.stream import from_message, to_message
from primary.electing.exchange import GroupReport


def reports_to_message(reports: Iterable[GroupReport]) -> pb.FromNode:
    """A node's reports as it sends them."""
    groups = [
        pb.GroupReport(
            group=report.group,
            leads_epoch=report.leads_epoch,
            last=to_message(report.last),
            hears=report.hears,
            silent_seconds=report.silent_seconds,
            answered=report.answered,
            able=report.able,
        )
        for report in reports
    ]
    return pb.FromNode(reports=pb.Reports(groups=groups))


def reports_from_message(message: pb.Reports) -> list[GroupReport]:
    """A node's reports as they came."""
    return [
        GroupReport(
            group=report.group,
            leads_epoch=report.leads_epoch,
            last=from_message(report.last),
            hears=report.hears,
            silent_seconds=max(0.0, report.silent_seconds),
            answered=report.answered,
            able=report.able,
        )
        for report in message.groups
    ]
