"""`headwater import`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from agent_core.client import Client
from ops.cli.calls import EXIT_FAILED, node_option, run
from ops.cli.plain_text import plain
from ops.cli.rendering import counted
from ops.importing import import_files, transcript_files


@click.command(name="import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@node_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def import_transcripts(paths: tuple[Path, ...], nodes: Sequence[str], as_json: bool) -> None:
    """Bring in transcripts: Claude Code logs, SWE-agent trajectories, JSON Lines; told apart by content.

    Importing a file again adds nothing. A line that is broken, or that the cluster refuses, is reported with file
    and line number (in a trajectory: the message's), the rest goes on, and the exit code is 1.

    Example: headwater import ~/.claude/projects
    """
    run(_import(paths, nodes, as_json=as_json))


async def _import(paths: tuple[Path, ...], nodes: Sequence[str], *, as_json: bool) -> int:
    files = transcript_files(paths)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[entries]} entries"),
    )
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task("importing", total=len(files), entries=0)
        entries, seen = 0, set[Path]()

        def on_entry(path: Path) -> None:
            nonlocal entries
            entries += 1
            seen.add(path)
            progress.update(task, completed=len(seen) - 1, entries=entries)

        async with Client(nodes) as client:
            summary = await import_files(client, files, on_entry=on_entry)
    for problem in summary.problems:
        click.echo(plain(problem), err=True)
    if as_json:
        click.echo(orjson.dumps(asdict(summary)))
    else:
        click.echo(
            f"{counted(summary.files, 'file')}, {counted(summary.sessions, 'session')}: "
            f"{counted(summary.entries_added, 'entry', 'entries')} added, {summary.entries_already_there} already "
            f"there, {counted(len(summary.problems), 'problem')}"
        )
    return EXIT_FAILED if summary.problems else 0
