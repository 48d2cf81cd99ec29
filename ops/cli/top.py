"""`headwater top`."""

from __future__ import annotations

import sys
from functools import partial

import click

from ops.cli.calls import addresses, nodes_option, open_channel, run
from ops.top.app import TopApp
from ops.top.history import FRESH_SECONDS, ClusterHistory
from ops.top.polling import poll


@click.command()
@nodes_option
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often each node is asked.",
)
def top(nodes: str, interval: float) -> None:
    """Show the cluster live: nodes, groups, roles, positions, lag over time, appends/s, busiest sessions.

    Keys: q quit, s sort, p pause, arrows and Enter for a node in full, ? help. A node that does not answer keeps
    its last row, which says how old it is.

    Example: headwater top --nodes 127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(
            "top needs a terminal; `headwater status` prints the same once, --watch again and again"
        )
    run(_top(list(dict.fromkeys(addresses(nodes))), interval))


async def _top(nodes: list[str], interval: float) -> int:
    channels = {node: open_channel(node) for node in nodes}
    history = ClusterHistory(nodes, fresh_seconds=FRESH_SECONDS + 2 * interval)
    app = TopApp(history, partial(poll, channels, history, interval=interval))
    try:
        await app.run_async()
    finally:
        for channel in channels.values():
            await channel.close()
    return app.return_code or 0
