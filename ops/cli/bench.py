"""`headwater bench`: figures from a cluster of real processes on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from agent_core.errors import HeadwaterError
from agent_core.routing import MAX_SHARD_COUNT
from ops.benchmarks.append import AppendPlan, measure_appends, measure_group_counts
from ops.benchmarks.catchup import CatchUpPlan, measure_catch_up
from ops.benchmarks.compare import ComparePlan, compare_builds
from ops.benchmarks.failover import FailoverPlan, measure_failover
from ops.benchmarks.figures import Figures, Progress, lines_of
from ops.benchmarks.lag import LagPlan, measure_lag
from ops.benchmarks.length import LengthPlan, measure_length
from ops.benchmarks.machine import Machine
from ops.benchmarks.memory import MemoryPlan, measure_memory
from ops.benchmarks.network import enter_namespaces, why_no_namespaces
from ops.benchmarks.read import ReadPlan, measure_reading
from ops.benchmarks.read_data import ReadData
from ops.benchmarks.read_load import LoadPlan
from ops.benchmarks.resync import ResyncPlan, measure_resync
from ops.local_cluster import LocalClusterError

Measurement = Callable[..., Coroutine[Any, Any, Figures]]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, all on one line.")
entry_bytes_option = click.option(
    "--bytes",
    "entry_bytes",
    type=click.IntRange(32, 1 << 20),
    default=500,
    show_default=True,
    help="An entry's size.",
)
writers_option = click.option(
    "--writers", type=click.IntRange(1, 4096), default=64, show_default=True, help="Sessions that append at once."
)


def runs_option(default: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """How often to measure; the figures are medians, and each run's value stands beside them."""
    return click.option(
        "--runs", type=click.IntRange(1, 100), default=default, show_default=True, help="How often to measure."
    )


