"""`headwater query`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence

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
@click.option("--shard", type=click.IntRange(0), help="This shard only.")
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
    nodes: Sequence[str],
    session: str | None,
    shard: int | None,
    workspace: bool,
    max_rows: int,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Run read-only SQL over all shards of a node, or over one, in a process with limits on time, memory and size.

    Over all shards (DuckDB): sessions, entries, model_calls, tool_calls, active_time, tokens_by_model_and_day,
    tool_calls_by_name, sessions_by_workspace, documents, properties, links. Over one (SQLite): session_overview,
    transcript; with --workspace: documents, properties, links, documents_text (FTS5).

    \b
    Example:
      headwater query "FROM tokens_by_model_and_day ORDER BY day" --node 127.0.0.1:7102
      headwater query "SELECT kind, count(*) FROM transcript GROUP BY kind" --session my-session
    """  # noqa: D301 - click wants the character itself
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if session is not None and workspace:
        raise click.UsageError("--session and --workspace exclude each other")
    run(_query(sql, nodes, session, shard, max_rows, workspace=workspace, as_json=as_json, as_csv=as_csv))


async def _query(
    sql: str,
    nodes: Sequence[str],
    session: str | None,
    shard: int | None,
    max_rows: int,
    *,
    workspace: bool,
    as_json: bool,
    as_csv: bool,
) -> int:
    async with Reader(nodes) as reader:
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
        where = "all shards" if answer.shard is None else f"shard {answer.shard}"
        at = ", ".join(f"{group}={position}" for group, position in sorted(answer.positions.items()))
        click.echo(f"{len(answer.rows)} rows{cut}, {where} at {at}", err=True)
    return 0
