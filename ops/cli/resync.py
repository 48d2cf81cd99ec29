"""`headwater resync`."""

from __future__ import annotations

import click
import orjson

from agent_core.stream import from_message
from ops.cli.calls import one_node_option, open_channel, run
from ops.repair import RESYNC_SECONDS, resync_shards


@click.command()
@one_node_option
@click.option("--shard", "shards", type=click.IntRange(0), multiple=True, help="A shard; may be given repeatedly.")
@click.option("--group", "groups", type=click.IntRange(0), multiple=True, help="All shards of a group; likewise.")
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(0, min_open=True),
    default=RESYNC_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the end; the node goes on with it afterwards.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def resync(node: str, shards: tuple[int, ...], groups: tuple[int, ...], seconds: float, as_json: bool) -> None:
    """Make shards of a standby equal to the primary's, by the pages that differ.

    The standby serves its old state meanwhile, and acknowledges nothing until it is done. `headwater verify` finds
    what needs this, and with --repair orders it.

    Example: headwater resync --node 127.0.0.1:7102 --shard 3
    """
    if not shards and not groups:
        raise click.UsageError("name what to resync: --shard N or --group N")
    run(_resync(node, shards, groups, seconds, as_json=as_json))


async def _resync(
    node: str, shards: tuple[int, ...], groups: tuple[int, ...], seconds: float, *, as_json: bool
) -> int:
    channel = open_channel(node)
    try:
        done = await resync_shards(channel, shards=shards, groups=groups, seconds=seconds)
    finally:
        await channel.close()
    if as_json:
        outcome = [
            {"shard": each.shard, "position": str(from_message(each.position)), "pages": each.pages}
            for each in done
        ]
        click.echo(orjson.dumps({"shards": outcome}))
        return 0
    for each in done:
        click.echo(f"shard {each.shard}: {each.pages} pages differed; it contains {from_message(each.position)}")
    return 0