def megabytes_option(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """How much data to write."""
    return click.option(
        "--megabytes", type=click.FloatRange(0.1, 10_000), default=200.0, show_default=True, help=what
    )


def group_counts(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Counts of shard groups with commas between.

    Raises:
        click.BadParameter: One is no count of shard groups.
    """
    count = click.IntRange(1, MAX_SHARD_COUNT)
    return None if text is None else tuple(map(count, text.split(",")))


@click.group()
def bench() -> None:
    """Measure a primary and two standbys, started for the purpose on loopback.

    Figures are medians over the runs; the lowest and highest stand beside them under `..._spread`, what each run
    gave under `..._all`. Each goal is told as met or missed. What is being done is told on standard error.

    Under `machine` stands how long a fixed piece of work took on each processor before and after, in milliseconds:
    figures of two days are comparable where that is the same.

    Example: headwater bench append --writers 64 --json
    """


@bench.command()
@writers_option
@click.option(
    "--seconds", type=click.FloatRange(min=0.5), default=5.0, show_default=True, help="Each run's length."
)
@runs_option(3)
@entry_bytes_option
@click.option(
    "--groups",
    metavar="COUNT,…",
    callback=group_counts,
    help="Shard groups; several counts, as in 1,2,4, are measured one after another. [default: the cluster's]",
)
@json_option
def append(
    writers: int, seconds: float, runs: int, entry_bytes: int, groups: tuple[int, ...] | None, *, as_json: bool
) -> None:
    """Acknowledged appends per second, each writer waiting for its own; quorum, fsync on.

    One node leads every shard group, and the client asks that one.

    Example: headwater bench append --writers 64 --groups 1,2,4 --json
    """
    plan = AppendPlan(writers=writers, seconds=seconds, runs=runs, entry_bytes=entry_bytes)
    if groups is not None and len(groups) > 1:
        measure(partial(measure_group_counts, plan=plan, counts=groups), as_json=as_json)
        return
    if groups is not None:
        plan = replace(plan, groups=groups[0])
    measure(partial(measure_appends, plan=plan), as_json=as_json)


@bench.command()
@click.option(
    "--before",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="A checkout of the build to compare with.",
)
@writers_option
@click.option(
    "--seconds", type=click.FloatRange(min=0.5), default=5.0, show_default=True, help="Each run's length."
)
@runs_option(5)
@json_option
def compare(before: Path, writers: int, seconds: float, runs: int, *, as_json: bool) -> None:
    """Appends of this build as a multiple of another's, measured in turns.

    `git worktree add ../before COMMIT` makes a checkout of another build.

    Example: headwater bench compare --before ../before
    """
    plan = ComparePlan(before=before, writers=writers, seconds=seconds, runs=runs)
    measure(partial(compare_builds, plan=plan), as_json=as_json)


@bench.command()
@click.option("--rate", type=click.IntRange(1, 20_000), default=1000, show_default=True, help="Appends per second.")
@click.option("--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True, help="Each run's length.")
@runs_option(3)
@json_option
def lag(rate: int, seconds: float, runs: int, *, as_json: bool) -> None:
    """From an append's acknowledgement to its being visible on a standby.

    Example: headwater bench lag --rate 1000 --json
    """
    measure(partial(measure_lag, plan=LagPlan(rate=rate, seconds=seconds, runs=runs)), as_json=as_json)


@bench.command()
@click.option(
    "--short", type=click.IntRange(1, 1000), default=10, show_default=True, help="A short transcript's entries."
)
@click.option(
    "--long", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="Entries before."
)
@click.option(
    "--pairs", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Appends to each in a run."
)
@runs_option(5)
@json_option
def length(short: int, long: int, pairs: int, runs: int, *, as_json: bool) -> None:
    """What an append to a long transcript costs as a multiple of one to a short one.

    Example: headwater bench length --long 10000
    """
    plan = LengthPlan(short=short, long=long, pairs=pairs, runs=runs)
    measure(partial(measure_length, plan=plan), as_json=as_json)


@bench.command()
@megabytes_option("Pages written while the standby is down.")
@writers_option
@entry_bytes_option
@runs_option(3)
@json_option
def catchup(megabytes: float, writers: int, entry_bytes: int, runs: int, *, as_json: bool) -> None:
    """Pages per second that a standby catches up with after an outage.

    Example: headwater bench catchup --megabytes 200 --json
    """
    plan = CatchUpPlan(megabytes=megabytes, writers=writers, entry_bytes=entry_bytes, runs=runs)
    measure(partial(measure_catch_up, plan=plan), as_json=as_json)


@bench.command()
@megabytes_option("The shard's size.")
@click.option(
    "--differing",
    type=click.FloatRange(0.0001, 1),
    default=0.01,
    show_default=True,
    help="The share of its pages that differ.",
)
@runs_option(3)
@json_option
def resync(megabytes: float, differing: float, runs: int, *, as_json: bool) -> None:
    """What is sent to make a standby's shard equal to the primary's again, as a share of the shard.

    Example: headwater bench resync --megabytes 200 --differing 0.01
    """
    plan = ResyncPlan(megabytes=megabytes, differing_share=differing, runs=runs)
    measure(partial(measure_resync, plan=plan), as_json=as_json)


@bench.command()
@click.option("--sessions", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Live sessions.")
@click.option(
    "--session-bytes",
    type=click.IntRange(1000, 1 << 30),
    default=250_000,
    show_default=True,
    help="Payloads of each.",
)
@click.option(
    "--bytes",
    "entry_bytes",
    type=click.IntRange(32, 1 << 20),
    default=2500,
    show_default=True,
    help="An entry's size.",
)
@runs_option(3)
@json_option
def memory(sessions: int, session_bytes: int, entry_bytes: int, runs: int, *, as_json: bool) -> None:
    """Resident memory of a primary with live sessions above that of an empty one.

    Example: headwater bench memory --sessions 1000 --session-bytes 250000
    """
    plan = MemoryPlan(sessions=sessions, session_bytes=session_bytes, entry_bytes=entry_bytes, runs=runs)
    measure(partial(measure_memory, plan=plan), as_json=as_json)


@bench.command()
@click.option("--sessions", type=click.IntRange(1000, 10_000_000), default=100_000, show_default=True)
@click.option("--entries", type=click.IntRange(1000, 100_000_000), default=1_000_000, show_default=True)
@click.option("--requests", type=click.IntRange(10, 100_000), default=200, show_default=True, help="For each page.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.5), default=4.0, show_default=True, help="Each round's length."
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=8, show_default=True, help="With reads; as many without."
)
@click.option(
    "--connections", type=click.IntRange(1, 64), default=1, show_default=True, help="Reading pages beside appends."
)
@click.option("--queries", type=click.IntRange(1, 100), default=10, show_default=True, help="Heavy ones at once.")
@json_option
def read(
    sessions: int,
    entries: int,
    requests: int,
    seconds: float,
    rounds: int,
    connections: int,
    queries: int,
    *,
    as_json: bool,
) -> None:
    """What a standby answers and how fast: pages, SQL over all shards; and whether appends feel it.

    Example: headwater bench read --sessions 10000 --entries 100000
    """
    plan = ReadPlan(
        ReadData(sessions=sessions, entries=entries),
        requests=requests,
        load=LoadPlan(seconds=seconds, rounds=rounds, connections=connections, queries=queries),
    )
    measure(partial(measure_reading, plan=plan), as_json=as_json)


@bench.command()
@runs_option(20)
@click.option(
    "--writers",
    type=click.IntRange(1, 4096),
    default=16,
    show_default=True,
    help="Sessions that append at once during a switch-over.",
)
@click.option(
    "--idle-seconds",
    type=click.FloatRange(min=1),
    default=10.0,
    show_default=True,
    help="How long idle processor time is measured.",
)
@json_option
def failover(runs: int, writers: int, idle_seconds: float, *, as_json: bool) -> None:
    """Until appends are acknowledged again: primary killed, frozen, cut off, handed over.

    A primary is killed as Raft leader and as none. Cutting off needs network namespaces, so root or user
    namespaces, and the commands unshare and ip; without them that kind is left out.

    Example: headwater bench failover --runs 5 --json
    """
    no_partitions = why_no_namespaces() or ""
    if no_partitions:
        click.echo(f"no primary is cut off from the others: {no_partitions}", err=True)
    else:
        enter_namespaces()
    plan = FailoverPlan(runs=runs, writers=writers, idle_seconds=idle_seconds, no_partitions=no_partitions)
    measure(partial(measure_failover, plan=plan), as_json=as_json)


def measure(measurement: Measurement, *, as_json: bool) -> None:
    """Run one benchmark in a directory of its own, tell on standard error what it does, and print its figures."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory, progress_shown() as show:
        machine = Machine()
        try:
            figures = uvloop.run(measurement(Path(directory), progress=show))
        except (HeadwaterError, LocalClusterError) as error:
            raise click.ClickException(str(error)) from error
    named = {"benchmark": click.get_current_context().info_name, "machine": machine.figures()}
    report({**named, **figures}, as_json=as_json)


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """On a terminal a bar that moves; elsewhere a line for each thing that is begun."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with ProgressBar(*columns, console=console, transient=True) as bar:
            task = bar.add_task("starting", total=1.0)
            yield lambda doing, share: bar.update(task, description=doing, completed=share)
        return
    told = ""

    def tell(doing: str, _share: float) -> None:
        nonlocal told
        if doing != told:
            click.echo(doing, err=True)
            told = doing

    yield tell


def report(figures: Figures, *, as_json: bool) -> None:
    """Print figures for a machine, on one line, or one a line, goals last."""
    if as_json:
        click.echo(orjson.dumps(figures))
        return
    for line in lines_of(figures):
        click.echo(line)
