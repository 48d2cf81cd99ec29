"""`headwater append`, `show`, `sessions` and `tail`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
import orjson
from rich.markup import escape
from rich.table import Table

from agent_core.client import Client, Entry
from agent_core.quorum import Acknowledgement
from ops.cli.calls import console, node_option, run
from ops.cli.plain_text import plain


@click.command()
@click.argument("session")
@click.argument("text", default="-")
@node_option
@click.option("--kind", default="message", show_default=True)
@click.option("--role", type=click.Choice(["user", "assistant", "custom"]), default="user", show_default=True)
@click.option("--create", is_flag=True, help="Create the session if it is not there.")
@click.option("--key", help="Idempotency key: repeating the command with it adds nothing.")
@click.option(
    "--ack", type=click.Choice([mode.value for mode in Acknowledgement]), help="Overrides the cluster's mode."
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def append(
    session: str,
    text: str,
    node: str,
    kind: str,
    role: str,
    create: bool,
    key: str | None,
    ack: str | None,
    as_json: bool,
) -> None:
    """Append TEXT (or standard input, for "-") to SESSION and wait until it is safe.

    Example: headwater append my-session "Please fix the flaky test" --create
    """
    content = sys.stdin.read() if text == "-" else text
    run(_append(session, {"role": role, "content": content}, node, kind, create, key, ack, as_json=as_json))


async def _append(
    session: str,
    payload: dict[str, Any],
    node: str,
    kind: str,
    create: bool,
    key: str | None,
    ack: str | None,
    *,
    as_json: bool,
) -> int:
    async with Client(node) as client:
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
def show(session: str, node: str, after: int, as_json: bool) -> None:
    """Print a session's transcript.

    Example: headwater show my-session
    """
    run(_show(session, node, after, as_json=as_json))


async def _show(session: str, node: str, after: int, *, as_json: bool) -> int:
    async with Client(node) as client:
        async for entry in client.transcript(session, after_seq=after):
            print_entry(entry, as_json=as_json)
    return 0


@click.command()
@click.argument("session")
@node_option
@click.option("--after", type=click.IntRange(0), default=0, help="Begin after this entry.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def tail(session: str, node: str, after: int, as_json: bool) -> None:
    """Print a session's entries, then each new one as it becomes safe, until Ctrl-C.

    Example: headwater tail my-session --after 120
    """
    run(_tail(session, node, after, as_json=as_json))


async def _tail(session: str, node: str, after: int, *, as_json: bool) -> int:
    async with Client(node) as client:
        async for entry in client.subscribe(session, after_seq=after):
            print_entry(entry, as_json=as_json)
            sys.stdout.flush()
    return 0


@click.command()
@node_option
@click.option("--workspace", default="", help="Only this workspace.")
@click.option("--status", default="", help="Only this status.")
@click.option("--model", default="", help="Only this model.")
@click.option("--text", default="", help="Only with this in the title or id.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def sessions(node: str, workspace: str, status: str, model: str, text: str, limit: int, as_json: bool) -> None:
    """List sessions, most recently updated first.

    Example: headwater sessions --workspace web --limit 20
    """
    run(_sessions(node, (workspace, status, model, text), limit, as_json=as_json))


async def _sessions(node: str, filters: tuple[str, str, str, str], limit: int, *, as_json: bool) -> int:
    workspace, status, model, text = filters
    table = Table("session", "workspace", "title", "model", "entries", "updated")
    async with Client(node) as client:
        count = 0
        async for session in client.list_sessions(workspace=workspace, status=status, model=model, text=text):
            if as_json:
                click.echo(orjson.dumps(asdict(session)))
            else:
                cells = (session.session_id, session.workspace, session.title, session.model)
                table.add_row(
                    *(escape(plain(cell)) for cell in cells),
                    str(session.entry_count),
                    moment(session.updated_at_ms),
                )
            count += 1
            if count == limit:
                break
    if not as_json:
        console().print(table)
    return 0


def print_entry(entry: Entry, *, as_json: bool) -> None:
    """One entry, for eyes or for a machine."""
    if as_json:
        head = {"seq": entry.seq, "kind": entry.kind, "created_at_ms": entry.created_at_ms}
        click.echo(orjson.dumps(head)[:-1] + b',"payload":' + entry.payload + b"}")
        return
    document = entry.document()
    message = document.get("message", document) if isinstance(document, dict) else {}
    role = document.get("role") if isinstance(document, dict) else None
    click.secho(f"#{entry.seq} {entry.kind} {plain(str(role or ''))} {moment(entry.created_at_ms)}", bold=True)
    content = message.get("content", document) if isinstance(message, dict) else document
    click.echo(plain(readable(content)))


def readable(content: object) -> str:
    """A message's content as text: blocks one below the other, tool calls with their arguments."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(readable(block) for block in content)
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return str(content["text"])
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()


def moment(milliseconds: int) -> str:
    """A time as people read it, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if milliseconds else ""
