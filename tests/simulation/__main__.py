"""`make simulate`: run many seeds, tell how it goes, and stop at the first that fails."""

from __future__ import annotations

import sys
import time

import click

from tests.simulation.simulation import Failed, Summary, simulate


@click.command()
@click.option("--seeds", default=300, show_default=True, help="How many seeds to run.")
@click.option("--first", default=1, show_default=True, help="The first of them.")
def main(seeds: int, first: int) -> None:
    """Run the simulation."""
    started = time.perf_counter()
    summaries: list[Summary] = []
    for seed in range(first, first + seeds):
        try:
            summaries.append(simulate(seed))
        except Failed as failed:
            click.echo(f"\n{failed}")
            sys.exit(1)
        if len(summaries) % 50 == 0 or len(summaries) == seeds:
            seconds = time.perf_counter() - started
            click.echo(
                f"{len(summaries)} of {seeds} seeds in {seconds:.1f} s: "
                f"{sum(summary.events for summary in summaries)} events, "
                f"{sum(summary.epochs for summary in summaries)} epochs, "
                f"{sum(summary.acknowledged for summary in summaries)} appends acknowledged, "
                f"{sum(summary.reads for summary in summaries)} reads"
            )


if __name__ == "__main__":
    main()
