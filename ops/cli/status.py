"""`headwater status`."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import grpc.aio
import orjson
from google.protobuf.json_format import MessageToDict
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from agent_core.rpc.administration_pb2 import StatusRequest, StatusResponse
from agent_core.rpc.administration_pb2_grpc import AdministrationStub
from ops.cli.calls import EXIT_FAILED, EXIT_UNREACHABLE, addresses, console, nodes_option, open_channel, run
from ops.cli.plain_text import plain

WATCH_SECONDS = 0.5
CALL_SECONDS = 2.0


@click.command()
@nodes_option
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")
def status(nodes: str, watch: bool, as_json: bool) -> None:
    """Show each node's roles, positions, lag, WAL sizes and acknowledgement mode.

    Exit code 1 when some node is not ready or not reached, 3 when none is reached.

    Example: headwater status --watch
    """
    run(_status(addresses(nodes), watch=watch, as_json=as_json))


async def _status(nodes: list[str], *, watch: bool, as_json: bool) -> int:
    channels = {node: open_channel(node) for node in nodes}
    try:
        found = await _ask(channels)
        if as_json:
            states: dict[str, Any] = {
                node: MessageToDict(answer, preserving_proto_field_name=True) if answer else None
                for node, answer in found.items()
            }
            click.echo(orjson.dumps(states))
        elif watch:
            with Live(status_table(found), auto_refresh=False) as live:
                while True:
                    live.update(status_table(await _ask(channels)), refresh=True)
                    await asyncio.sleep(WATCH_SECONDS)
        else:
            console().print(status_table(found))
    finally:
        for channel in channels.values():
            await channel.close()
    answers = [answer for answer in found.values() if answer is not None]
    if not answers:
        return EXIT_UNREACHABLE
    return EXIT_FAILED if len(answers) < len(nodes) or any(answer.not_ready for answer in answers) else 0


async def _ask(channels: dict[str, grpc.aio.Channel]) -> dict[str, StatusResponse | None]:
    async def one(channel: grpc.aio.Channel) -> StatusResponse | None:
        try:
            return await AdministrationStub(channel).Status(StatusRequest(), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            return None

    return dict(zip(channels, await asyncio.gather(*map(one, channels.values())), strict=True))


def status_table(found: dict[str, StatusResponse | None]) -> Table:
    """The state of several nodes, one row for each group of each node."""
    table = Table("node", "group", "role", "epoch", "durable", "committed", "applied", "lag", "WAL", "log", "state")
    for address, answer in found.items():
        if answer is None:
            table.add_row(address, *[""] * 9, "[red]not reached[/red]")
            continue
        for group in answer.groups:
            lag = "" if group.role == "primary" else f"{group.lag_transactions} tx, {group.lag_seconds:.3f} s"
            state = "; ".join(answer.not_ready) or f"{group.state} (ack={answer.acknowledgement})"
            state = escape(plain(state))
            table.add_row(
                escape(plain(answer.node_id)),
                str(group.group),
                group.role,
                str(group.epoch),
                str(group.durable.lsn),
                str(group.committed_lsn),
                str(group.applied_lsn),
                lag,
                f"{group.wal_bytes / 1e6:.1f} MB",
                f"{group.log_bytes / 1e6:.1f} MB",
                state,
            )
    return table
