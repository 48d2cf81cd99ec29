"""Rounds of chaos: a fault under load, then the check of everything. `python -m tests.chaos.run --rounds 10`.

The seed fixes the faults, their targets and their times; the processes' own timing stays theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from agent_core.client.endpoints import open_channel
from agent_core.errors import HeadwaterError
from ops.benchmarks.network import Network, enter_namespaces
from ops.local_cluster import LocalClusterError
from ops.verify import compare_nodes
from tests.chaos.clients import Load, read_transcript
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.history import Outcome
from tests.chaos.stage import NODES, Stage

WRITERS = 24
HEALTHY_SECONDS = 45.0
READ_MS = 10_000


class Violation(Exception):
    """The cluster did not do what it promises; the message says what, one sentence a line."""


async def play_round(stage: Stage, number: int, fault: Fault) -> str:
    """One fault under load, and the check; returns a line about it.

    Raises:
        Violation: Something promised was not kept.
    """
    load = Load(f"round-{number}", stage.addresses, stage.chance, writers=WRITERS)
    try:
        async with load.running():
            await load.progress(HEALTHY_SECONDS)
            target = await fault(stage)
            mended = time.monotonic()
            await load.progress(HEALTHY_SECONDS)
            await stage.cluster.wait_ready(ready_seconds=HEALTHY_SECONDS)
            healthy = time.monotonic() - mended
    except TimeoutError as error:
        raise Violation(
            f"sessions got no acknowledgement for {HEALTHY_SECONDS:g} s after all was mended"
        ) from error
    except LocalClusterError as error:
        raise Violation(str(error)) from error
    if problems := await check(stage, load):
        raise Violation("\n".join(problems))
    counts = {outcome: sum(history.count(outcome) for history in load.histories) for outcome in Outcome}
    longest = max(writer.longest_seconds for writer in load.writers)
    return (
        f"{fault.__name__} ({target}): {counts[Outcome.ACKNOWLEDGED]} acknowledged, "
        f"{counts[Outcome.UNKNOWN]} unknown, {counts[Outcome.REFUSED]} refused, "
        f"longest append {longest:.2f} s, healthy {healthy:.2f} s after the mending"
    )


async def check(stage: Stage, load: Load) -> list[str]:
    """What is wrong, once every client has stopped."""
    problems = [violation for history in load.histories for violation in history.violations]
    problems += [problem for subscriber in load.subscribers for problem in subscriber.view.judge()]
    channels = {node: open_channel(address) for node, address in stage.addresses.items()}
    try:
        for writer in load.writers:
            for node, channel in channels.items():
                try:
                    transcript, _ = await read_transcript(
                        channel, writer.history.session_id, writer.position, wait_ms=READ_MS
                    )
                except HeadwaterError as error:
                    problems.append(f"{node}: {writer.history.session_id} cannot be read: {error}")
                else:
                    problems += [f"{node}: {problem}" for problem in writer.history.judge(transcript)]
        problems += [
            f"shard {shard.shard} is not identical on all nodes: {shard.problem}"
            for shard in await compare_nodes(channels)
            if shard.problem is not None
        ]
    finally:
        for channel in channels.values():
            await channel.close()
    return problems


async def play(rounds: int, seed: int, directory: Path) -> None:
    """Play rounds, and say how each ended.

    Raises:
        Violation: Something promised was not kept.
        LocalClusterError: The cluster did not start.
    """
    chance = Random(seed)
    faults = chance.sample(FAULTS, len(FAULTS))
    stage = Stage(directory, Network(NODES), chance)
    started = time.monotonic()
    try:
        await stage.start()
        for number in range(1, rounds + 1):
            fault = faults[number - 1] if number <= len(faults) else chance.choice(FAULTS)
            began = time.monotonic()
            try:
                line = await play_round(stage, number, fault)
            except Violation as violation:
                raise Violation(f"round {number}, {fault.__name__}:\n{violation}") from violation
            say(f"round {number}: {line}; {time.monotonic() - began:.1f} s")
    finally:
        await stage.cluster.stop()
    say(f"{rounds} rounds with seed {seed} in {time.monotonic() - started:.0f} s: every promise was kept")


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)  # noqa: T201 - it is a command


def main() -> None:
    """Run as the command line says; the exit code is 1 after a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--keep", type=Path, help="keep the nodes' configuration and logs in this new directory")
    options = parser.parse_args()
    enter_namespaces()
    say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="headwater-chaos-", ignore_cleanup_errors=True) as temporary:
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            asyncio.run(play(options.rounds, options.seed, directory))
        except (Violation, LocalClusterError) as violation:
            say(f"seed {options.seed}: {violation}")
            sys.exit(1)


if __name__ == "__main__":
    main()
