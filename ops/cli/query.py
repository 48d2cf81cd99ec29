"""`headwater query`."""

from __future__ import annotations

import csv
import sys

import click
import orjson
from rich.markup import escape
from rich.table import Table

from agent_core.client import Reader
from ops.cli.calls import console, node_option, run
from ops.cli.plain_text import plain


@click.command()
@click.argument("sql")
@node_option
@click.option("--session", help="The shard that holds this session.")
@click.option("--shard", type=click.IntRange(0), default=0, show_default=True, help="The shard.")
@click.option("--workspace", is_flag=True, help="The workspace shard.")
@click.option(
    "--max-rows",
    type=click.IntRange(1, 2**32 - 1),
    default=1000,
    show_default=True,
    help="Where to cut the result; the node's limits.sql_rows bounds it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print columns and rows as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print rows as CSV.")
def query(
    sql: str,
    node: str,
    session: str | None,
    shard: int,
    workspace: bool,
    max_rows: int,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Run read-only SQL over one shard of a node, in a process with limits on time, memory and size.

    Useful views: session_overview, transcript.

    \b
    Example:
      headwater query "SELECT kind, count(*) FROM transcript GROUP BY kind" \\
        --node 127.0.0.1:7102 --session my-session
    """  # noqa: D301 - click wants the character itself
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if session is not None and workspace:
        raise click.UsageError("--session and --workspace exclude each other")
    run(_query(sql, node, session, shard, max_rows, workspace=workspace, as_json=as_json, as_csv=as_csv))


async def _query(
    sql: str,
    node: str,
    session: str | None,
    shard: int,
    max_rows: int,
    *,
    workspace: bool,
    as_json: bool,
    as_csv: bool,
) -> int:
    async with Reader(node) as reader:
        answer = await reader.query(sql, shard=shard, session_id=session, workspace=workspace, max_rows=max_rows)
    if as_json:
        click.echo(orjson.dumps({"columns": answer.columns, "rows": answer.rows, "truncated": answer.truncated}))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(answer.columns)
        writer.writerows(answer.rows)
    else:
        table = Table(*(escape(plain(column)) for column in answer.columns))
        for row in answer.rows:
            table.add_row(*("" if value is None else escape(plain(str(value))) for value in row))
        console().print(table)
        cut = ", cut at the limit" if answer.truncated else ""
        click.echo(f"{len(answer.rows)} rows{cut}, shard {answer.shard} at {answer.position}", err=True)
    return 0
