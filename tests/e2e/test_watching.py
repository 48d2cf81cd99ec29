"""Debian's Prometheus watches three real nodes: lag, an alert, and its end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import yaml

from agent_core.client import Client
from ops import dies_with_parent
from ops.cluster_files import free_ports
from ops.local_cluster import LocalCluster
from tests.exported import roles
from tests.prometheus_files import ALERTS, FOLDER, RECORDING
from tests.steady import steady_plan

INTERVAL = "250ms"
DEADLINE_SECONDS = 20
WRITERS = 8
HEALTHY_LAG_SECONDS = 1.0


def lay_out(folder: Path, cluster: LocalCluster) -> Path:
    """A copy of the product's own files, but with short intervals and this cluster's nodes."""
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    configuration["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), INTERVAL)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    nodes = [{"targets": [node.http_address], "labels": {"instance": node.node_id}} for node in cluster.addresses]
    (folder / "nodes.yml").write_text(yaml.safe_dump(nodes))
    (folder / RECORDING.name).write_text(RECORDING.read_text())
    hurried, count = re.subn(r"(?m)^( +for: ).*$", r"\g<1>1s", ALERTS.read_text())
    assert count
    (folder / ALERTS.name).write_text(hurried)
    return folder / "prometheus.yml"


@asynccontextmanager
async def prometheus(folder: Path, cluster: LocalCluster) -> AsyncIterator[httpx.AsyncClient]:
    """A running Prometheus that watches the cluster; yields a client of its HTTP API."""
    (port,) = free_ports(1)
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            dies_with_parent.__file__,
            str(os.getpid()),
            "prometheus",
            f"--config.file={lay_out(folder, cluster)}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            yield http
    finally:
        process.terminate()
        await process.wait()


async def query(http: httpx.AsyncClient, expression: str) -> list[dict[str, Any]]:
    """The samples of an instant query; none while Prometheus does not answer yet."""
    with suppress(httpx.TransportError):
        answer = await http.get("/api/v1/query", params={"query": expression})
        if answer.status_code == httpx.codes.OK:
            found: list[dict[str, Any]] = answer.json()["data"]["result"]
            return found
    return []


async def until(
    http: httpx.AsyncClient, expression: str, holds: Callable[[list[dict[str, Any]]], bool], what: str
) -> None:
    """Ask until the answer is as it should be."""
    result: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds(result := await query(http, expression)):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{what}: {expression} is {orjson.dumps(result).decode()}") from None


async def append_for_ever(client: Client, number: int) -> None:
    session = await client.create_session(session_id=f"writer-{number}")
    while True:
        await client.append(session.session_id, "message", {"role": "user", "content": "x" * 500})
        await asyncio.sleep(0.01)


def value(result: list[dict[str, Any]]) -> float | None:
    return float(result[0]["value"][1]) if len(result) == 1 else None


def above(limit: float) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda result: (found := value(result)) is not None and found > limit


def below(limit: float) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda result: (found := value(result)) is not None and found < limit


async def test_a_stopped_standby_shows_as_lag_raises_the_alert_and_ends_it_when_it_goes_on(tmp_path: Path) -> None:
    firing = 'ALERTS{alertname="HeadwaterLagHigh", alertstate="firing"}'
    async with (
        LocalCluster(tmp_path / "cluster", steady_plan()) as cluster,
        Client(cluster.address("node-1").grpc_address) as client,
        asyncio.TaskGroup() as writing,
    ):
        folder = tmp_path / "prometheus"
        folder.mkdir()
        writers = [writing.create_task(append_for_ever(client, number)) for number in range(WRITERS)]
        standby = (await roles(cluster))[1][0]
        lag = f'job_group_standby:headwater_standby_lag_seconds:max{{standby="{standby}"}}'
        stopped = cluster.pid(standby)
        assert stopped is not None
        try:
            async with prometheus(folder, cluster) as http:
                await until(http, "sum(rate(headwater_appends_total[2s])) > 100", bool, "the load does not show")
                await until(http, f"max_over_time({lag}[2s])", below(HEALTHY_LAG_SECONDS), "lag under load")
                assert await query(http, 'ALERTS{alertstate="firing"}') == []

                os.kill(stopped, signal.SIGSTOP)
                await until(http, lag, above(HEALTHY_LAG_SECONDS), "lag of a stopped standby")
                await until(http, f'{firing[:-1]}, standby="{standby}"}}', bool, "the alert of a stopped standby")
                assert {sample["metric"]["standby"] for sample in await query(http, firing)} == {standby}

                os.kill(stopped, signal.SIGCONT)
                await until(http, lag, below(HEALTHY_LAG_SECONDS), "lag of a standby that goes on")
                await until(http, firing, lambda result: not result, "the alert of a standby that goes on")
        finally:
            os.kill(stopped, signal.SIGCONT)
            for writer in writers:
                writer.cancel()
