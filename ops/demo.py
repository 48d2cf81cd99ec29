"""The demonstration: a cluster of real processes, a fleet of agents that append, and a page by page comparison."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from agent_core.client import Client
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.session_pb2 import ListSessionsRequest
from agent_core.transcripts import ImportedEntry, read_transcript
from ops.cluster_files import free_ports
from ops.dashboard.process import running_dashboard
from ops.importing import import_files
from ops.local_cluster import LocalCluster
from ops.sample_transcripts import sample_paths
from ops.verify import compare_nodes

AGENTS = 24
THINKING_SECONDS = 0.02
PAGE_SIZE = 1000


@dataclass(slots=True)
class DemoProgress:
    """What the live view shows.

    Attributes:
        acknowledged: Entries, the imported ones included.
        longest_pause: The longest time between two acknowledgements since `watch_for_pause`, in seconds.
        latencies: Seconds of the last appends.
        recent: `(monotonic time, acknowledged)` of the last seconds.
    """

    acknowledged: int = 0
    longest_pause: float = 0.0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=2000))
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=40))
    _acknowledged_at: float = field(default_factory=time.monotonic)

    def acknowledge(self, seconds: float, now: float) -> None:
        """An append was acknowledged, `seconds` after it was asked for."""
        self.latencies.append(seconds)
        self.acknowledged += 1
        self.longest_pause = max(self.longest_pause, now - self._acknowledged_at)
        self._acknowledged_at = now

    def watch_for_pause(self) -> None:
        """Look for the longest pause from now on."""
        self.longest_pause = 0.0

    def rate(self, now: float) -> float:
        """Appends per second over the last moments."""
        self.recent.append((now, self.acknowledged))
        then, count = self.recent[0]
        return (self.acknowledged - count) / (now - then) if now > then else 0.0

    def percentile(self, share: float) -> float:
        """A percentile of the last latencies, in seconds; 0 when there are none."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the demonstration came to; the last line says it."""

    acknowledged: int
    entries_by_node: dict[str, int]
    identical: bool

    @property
    def held(self) -> bool:
        """Every node holds exactly what was acknowledged, in identical shards."""
        return self.identical and set(self.entries_by_node.values()) == {self.acknowledged}

    def __str__(self) -> str:
        """The demonstration's last line."""
        counts = sorted(set(self.entries_by_node.values()))
        return (
            f"demo: {self.acknowledged} entries acknowledged, {'/'.join(map(str, counts))} on each standby, "
            f"shards identical: {'yes' if self.identical else 'no'}"
        )


async def load(client: Client, progress: DemoProgress, stop: asyncio.Event) -> None:
    """Import the sample, then keep appending like a fleet of agents at work until `stop` is set."""
    summary = await import_files(client, sample_paths())
    progress.acknowledged += summary.entries_added
    entries = [
        found for path in sample_paths() for found in read_transcript(path) if isinstance(found, ImportedEntry)
    ]
    await asyncio.gather(*(_agent(client, number, entries, progress, stop) for number in range(AGENTS)))


async def _agent(
    client: Client, number: int, entries: list[ImportedEntry], progress: DemoProgress, stop: asyncio.Event
) -> None:
    chance = random.Random(number)  # noqa: S311 - the pace of a make-believe agent
    session = await client.create_session(workspace="demo", title=f"agent {number} at work", model="demonstration")
    for entry in itertools.islice(itertools.cycle(entries), number * 7, None):
        if stop.is_set():
            return
        started = time.monotonic()
        await client.append(session.session_id, entry.kind, entry.payload)
        now = time.monotonic()
        progress.acknowledge(now - started, now)
        await asyncio.sleep(chance.expovariate(1 / THINKING_SECONDS))


async def settle(cluster: LocalCluster, acknowledged: int) -> DemoOutcome:
    """Wait until the standbys have caught up; count and compare what the nodes hold."""
    async with AsyncExitStack() as stack:
        channels = {}
        for node in cluster.addresses:
            channel = grpc.aio.insecure_channel(node.grpc_address)
            channels[node.node_id] = await stack.enter_async_context(channel)
        comparisons = await compare_nodes(channels)
        counts = {node_id: await _count(channel) for node_id, channel in channels.items()}
    return DemoOutcome(acknowledged, counts, all(comparison.problem is None for comparison in comparisons))


async def _count(channel: grpc.aio.Channel) -> int:
    reading, token, count = ReadingStub(channel), "", 0
    while True:
        page = await reading.ListSessions(ListSessionsRequest(page_size=PAGE_SIZE, page_token=token))
        count += sum(session.entry_count for session in page.sessions)
        token = page.next_page_token
        if not token:
            return count


async def run_demo(
    directory: Path,
    *,
    seconds: float | None,
    stop: asyncio.Event,
    say: Callable[[str], None],
    show: Callable[[LocalCluster, DemoProgress], Awaitable[None]],
    refresh_seconds: float,
) -> DemoOutcome:
    """Run the whole demonstration in `directory` until `seconds` have passed or `stop` is set.

    Args:
        directory: Where the cluster's files go.
        seconds: How long it loads the cluster; None: until `stop`.
        stop: Ends it.
        say: Is told the dashboard's URL, once that answers.
        show: Shows the cluster and the load, every `refresh_seconds`.
        refresh_seconds: See `show`.

    Raises:
        HeadwaterError: The cluster refused a write.
        DashboardFailed: The dashboard did not start.
    """
    async with (
        LocalCluster(directory) as cluster,
        running_dashboard(
            [node.http_address for node in cluster.addresses],
            f"127.0.0.1:{free_ports(1)[0]}",
            cluster.directory / "dashboard.log",
        ) as dashboard,
    ):
        say(dashboard)
        progress = DemoProgress()
        async with Client([node.grpc_address for node in cluster.addresses]) as client:
            loading = asyncio.create_task(load(client, progress, stop))
            ends_at = time.monotonic() + seconds if seconds is not None else float("inf")
            while not (stop.is_set() or loading.done() or time.monotonic() >= ends_at):
                await show(cluster, progress)
                await asyncio.wait([loading], timeout=refresh_seconds)
            stop.set()
            await loading
        return await settle(cluster, progress.acknowledged)
