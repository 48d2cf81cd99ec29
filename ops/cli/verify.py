"""`headwater verify`."""

from __future__ import annotations

import click
import grpc.aio
import orjson

from ops.cli.calls import EXIT_FAILED, addresses, nodes_option, open_channel, run
from ops.cli.plain_text import plain
from ops.repair import RESYNC_SECONDS, repair
from ops.verify import DIGEST_SECONDS, ShardComparison, compare_nodes


@click.command()
@nodes_option
@click.option(
    "--repair",
    "repairing",
    is_flag=True,
    help="Resync each standby's shards that differ from the primary's, then compare again.",
)
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(0, min_open=True),
    default=DIGEST_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long a node may take to hash one shard.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def verify(nodes: str, repairing: bool, seconds: float, as_json: bool) -> None:
    """Compare every shard of the nodes, page by page, at one position; exit code 1 when any differs.

    With --repair the exit code tells whether they are identical in the end.

    Example: headwater verify --nodes 127.0.0.1:7101,127.0.0.1:7102

    Example: headwater verify --repair
    """
    run(_verify(addresses(nodes), repairing=repairing, seconds=seconds, as_json=as_json))


async def _verify(nodes: list[str], *, repairing: bool, seconds: float, as_json: bool) -> int:
    channels = {node: open_channel(node) for node in nodes}
    try:
        comparisons = await compare_nodes(channels, digest_seconds=seconds)
        if repairing and not _identical(comparisons):
            comparisons = await _repair(channels, comparisons, seconds=seconds, quiet=as_json)
    finally:
        for channel in channels.values():
            await channel.close()
    identical = _identical(comparisons)
    if as_json:
        click.echo(orjson.dumps({"identical": identical, "shards": [_as_json(each) for each in comparisons]}))
    else:
        _tell(comparisons)
        click.echo(f"shards identical: {'yes' if identical else 'no'}")
    return 0 if identical else EXIT_FAILED


async def _repair(
    channels: dict[str, grpc.aio.Channel], comparisons: list[ShardComparison], *, seconds: float, quiet: bool
) -> list[ShardComparison]:
    if not quiet:
        _tell(comparisons)
    orders, beyond = await repair(channels, comparisons, seconds=RESYNC_SECONDS)
    if not quiet:
        for order in orders:
            click.echo(f"resynced on {order.node}: shards {', '.join(map(str, order.shards))}")
    for reason in beyond:
        click.echo(f"headwater: {plain(reason)}", err=True)
    return await compare_nodes(channels, digest_seconds=seconds)


def _identical(comparisons: list[ShardComparison]) -> bool:
    return all(comparison.problem is None for comparison in comparisons)


def _tell(comparisons: list[ShardComparison]) -> None:
    for comparison in comparisons:
        if comparison.problem is not None:
            pages = f" {list(comparison.differing_pages)}" if comparison.differing_pages else ""
            click.echo(f"shard {comparison.shard}: {plain(comparison.problem)}{pages}")


def _as_json(comparison: ShardComparison) -> dict[str, object]:
    return {
        "shard": comparison.shard,
        "pages": comparison.page_count,
        "differing_pages": comparison.differing_pages,
        "problem": comparison.problem,
    }
