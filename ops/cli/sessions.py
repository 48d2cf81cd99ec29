"""`headwater append`, `show`, `sessions` and `tail`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from agent_core.client import Client, Entry, Reader, Session
from agent_core.quorum import Acknowledgement
from agent_core.tracing import Tracer
from ops.cli.calls import console, node_option, run
from ops.cli.moments import MOMENT
from ops.cli.plain_text import plain
from ops.cli.rendering import body, heading, json_line, moment
from ops.cli.tables import fitting
from ops.cli.tracing import trace_option, traced

READ_SECONDS = 3.0
"""How long a node may take to answer a reading command; nothing is lost by asking again."""

SESSION_COLUMNS = ("session", "workspace", "title", "model", "entries", "updated")
TITLE_COLUMNS = 60
"""Of the screen, at most."""


@click.command()
@click.argument("session")
@click.argument("text", default="-")
@node_option
@click.option("--kind", default="message", show_default=True, help="What the entry is.")
@click.option(
    "--role",
    type=click.Choice(["user", "assistant", "custom"]),
    default="user",
    show_default=True,
    help="Who says it, if it is a message.",
)
@click.option("--create", is_flag=True, help="Create the session if it is not there.")
@click.option("--key", help="Idempotency key: repeating the command with it adds nothing.")
@click.option(
    "--ack", type=click.Choice([mode.value for mode in Acknowledgement]), help="Overrides the cluster's mode."
)
@trace_option
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def append(
    session: str,
    text: str,
    nodes: Sequence[str],
    kind: str,
    role: str,
    create: bool,
    key: str | None,
    ack: str | None,
    trace_endpoint: str,
    as_json: bool,
) -> None:
    """Append TEXT (or standard input, for "-") to SESSION and wait until it is safe.

    TEXT is what a message says; for any other --kind it is the entry itself, a JSON object.

    \b
    Example:
      headwater append my-session "Please fix the flaky test" --create
      headwater append my-session "And the slow one" --node 10.0.0.1:7101,10.0.0.2:7101,10.0.0.3:7101
    """  # noqa: D301 - click wants the character itself
    payload = payload_of(kind, role, _standard_input() if text == "-" else text)
    with traced(trace_endpoint) as tracer:
        run(_append(session, payload, nodes, kind, create, key, ack, tracer, as_json=as_json))


async def _append(
    session: str,
    payload: dict[str, Any],
    nodes: Sequence[str],
    kind: str,
    create: bool,
    key: str | None,
    ack: str | None,
    tracer: Tracer | None,
    *,
    as_json: bool,
) -> int:
    async with Client(nodes, tracer=tracer) as client:
        if create:
            await client.create_session(session_id=session)
        mode = Acknowledgement(ack) if ack else None
        outcome = await client.append(session, kind, payload, idempotency_key=key, acknowledgement=mode)
    if as_json:
        click.echo(
            orjson.dumps({"seq": outcome.seq, "position": str(outcome.position), "duplicate": outcome.duplicate})
        )
    else:
        known = ", already there" if outcome.duplicate else ""
        click.echo(f"entry {outcome.seq} of {session} at {outcome.position}{known}")
    return 0


@click.command()
@click.argument("session")
@node_option
@click.option("--after", type=click.IntRange(0), default=0, help="Begin after this entry.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def show(session: str, nodes: Sequence[str], after: int, as_json: bool) -> None:
    """Print a session's transcript, as far as the node has it: a standby shows what it has applied.

    Example: headwater show my-session
    """
    run(_show(session, nodes, after, as_json=as_json))


async def _show(session: str, nodes: Sequence[str], after: int, *, as_json: bool) -> int:
    async with Reader(nodes, timeout_seconds=READ_SECONDS) as reader:
        async for entry in reader.transcript(session, after_seq=after):
            print_entry(entry, as_json=as_json)
    return 0


@click.command()
@click.argument("session")
@node_option
@click.option("--after", type=click.IntRange(0), default=0, help="Begin after this entry.")
@click.option("--until-caught-up", is_flag=True, help="End where the present end of the transcript is reached.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def tail(session: str, nodes: Sequence[str], after: int, until_caught_up: bool, as_json: bool) -> None:
    """Print a session's entries, then each new one as it becomes safe, until Ctrl-C.

    When the node that is followed dies, another one is, which --node names or that one had told of: no entry is
    missed or printed twice.

    Example: headwater tail my-session --after 120
    """
    run(_tail(session, nodes, after, until_caught_up=until_caught_up, as_json=as_json))


async def _tail(session: str, nodes: Sequence[str], after: int, *, until_caught_up: bool, as_json: bool) -> int:
    async with Client(nodes) as client:
        async for entry in client.subscribe(session, after_seq=after, until_caught_up=until_caught_up):
            print_entry(entry, as_json=as_json)
            sys.stdout.flush()
    return 0


@click.command()
@node_option
@click.option("--workspace", default="", help="Only this workspace.")
@click.option("--status", default="", help="Only this status.")
@click.option("--model", default="", help="Only this model.")
@click.option("--text", default="", help="Only with this in the title or id.")
@click.option("--updated-after", "updated_after_ms", type=MOMENT, default=0, help="Only updated after this.")
@click.option("--updated-before", "updated_before_ms", type=MOMENT, default=0, help="Only updated before this.")
@click.option("--created-after", "created_after_ms", type=MOMENT, default=0, help="Only created after this.")
@click.option("--created-before", "created_before_ms", type=MOMENT, default=0, help="Only created before this.")
@click.option(
    "--sort",
    type=click.Choice(["updated", "created", "title"]),
    default="updated",
    show_default=True,
    help="What the list is ordered by.",
)
@click.option(
    "--order",
    type=click.Choice(["asc", "desc"]),
    help="[default: newest first, titles from their first letter]",
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Sessions at most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def sessions(nodes: Sequence[str], order: str | None, limit: int, as_json: bool, **wanted: Any) -> None:  # noqa: ANN401 - what `list_sessions` takes
    """List sessions, most recently updated first if no order is asked for.

    Moments are written 2026-11-24 or 2026-11-24T15:30:00+01:00; without an offset, the time is this machine's.

    Example: headwater sessions --workspace web --sort title --limit 20
    """
    run(_sessions(nodes, limit, {"order": order or "", **wanted}, as_json=as_json))


async def _sessions(nodes: Sequence[str], limit: int, wanted: dict[str, Any], *, as_json: bool) -> int:
    found: list[Session] = []
    async with Reader(nodes, timeout_seconds=READ_SECONDS) as reader:
        count = 0
        async for session in reader.list_sessions(**wanted):
            if as_json:
                click.echo(orjson.dumps(asdict(session)))
            else:
                found.append(session)
            count += 1
            if count == limit:
                break
    if not as_json:
        screen = console()
        screen.print(fitting(screen, partial(sessions_table, found), ("workspace", "model", "updated")))
    return 0


def sessions_table(found: Sequence[Session], omitted: Collection[str] = ()) -> Table:
    """One line for each session, without the omitted columns."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    columns = [column for column in SESSION_COLUMNS if column not in omitted]
    for column in columns:
        # The title alone gives way: an id that was cut could not be passed to `show`.
        title = column == "title"
        table.add_column(
            column,
            justify="right" if column == "entries" else "left",
            no_wrap=not title,
            overflow="ellipsis" if title else "fold",
            max_width=TITLE_COLUMNS if title else None,
        )
    for session in found:
        cells = {
            "session": session.session_id,
            "workspace": session.workspace,
            "title": session.title,
            "model": session.model,
            "entries": str(session.entry_count),
            "updated": moment(session.updated_at_ms),
        }
        table.add_row(*(Text(plain(cells[column]), no_wrap=True) for column in columns))
    return table


def print_entry(entry: Entry, *, as_json: bool) -> None:
    """One entry, for eyes or for a machine."""
    if as_json:
        click.echo(json_line(entry))
        return
    click.secho(heading(entry), bold=True)
    click.echo(body(entry))


def payload_of(kind: str, role: str, text: str) -> dict[str, Any]:
    """What to append: a message of that text, or the JSON object that the text is.

    Raises:
        click.BadParameter: The kind is not `message` and the text is not a JSON object.
    """
    if kind == "message":
        return {"role": role, "content": [{"type": "text", "text": text}]}
    try:
        payload = orjson.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"an entry of kind {kind!r} is a JSON object: {error}") from None
    if not isinstance(payload, dict):
        raise click.BadParameter(f"an entry of kind {kind!r} is a JSON object; got a {type(payload).__name__}")
    return payload


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"standard input is not UTF-8: {error}") from None
