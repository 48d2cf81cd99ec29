"""`headwater workspace`: sync, documents, show and search."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from agent_core.client.workspaces import Workspaces
from agent_core.errors import HeadwaterError, InvalidRequest
from agent_core.workspace.document import LinkKind, Property
from agent_core.workspace.names import check_workspace
from agent_core.workspace.stored import DocumentSummary
from ops.cli.calls import EXIT_FAILED, console, node_option, run
from ops.cli.plain_text import plain
from ops.cli.rendering import moment
from ops.cli.tables import fitting
from ops.workspace.claimed_index import ClaimedIndex
from ops.workspace.folder import Folder
from ops.workspace.source import NoIdentity, claim_of
from ops.workspace.sync import DocumentIndex, SyncSummary, WorkspaceSync
from ops.workspace.watching import passes

WRITE_SECONDS = 30.0
READ_SECONDS = 3.0
MAX_SOURCE_CHARACTERS = 128
COLUMNS = ("path", "kind", "title", "bytes", "indexed")


def _checked_workspace(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    try:
        return check_workspace(name)
    except InvalidRequest as error:
        raise click.BadParameter(str(error)) from None


def _checked_source(_context: click.Context, _parameter: click.Parameter, name: str | None) -> str | None:
    if name is not None and not (1 <= len(name) <= MAX_SOURCE_CHARACTERS and name.isprintable()):
        raise click.BadParameter(f"must be 1 to {MAX_SOURCE_CHARACTERS} printable characters")
    return name


def _properties(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> list[Property]:
    properties = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE, for example status=open")
        properties.append(Property(name, value))
    return properties


workspace_option = click.option(
    "--workspace", required=True, metavar="NAME", callback=_checked_workspace, help="The workspace."
)
limit_option = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Documents at most."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")


@click.group()
def workspace() -> None:
    """Index a folder of Markdown files, and read the index on any node.

    \b
    Example:
      headwater workspace sync ./notes --workspace notes
      headwater workspace search --workspace notes "write ahead log"
    """  # noqa: D301 - click wants the character itself


@workspace.command(short_help="Index a folder, and follow its changes.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@workspace_option
@node_option
@click.option("--once", is_flag=True, help="End after the first pass instead of watching the folder.")
@click.option("--take-over", is_flag=True, help="Also if another folder is the workspace's source so far.")
@click.option(
    "--source",
    "source",
    metavar="NAME",
    envvar="HEADWATER_WORKSPACE_SOURCE",
    callback=_checked_source,
    help="What this source is known by, instead of this folder's path on this machine: for folders that move, and "
    "containers. Also from the environment variable HEADWATER_WORKSPACE_SOURCE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each pass as a line of JSON.")
def sync(
    directory: Path,
    workspace: str,
    nodes: Sequence[str],
    once: bool,
    take_over: bool,
    source: str | None,
    as_json: bool,
) -> None:
    """Make the workspace's index equal to the Markdown files below DIRECTORY, then follow its changes until Ctrl-C.

    Files called *.md and *.markdown are documents; names that begin with a dot are passed over. YAML front matter
    gives kind, title and properties. Files that went are taken out of the index, renamed ones move. A second sync
    changes nothing.

    A workspace has one source: another folder, or this path on another machine, is refused with exit code 5 until
    it is told to --take-over. The sync that followed the former source then ends, with the same exit code.

    What cannot be indexed, or only in part, is reported with file and line, the rest goes on, and with --once the
    exit code is 1.

    \b
    Example:
      headwater workspace sync ./notes --workspace notes --once
    """  # noqa: D301 - click wants the character itself
    run(_sync(directory, workspace, nodes, source, take_over=take_over, once=once, as_json=as_json))


async def _sync(
    directory: Path,
    workspace: str,
    nodes: Sequence[str],
    source: str | None,
    *,
    take_over: bool,
    once: bool,
    as_json: bool,
) -> int:
    try:
        folder = Folder(directory)
        claim = claim_of(folder.root, source, take_over=take_over)
        async with Workspaces(nodes, timeout_seconds=WRITE_SECONDS) as workspaces:
            index = ClaimedIndex(workspaces, claim)
            if once:
                summary = await _one_pass(index, workspace, folder)
                _tell_pass(summary, (), as_json=as_json, always=True)
                return EXIT_FAILED if summary.problems else 0
            return await _follow(index, workspace, folder, as_json=as_json)
    except NoIdentity as error:
        click.echo(f"headwater: {plain(str(error))}; or name this source with --source", err=True)
        return EXIT_FAILED
    except OSError as error:
        click.echo(f"headwater: the folder cannot be read: {plain(str(error))}", err=True)
        return EXIT_FAILED


async def _one_pass(index: DocumentIndex, workspace: str, folder: Folder) -> SyncSummary:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task("indexing", total=None)
        return await WorkspaceSync(
            index,
            workspace,
            folder,
            lambda settled, differences: progress.update(task, completed=settled, total=differences),
        ).run()


async def _follow(index: DocumentIndex, workspace: str, folder: Folder, *, as_json: bool) -> int:
    told: Sequence[str] = ()
    first = True
    async with aclosing(passes(WorkspaceSync(index, workspace, folder), folder)) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, HeadwaterError):
                click.echo(f"headwater: {plain(str(outcome))}; trying again", err=True)
                continue
            _tell_pass(outcome, told, as_json=as_json, always=first)
            told, first = outcome.problems, False
    return 0


def _tell_pass(summary: SyncSummary, told: Collection[str], *, as_json: bool, always: bool) -> None:
    """One line of a pass that changed something, and the problems that are new."""
    for problem in summary.problems:
        if problem not in told:
            click.echo(plain(problem), err=True)
    if not (always or summary.added or summary.changed or summary.removed or summary.problems != list(told)):
        return
    if as_json:
        click.echo(orjson.dumps(asdict(summary)))
        return
    now = datetime.now(UTC).strftime("%H:%M:%S")
    click.echo(
        f"{now} {summary.documents} documents: {summary.added} added, {summary.changed} changed, "
        f"{summary.removed} removed, {len(summary.problems)} problems"
    )


@workspace.command()
@workspace_option
@node_option
@click.option("--kind", default="", help="Only of this kind.")
@click.option(
    "--property",
    "properties",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_properties,
    help="Only with this property; several: all of them.",
)
@click.option("--prefix", default="", help="Only with paths that begin so.")
@click.option("--links-to", default="", metavar="PATH", help="Only those that link to this document.")
@click.option("--linked-from", default="", metavar="PATH", help="Only those that this document links to.")
@limit_option
@json_option
def documents(
    workspace: str,
    nodes: Sequence[str],
    kind: str,
    properties: list[Property],
    prefix: str,
    links_to: str,
    linked_from: str,
    limit: int,
    as_json: bool,
) -> None:
    """List documents by path; several filters hold together.

    \b
    Example:
      headwater workspace documents --workspace notes --kind decision --property status=open
      headwater workspace documents --workspace notes --links-to storage/wal.md --node 127.0.0.1:7102
    """  # noqa: D301 - click wants the character itself
    filters = {
        "kind": kind,
        "properties": properties,
        "path_prefix": prefix,
        "links_to": links_to,
        "linked_from": linked_from,
    }
    run(_documents(workspace, nodes, filters, limit, as_json=as_json))


async def _documents(
    workspace: str, nodes: Sequence[str], filters: dict[str, Any], limit: int, *, as_json: bool
) -> int:
    found = await _found(workspace, nodes, filters, limit)
    if as_json:
        for one in found:
            click.echo(orjson.dumps(one._asdict()))
    else:
        screen = console()
        screen.print(fitting(screen, partial(documents_table, found), ("indexed", "bytes", "kind")))
    return 0


@workspace.command()
@workspace_option
@node_option
@limit_option
@json_option
@click.argument("words", nargs=-1, required=True)
def search(workspace: str, nodes: Sequence[str], limit: int, as_json: bool, words: tuple[str, ...]) -> None:
    """Look for WORDS in titles and texts, the best document first.

    All words must occur; "a phrase" in this order; begin* stands for any word that begins so.

    \b
    Example:
      headwater workspace search --workspace notes checkpoint '"write ahead log"' 'replic*'
    """  # noqa: D301 - click wants the character itself
    run(_search(workspace, nodes, " ".join(words), limit, as_json=as_json))


async def _search(workspace: str, nodes: Sequence[str], text: str, limit: int, *, as_json: bool) -> int:
    for one in await _found(workspace, nodes, {"text": text}, limit):
        if as_json:
            click.echo(orjson.dumps(one._asdict()))
        else:
            click.secho(plain(f"{one.path}  {one.title}"), bold=True)
            click.echo(f"  {plain(one.snippet)}")
    return 0


async def _found(
    workspace: str, nodes: Sequence[str], filters: dict[str, Any], limit: int
) -> list[DocumentSummary]:
    found: list[DocumentSummary] = []
    async with Workspaces(nodes, timeout_seconds=READ_SECONDS) as index:
        async for one in index.documents(workspace, **filters, page_size=min(limit, 1000)):
            found.append(one)
            if len(found) == limit:
                break
    return found


@workspace.command(short_help="Print one document.")
@workspace_option
@node_option
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
@click.argument("path")
def show(workspace: str, nodes: Sequence[str], as_json: bool, path: str) -> None:
    """Print the document at PATH: its properties, its links and where they lead, its text.

    \b
    Example:
      headwater workspace show --workspace notes storage/wal.md
    """  # noqa: D301 - click wants the character itself
    run(_show(workspace, nodes, path, as_json=as_json))


async def _show(workspace: str, nodes: Sequence[str], path: str, *, as_json: bool) -> int:
    async with Workspaces(nodes, timeout_seconds=READ_SECONDS) as index:
        document = await index.document(workspace, path)
    if as_json:
        click.echo(orjson.dumps(document.fields()))
        return 0
    click.secho(plain(f"{document.summary.path}  {document.summary.title}"), bold=True)
    if document.summary.problem:
        click.echo(plain(document.summary.problem), err=True)
    for name, value in document.properties:
        click.echo(plain(f"{name}: {value}"))
    for link in document.links:
        leads = link.target_path or ("nowhere" if link.kind in {LinkKind.DOCUMENT, LinkKind.WIKI} else link.kind)
        click.echo(plain(f"→ {link.target} ({leads})"))
    click.echo(f"\n{plain(document.body.strip())}")
    return 0


def documents_table(found: Sequence[DocumentSummary], omitted: Collection[str] = ()) -> Table:
    """One line for each document, without the omitted columns."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    columns = [column for column in COLUMNS if column not in omitted]
    for column in columns:
        # The title alone gives way: a path that was cut could not be passed to `show`.
        table.add_column(
            column,
            justify="right" if column == "bytes" else "left",
            no_wrap=column != "title",
            overflow="ellipsis" if column == "title" else "fold",
        )
    for one in found:
        cells = {
            "path": one.path,
            "kind": one.kind,
            "title": one.title,
            "bytes": str(one.size_bytes),
            "indexed": moment(one.updated_at_ms),
        }
        table.add_row(*(Text(plain(cells[column]), no_wrap=True) for column in columns))
    return table
