"""`headwater failover-demo`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from ops.cli.calls import EXIT_FAILED, run
from ops.cluster_files import ClusterPlan
from ops.failover_demo import DEFAULT_SECONDS, run_failover_demo
from ops.local_cluster import LocalClusterError


@click.command(name="failover-demo")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.5),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="How long the load runs before the kill, while the node is away, and after its return.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Keep the cluster's files here. [default: removed]")
def failover_demo(seconds: float, data: Path | None) -> None:
    """Start three nodes, append like a fleet of agents, kill the primary, let it come back, count everything.

    The last line says how long no append was acknowledged, and whether every acknowledged entry is on all three
    nodes; the exit code is 0 only if so.

    Example: headwater failover-demo --seconds 4
    """
    run(_failover_demo(seconds, data))


async def _failover_demo(seconds: float, data: Path | None) -> int:
    with tempfile.TemporaryDirectory(prefix="headwater-failover-") as temporary:
        click.echo("Starting three nodes …")
        try:
            outcome = await run_failover_demo(
                data or Path(temporary), plan=ClusterPlan(base_port=0), seconds=seconds, say=click.echo
            )
        except LocalClusterError as error:
            click.echo(f"headwater: {error}", err=True)
            return EXIT_FAILED
    click.echo(str(outcome))
    return 0 if outcome.held else EXIT_FAILED
