"""`headwater status`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import click
import grpc.aio
import orjson
from google.protobuf.json_format import MessageToDict
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agent_core.rpc.administration_pb2 import GroupElection, GroupStatus, StatusResponse
from ops.cli.calls import EXIT_FAILED, EXIT_UNREACHABLE, addresses, console, nodes_option, open_channel, run
from ops.cli.plain_text import plain
from ops.cli.tables import duration, fitting
from ops.node_status import ask

WATCH_SECONDS = 0.5

COLUMNS = ("node", "group", "role", "epoch", "durable", "committed", "applied", "lag", "WAL", "log", "state")
NUMBERS = frozenset({"group", "epoch", "durable", "committed", "applied", "lag", "WAL", "log"})
MIN_WIDTHS = {"durable": 8, "committed": 9, "applied": 8, "lag": 15, "WAL": 8, "log": 8}
"""Room for what these become: a table that is drawn again and again keeps its columns in place."""
DISPENSABLE = ("log", "committed", "epoch", "WAL", "group")
"""What a narrow screen goes without, the first one first."""

GROUP_COLUMNS = ("group", "epoch", "primary", "standbys", "sealed")


@click.command()
@nodes_option
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")
def status(nodes: str, watch: bool, as_json: bool) -> None:
    """Show who leads which group, the voters' seals, and each node's roles, positions, lag and sizes.

    A seal is the epoch that a voter promised to follow nothing below. Two seals that differ are normal for a moment
    during an election, and for as long as a voter is away.

    Exit code 1 when some node is not ready or not reached, 3 when none is reached.

    Example: headwater status --watch
    """
    run(_status(addresses(nodes), watch=watch, as_json=as_json))


async def _status(nodes: list[str], *, watch: bool, as_json: bool) -> int:
    channels = {node: open_channel(node) for node in nodes}
    try:
        found = await ask(channels)
        if as_json:
            states: dict[str, Any] = {
                node: MessageToDict(answer, preserving_proto_field_name=True) if answer else None
                for node, answer in found.items()
            }
            click.echo(orjson.dumps(states))
        elif watch:
            await _watch(console(), channels)
        else:
            screen = console()
            screen.print(status_view(screen, found))
    finally:
        for channel in channels.values():
            await channel.close()
    answers = [answer for answer in found.values() if answer is not None]
    if not answers:
        return EXIT_UNREACHABLE
    return EXIT_FAILED if len(answers) < len(nodes) or any(answer.not_ready for answer in answers) else 0


async def _watch(screen: Console, channels: Mapping[str, grpc.aio.Channel]) -> None:
    """Redraw in place on a terminal; elsewhere print one state below the other. Ends by being cancelled."""
    if not screen.is_terminal:
        while True:
            screen.print(status_view(screen, await ask(channels)))
            await asyncio.sleep(WATCH_SECONDS)
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            live.update(status_view(screen, await ask(channels)), refresh=True)
            await asyncio.sleep(WATCH_SECONDS)


def status_view(screen: Console, found: Mapping[str, StatusResponse | None]) -> Group:
    """The state of several nodes for people: a table with the columns that the screen is wide enough for."""
    table = fitting(screen, partial(status_table, found), DISPENSABLE)
    answers = [answer for answer in found.values() if answer is not None]
    clusters = sorted(
        {f"cluster {answer.cluster_id}, acknowledgement {answer.acknowledgement}" for answer in answers}
    )
    heading: list[Text | Table] = [Text(plain(cluster), style="bold") for cluster in clusters]
    if answers:
        # Of several nodes the one with the newest map knows best.
        newest = max(answers, key=lambda answer: (answer.map_version, bool(answer.raft_leader)))
        heading.append(Text(plain(_control_line(answers, newest))))
        if newest.elections:
            heading += [group_table(answers, newest), Text()]
    reasons = [
        Text(f"{plain(answer.node_id)} is not ready: {plain(reason)}", style="red")
        for answer in answers
        for reason in answer.not_ready
    ]
    return Group(*heading, table, *reasons)


def status_table(found: Mapping[str, StatusResponse | None], omitted: Collection[str] = ()) -> Table:
    """One row for each group of each node, without the omitted columns."""
    columns = [column for column in COLUMNS if column not in omitted]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in NUMBERS else "left"
        table.add_column(column, justify=justify, no_wrap=True, min_width=MIN_WIDTHS.get(column))
    for address, answer in found.items():
        rows = (
            [{"node": address, "state": "[red]not reached[/red]"}]
            if answer is None
            else [_row(answer, group) for group in answer.groups]
        )
        for row in rows:
            table.add_row(*(row.get(column, "") for column in columns))
    return table


def _control_line(answers: Sequence[StatusResponse], newest: StatusResponse) -> str:
    leader = f"Raft leader {newest.raft_leader}" if newest.raft_leader else "no Raft leader"
    if newest.raft_leader and newest.raft_leader not in {answer.node_id for answer in answers}:
        # A member goes on naming a leader that died until there is another.
        leader += " (not reached)"
    return f"{leader}, draining: {', '.join(newest.draining)}" if newest.draining else leader


def group_table(answers: Sequence[StatusResponse], newest: StatusResponse) -> Table:
    """One row for each group: who leads it as the map records it, who follows, and which epoch each node sealed."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in GROUP_COLUMNS:
        table.add_column(column, justify="right" if column in NUMBERS else "left")
    for election in newest.elections:
        standbys = [
            answer.node_id if group.role == "standby" else f"{answer.node_id} ({group.role})"
            for answer in answers
            for group in answer.groups
            if group.group == election.group and group.role != "primary" and answer.node_id != election.primary
        ]
        cells = (
            str(election.group),
            str(election.epoch),
            _primary(answers, election),
            ", ".join(standbys),
            _seals(answers, election.group),
        )
        table.add_row(*(escape(plain(cell)) for cell in cells))
    return table


def _primary(answers: Sequence[StatusResponse], election: GroupElection) -> str:
    """The primary as the map records it, and whether it says itself that it does not lead."""
    roles = {
        answer.node_id: group.role for answer in answers for group in answer.groups if group.group == election.group
    }
    if not election.primary:
        return "nobody"
    stepped_down = roles.get(election.primary, "primary") != "primary"
    return f"{election.primary} (stepped down)" if stepped_down else election.primary


def _seals(answers: Sequence[StatusResponse], group: int) -> str:
    """The promised epochs, the highest first, each with the nodes that promised it."""
    holders: dict[int, list[str]] = {}
    for answer in answers:
        for election in answer.elections:
            if election.group == group:
                holders.setdefault(election.promised_epoch, []).append(answer.node_id)
    return "; ".join(f"{epoch} by {', '.join(nodes)}" for epoch, nodes in sorted(holders.items(), reverse=True))


def _row(answer: StatusResponse, group: GroupStatus) -> dict[str, str]:
    return {
        "node": escape(plain(answer.node_id)),
        "group": str(group.group),
        "role": escape(plain(group.role)),
        "epoch": str(group.epoch),
        "durable": str(group.durable.lsn),
        "committed": str(group.committed_lsn),
        "applied": str(group.applied_lsn),
        "lag": "" if group.role == "primary" else f"{group.lag_transactions} tx, {duration(group.lag_seconds)}",
        "WAL": f"{group.wal_bytes / 1e6:.1f} MB",
        "log": f"{group.log_bytes / 1e6:.1f} MB",
        "state": "[red]not ready[/red]" if answer.not_ready else escape(plain(group.state)),
    }
