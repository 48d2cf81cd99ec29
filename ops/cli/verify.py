"""`headwater verify`."""

from __future__ import annotations

import click
import orjson

from ops.cli.calls import EXIT_FAILED, addresses, nodes_option, open_channel, run
from ops.verify import compare_nodes


@click.command()
@nodes_option
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def verify(nodes: str, as_json: bool) -> None:
    """Compare every shard of the nodes, page by page, at one position; exit code 1 when any differs.

    Example: headwater verify --nodes 127.0.0.1:7101,127.0.0.1:7102
    """
    run(_verify(addresses(nodes), as_json=as_json))


async def _verify(nodes: list[str], *, as_json: bool) -> int:
    channels = {node: open_channel(node) for node in nodes}
    try:
        comparisons = await compare_nodes(channels)
    finally:
        for channel in channels.values():
            await channel.close()
    identical = all(comparison.problem is None for comparison in comparisons)
    if as_json:
        shards = [
            {
                "shard": comparison.shard,
                "pages": comparison.page_count,
                "differing_pages": comparison.differing_pages,
                "problem": comparison.problem,
            }
            for comparison in comparisons
        ]
        click.echo(orjson.dumps({"identical": identical, "shards": shards}))
        return 0 if identical else EXIT_FAILED
    for comparison in comparisons:
        if comparison.problem is not None:
            click.echo(f"shard {comparison.shard}: {comparison.problem} {list(comparison.differing_pages) or ''}")
    click.echo(f"shards identical: {'yes' if identical else 'no'}")
    return 0 if identical else EXIT_FAILED
