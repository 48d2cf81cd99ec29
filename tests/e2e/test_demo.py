"""The demonstration opens with the address of a dashboard, shows the cluster at work, and compares its nodes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import signal
import sys
import termios
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster
from tests.e2e.cluster_under_load import until

DEMO = (sys.executable, "-P", "-m", "ops.cli.main", "demo")
LAST_LINE = re.compile(r"demo: ([1-9]\d*) entries acknowledged, \1 on each standby, shards identical: yes")
LOAD = re.compile(
    r" ([1-9]\d*) appends/s   latency p50 (\d+\.\d) ms, p99 (\d+\.\d) ms   ([1-9]\d*) entries acknowledged"
)
PRIMARY = re.compile(r"node-\d +0 +primary +[1-9]\d* +\d+ +\d+\.\d MB +leading")
STANDBY = re.compile(r"(node-\d) +0 +standby +[1-9]\d* +\d+ +\d+ tx, \S+ (?:ms|s) +\d+\.\d MB +following")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENDS_WITHIN_SECONDS = 120


@asynccontextmanager
async def demonstration(*arguments: str, terminal: int | None = None) -> AsyncIterator[Process]:
    """The command as a process, on a terminal or with its output in a pipe."""
    where = PIPE if terminal is None else terminal
    errors = STDOUT if terminal is None else terminal
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = await asyncio.create_subprocess_exec(
        *DEMO, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=where, stderr=errors, env=environment
    )
    try:
        async with asyncio.timeout(ENDS_WITHIN_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_demo_names_its_dashboard_and_every_nodes_endpoints_and_ends_with_the_comparison(
    tmp_path: Path,
) -> None:
    cluster = LocalCluster(tmp_path, ClusterPlan(base_port=0))
    async with demonstration("--seconds", "5", "--data", str(tmp_path)) as demo, httpx.AsyncClient() as http:
        assert demo.stdout is not None
        first = (await demo.stdout.readline()).decode()
        assert first.startswith("dashboard: http://127.0.0.1:")
        address = first.removeprefix("dashboard: ").strip()
        assert "Headwater" in (await http.get(address)).text
        rest = (await demo.stdout.read()).decode()
        assert await demo.wait() == 0, rest
        for node in cluster.addresses:
            endpoints = (
                node.node_id,
                node.grpc_address,
                *(f"http://{node.http_address}{path}" for path in ("", "/metrics")),
            )
            assert list(endpoints) in [line.split() for line in rest.splitlines()]
        assert any(LOAD.search(line) for line in rest.splitlines())
        assert LAST_LINE.fullmatch(rest.splitlines()[-1])
        with pytest.raises(httpx.ConnectError):
            await http.get(address)


async def test_a_terminal_shows_load_lag_and_positions_until_ctrl_c_and_then_the_comparison(tmp_path: Path) -> None:
    LocalCluster(tmp_path, ClusterPlan(base_port=0))
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 80))
    drawn = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(OSError):  # how a terminal ends whose last process is gone
            drawn.extend(os.read(controller, 65536))

    def shown() -> str:
        return CONTROL.sub("", drawn.decode(errors="replace"))

    try:
        async with demonstration("--data", str(tmp_path), terminal=terminal) as demo:
            os.close(terminal)
            loop.add_reader(controller, read)
            await until(lambda: LOAD.search(shown()) is not None)
            await until(lambda: PRIMARY.search(shown()) is not None)
            await until(lambda: len(set(STANDBY.findall(shown()))) == 2)
            demo.send_signal(signal.SIGINT)
            assert await demo.wait() == 0, shown()
            await until(lambda: LAST_LINE.fullmatch(shown().splitlines()[-1]) is not None)
    finally:
        loop.remove_reader(controller)
        os.close(controller)
