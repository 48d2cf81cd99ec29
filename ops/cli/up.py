"""`headwater up`: a local cluster of real processes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
import orjson
import uvloop

from agent_core.cluster import MAX_VOTERS, NodeAddress
from agent_core.quorum import Acknowledgement
from agent_core.routing import MAX_SHARD_COUNT
from ops.cli.plain_text import plain
from ops.cluster_files import CONFIGURATION_FILE, ClusterPlan
from ops.config_problems import InvalidConfiguration
from ops.local_cluster import LocalCluster, LocalClusterError

EXIT_FAILED = 1
EXIT_USAGE = 2

VOTER, READER = "voter", "reader"


@click.command(epilog="Exit codes: 0 stopped by you, 1 a node failed, 2 the cluster cannot be made like this.")
@click.option(
    "--data", "directory", required=True, type=click.Path(path_type=Path, file_okay=False), help="Its folder."
)
@click.option("--nodes", "voters", type=click.IntRange(1, MAX_VOTERS), help="Voting nodes. [default: 3]")
@click.option("--readers", type=click.IntRange(0, 32), help="Further nodes that only follow. [default: 0]")
@click.option(
    "--base-port",
    type=click.IntRange(1, 65_000),
    help="gRPC port of node-1, the others follow; HTTP is 100 above. [default: 7101]",
)
@click.option("--shards", type=click.IntRange(1, MAX_SHARD_COUNT), help="Shard files. [default: 16]")
@click.option("--groups", type=click.IntRange(1, MAX_SHARD_COUNT), help="Shard groups. [default: 1]")
@click.option(
    "--ack",
    type=click.Choice([mode.value for mode in Acknowledgement]),
    help="When writes are safe. [default: quorum]",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the nodes' logs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when the cluster is ready.")
@click.pass_context
def up(
    context: click.Context,
    *,
    directory: Path,
    voters: int | None,
    readers: int | None,
    base_port: int | None,
    shards: int | None,
    groups: int | None,
    ack: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Start a cluster on this machine, each node a process of its own, and stop it with Ctrl-C.

    Each node has a folder with its configuration, log and data, as it could be copied to a machine of its own.
    A cluster that is in the folder already goes on with the settings it was made with.

    \b
    Example:
      headwater up --nodes 3 --data /tmp/cluster
    """  # noqa: D301 - click wants the character itself
    cluster_settings = {"shard_count": shards, "shard_group_count": groups, "acknowledgement": ack}
    given = {key: value for key, value in cluster_settings.items() if value is not None}
    plan = ClusterPlan(voters=voters, readers=readers, base_port=base_port, settings={"cluster": given})
    try:
        cluster = LocalCluster(directory, plan, on_log_line=_show_log_line if verbose else None)
    except InvalidConfiguration as error:
        click.echo(f"headwater: {error}", err=True)
        context.exit(EXIT_USAGE)
    except OSError as error:
        click.echo(f"headwater: {directory} cannot be used: {error.strerror}; name another with --data", err=True)
        context.exit(EXIT_USAGE)
    context.exit(uvloop.run(run_until_stopped(cluster, as_json=as_json)))


async def run_until_stopped(cluster: LocalCluster, *, as_json: bool) -> int:
    """Run the cluster until SIGINT or SIGTERM, or until a node fails; returns the exit code."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    try:
        click.echo(f"Starting {len(cluster.addresses)} nodes in {cluster.directory} …", err=True)
        if not await _before(stop, cluster.start()):
            return 0
        click.echo(orjson.dumps(describe(cluster)).decode() if as_json else overview(cluster))
        failed = asyncio.create_task(cluster.unexpected_exit())
        if await _before(stop, asyncio.shield(failed)):
            click.echo(f"headwater: {failed.result()}", err=True)
            return EXIT_FAILED
        failed.cancel()
        click.echo("Stopping …", err=True)
    except (LocalClusterError, OSError) as error:
        click.echo(f"headwater: the cluster did not start: {error}", err=True)
        return EXIT_FAILED
    finally:
        await cluster.stop()
    return 0


def describe(cluster: LocalCluster) -> dict[str, Any]:
    """The running cluster, for a machine to read."""
    return {
        "cluster_id": next(iter(cluster.configurations.values())).cluster.id,
        "nodes": [
            {
                "node_id": node.node_id,
                "role": _role(node),
                "grpc": node.grpc_address,
                "http": f"http://{node.http_address}",
                "metrics": f"http://{node.http_address}/metrics",
                "configuration": str(cluster.directory / node.node_id / CONFIGURATION_FILE),
                "log": str(cluster.log_paths[node.node_id]),
                "pid": cluster.pid(node.node_id),
            }
            for node in cluster.addresses
        ],
    }


def overview(cluster: LocalCluster) -> str:
    """The running cluster, for a person to read."""
    settings = next(iter(cluster.configurations.values())).cluster
    rows = [
        ("node", "gRPC", "HTTP", "metrics"),
        *(
            (_named(node["node_id"], node["role"]), node["grpc"], node["http"], node["metrics"])
            for node in describe(cluster)["nodes"]
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    groups = "1 group" if settings.shard_group_count == 1 else f"{settings.shard_group_count} groups"
    nodes = ",".join(node.http_address for node in cluster.addresses)
    return (
        f"Cluster {settings.id} is ready: {settings.shard_count} shards in {groups}, "
        f"acknowledgement {settings.acknowledgement.value}.\n\n{table}\n\n"
        "HTTP serves reads, explained at /docs, and health at /readyz.\n"
        f"Configuration, log and data of each node are in {cluster.directory}/<node>.\n"
        f"A web page that shows it: headwater dashboard --nodes {nodes}\n"
        "Ctrl-C stops them all."
    )


def _role(node: NodeAddress) -> str:
    return VOTER if node.voter else READER


def _named(node_id: str, role: str) -> str:
    return node_id if role == VOTER else f"{node_id} ({role})"


async def _before(stop: asyncio.Event, work: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> bool:
    """Whether `work` was done before `stop` was set; otherwise it is cancelled. Raises what it raised."""
    working, stopping = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    done = working.done()
    for task in (working, stopping):
        task.cancel()
    await asyncio.wait([working, stopping])
    if done:
        await working
    return done


def _show_log_line(node_id: str, line: str) -> None:
    click.echo(f"{node_id}  {plain(line)}", err=True)
