"""`headwater demo`."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click
import grpc.aio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from agent_core.rpc.administration_pb2 import StatusResponse
from ops.cli.calls import EXIT_FAILED, open_channel, run
from ops.cli.plain_text import plain
from ops.cli.status import status_view
from ops.cli.up import overview
from ops.dashboard.process import DashboardFailed
from ops.demo import DemoProgress, run_demo
from ops.local_cluster import LocalCluster, LocalClusterError
from ops.node_status import ask

REFRESH_SECONDS = 0.5
LINE_SECONDS = 2.0
"""Between two lines where there is no terminal."""


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), help="End after this long. [default: at Ctrl-C]")
@click.option("--data", type=click.Path(path_type=Path), help="Keep the cluster's files here. [default: removed]")
def demo(seconds: float | None, data: Path | None) -> None:
    """Start a primary and two standbys, import the sample, append like a fleet of agents, compare the nodes.

    The first line is the address of the dashboard, which shows all of it in a browser while the demonstration runs.
    The last line says how many entries were acknowledged and whether every standby holds them; the exit code
    is 0 only if so. Ctrl-C ends the load; the comparison comes all the same.

    Example: headwater demo --seconds 20
    """
    try:
        run(_demo(seconds, data))
    except (DashboardFailed, LocalClusterError) as error:
        raise click.ClickException(plain(str(error))) from error


async def _demo(seconds: float | None, data: Path | None) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="headwater-demo-") as temporary:
        async with LiveView(console) as view:
            outcome = await run_demo(
                data or Path(temporary),
                seconds=seconds,
                stop=stop,
                say=lambda dashboard: console.print(f"dashboard: {dashboard}", highlight=False),
                show=view.show,
                refresh_seconds=REFRESH_SECONDS,
            )
    console.print(str(outcome), highlight=False)
    return 0 if outcome.held else EXIT_FAILED


def load_line(progress: DemoProgress, now: float) -> str:
    """How fast entries are acknowledged, and how many were."""
    return (
        f"{progress.rate(now):6.0f} appends/s   latency p50 {progress.percentile(0.5) * 1e3:.1f} ms, "
        f"p99 {progress.percentile(0.99) * 1e3:.1f} ms   {progress.acknowledged} entries acknowledged"
    )


def live_picture(screen: Console, found: Mapping[str, StatusResponse | None], line: str) -> Group:
    """What a terminal shows while the load runs: roles, positions and lag of each node, and the load below."""
    return Group(Text(), status_view(screen, found), Text(), Text(line, style="bold"))


class LiveView:
    """The cluster and the load, redrawn in place on a terminal; a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._introduced = False
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._printed_at = 0.0

    async def __aenter__(self) -> LiveView:
        """Begin to draw."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave the last picture on the screen."""
        if self._live is not None and self._introduced:
            self._live.stop()
        for channel in self._channels.values():
            await channel.close()

    async def show(self, cluster: LocalCluster, progress: DemoProgress) -> None:
        """Draw the present state."""
        if not self._introduced:
            self._introduced = True
            self._console.print(overview(cluster), highlight=False, markup=False, soft_wrap=True)
            self._channels = {node.node_id: open_channel(node.grpc_address) for node in cluster.addresses}
            if self._live is not None:
                self._live.start()
        now = time.monotonic()
        line = load_line(progress, now)
        if self._live is not None:
            self._live.update(live_picture(self._console, await ask(self._channels), line), refresh=True)
        elif now - self._printed_at >= LINE_SECONDS:
            self._printed_at = now
            self._console.print(line, highlight=False)
