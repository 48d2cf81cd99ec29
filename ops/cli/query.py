"""`headwater query`."""

from __future__ import annotations

import csv
import sys

import click
import orjson
from rich.markup import escape
from rich.table import Table

from agent_core.rpc.read_pb2 import QueryRequest
from agent_core.rpc.read_pb2_grpc import ReadingStub
from ops.cli.calls import console, node_option, open_channel, run
from ops.cli.plain_text import plain


@click.command()
@click.argument("sql")
@node_option
@click.option("--session", help="The shard that holds this session.")
@click.option("--shard", type=click.IntRange(0), default=0, show_default=True, help="The shard.")
@click.option("--max-rows", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print columns and rows as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print rows as CSV.")
def query(sql: str, node: str, session: str | None, shard: int, max_rows: int, as_json: bool, as_csv: bool) -> None:
    """Run read-only SQL over one shard of a node, in a process with limits on time, memory and size.

    Useful views: session_overview, transcript.

    Example: headwater query "SELECT kind, count(*) FROM transcript GROUP BY kind" --node 127.0.0.1:7102
    """
    target = QueryRequest(session_id=session) if session else QueryRequest(shard=shard)
    target.MergeFrom(QueryRequest(sql=sql, max_rows=max_rows))
    run(_query(target, node, as_json=as_json, as_csv=as_csv))


async def _query(request: QueryRequest, node: str, *, as_json: bool, as_csv: bool) -> int:
    async with open_channel(node) as channel:
        answer = await ReadingStub(channel).Query(request)
    rows = orjson.loads(answer.rows_json)
    if as_json:
        click.echo(orjson.dumps({"columns": list(answer.columns), "rows": rows, "truncated": answer.truncated}))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(answer.columns)
        writer.writerows(rows)
    else:
        table = Table(*(escape(plain(column)) for column in answer.columns))
        for row in rows:
            table.add_row(*("" if value is None else escape(plain(str(value))) for value in row))
        console().print(table)
        position = answer.position.position
        cut = ", cut at the limit" if answer.truncated else ""
        click.echo(
            f"{answer.row_count} rows{cut}, shard {answer.shard} at {position.epoch}:{position.lsn}", err=True
        )
    return 0
