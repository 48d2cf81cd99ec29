"""`headwater bench`: figures from a cluster of real processes on this machine."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import click
import orjson

from ops.benchmarks import AppendPlan, measure_appends, measure_lag
from ops.dashboard_benchmark import measure_dashboards
from ops.session_list_benchmark import measure_session_list


@click.group()
def bench() -> None:
    """Measure a primary and two standbys, started for the purpose on loopback.

    Example: headwater bench append --writers 64 --json
    """


@bench.command()
@click.option("--writers", type=click.IntRange(1, 4096), default=64, show_default=True, help="Sessions at once.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.5), default=5.0, show_default=True, help="Each run's length."
)
@click.option("--runs", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--bytes", "entry_bytes", type=click.IntRange(32, 1 << 20), default=500, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def append(writers: int, seconds: float, runs: int, entry_bytes: int, as_json: bool) -> None:
    """Acknowledged appends per second, each writer waiting for its own; quorum, fsync on."""
    plan = AppendPlan(writers=writers, seconds=seconds, runs=runs, entry_bytes=entry_bytes)
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        report(asyncio.run(measure_appends(Path(directory), plan)), as_json=as_json)


@bench.command()
@click.option("--rate", type=click.IntRange(1, 20_000), default=1000, show_default=True, help="Appends per second.")
@click.option("--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def lag(rate: int, seconds: float, as_json: bool) -> None:
    """From an append's acknowledgement to its being visible on a standby."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        report(asyncio.run(measure_lag(Path(directory), rate=rate, seconds=seconds)), as_json=as_json)


@bench.command()
@click.option("--rate", type=click.IntRange(1, 20_000), default=200, show_default=True, help="Appends per second.")
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=5.0, show_default=True, help="Each round's length."
)
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--queries", type=click.IntRange(1, 100), default=10, show_default=True, help="Heavy ones at once.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dashboards(rate: int, seconds: float, rounds: int, queries: int, as_json: bool) -> None:
    """Append latency and lag, with and without heavy queries over all shards of a standby."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        report(
            asyncio.run(
                measure_dashboards(Path(directory), rate=rate, seconds=seconds, rounds=rounds, queries=queries)
            ),
            as_json=as_json,
        )


@bench.command()
@click.option("--sessions", type=click.IntRange(1000, 10_000_000), default=100_000, show_default=True)
@click.option(
    "--requests", type=click.IntRange(10, 100_000), default=200, show_default=True, help="For each filter."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sessions(sessions: int, requests: int, as_json: bool) -> None:
    """The first page of the session list over HTTP, by filter; 16 shards, no cluster."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        report(
            asyncio.run(measure_session_list(Path(directory), sessions=sessions, requests=requests)),
            as_json=as_json,
        )


def report(figures: dict[str, object], *, as_json: bool) -> None:
    """Print figures for a machine, or one a line."""
    if as_json:
        click.echo(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
        return
    for name, value in figures.items():
        click.echo(f"{name:28} {value}")
