"""A node's own metrics, read as Prometheus reads them: what is measured is what an operator can see."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import defaultdict
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_SECONDS = 10.0

RESIDENT_BYTES = "process_resident_memory_bytes"
CPU_SECONDS = "process_cpu_seconds_total"
SESSIONS_BYTES = "headwater_sessions_memory_bytes"
SESSIONS_LIVE = "headwater_sessions_live"
CAPTURED_BYTES = "headwater_wal_captured_bytes_total"
RESYNCS = "headwater_resyncs_total"
RESYNC_BYTES = "headwater_resync_received_bytes_total"


def parse(exposition: str) -> Mapping[str, float]:
    """The samples of a scrape by name, summed over their labels; 0 for a name that is not there."""
    totals: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            totals[sample.name] += sample.value
    return totals


async def read_metrics(http_address: str) -> Mapping[str, float]:
    """A node's metrics at this moment.

    Raises:
        OSError: The node does not answer.
    """
    return parse(await asyncio.to_thread(_fetch, f"http://{http_address}/metrics"))


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - always http
        content: bytes = answer.read()
    return content.decode()
