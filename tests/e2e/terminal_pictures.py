"""Takes the pictures of terminals that the README shows: `python -m tests.e2e.terminal_pictures`.

They are what `make demo` and, beside it, `headwater top` show of three real nodes under the demonstration's load.
"""

from __future__ import annotations

import asyncio
import io
import re
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc.aio
from rich.console import Console

from ops.cli.demo import live_picture, load_line
from ops.cli.up import overview
from ops.demo import DemoProgress, run_demo
from ops.local_cluster import LocalCluster
from ops.node_status import ask
from ops.top.app import TopApp
from ops.top.history import ClusterHistory
from ops.top.polling import poll
from tests.e2e.dashboard_pictures import PICTURES

COLUMNS, LINES = 100, 26
WARM_SECONDS = 6.0
WATCHED_SECONDS = 25.0
"""So long the lag's history in `headwater top` grows before its picture."""
FROM_ELSEWHERE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Fonts that the picture would load from another host."""


async def main() -> None:
    """Take them."""
    stop, begun = asyncio.Event(), time.monotonic()
    console = Console(file=io.StringIO(), record=True, force_terminal=True, color_system="truecolor", width=COLUMNS)

    async def show(cluster: LocalCluster, progress: DemoProgress) -> None:
        progress.rate(time.monotonic())
        if time.monotonic() - begun < WARM_SECONDS or not progress.acknowledged:
            return
        _save("top", await _top(cluster))
        async with AsyncExitStack() as stack:
            found = await ask(
                {
                    node.node_id: await stack.enter_async_context(grpc.aio.insecure_channel(node.grpc_address))
                    for node in cluster.addresses
                }
            )
        console.print(overview(cluster), highlight=False, markup=False)
        console.print(live_picture(console, found, load_line(progress, time.monotonic())))
        stop.set()

    with tempfile.TemporaryDirectory(prefix="headwater-demo-") as folder:
        outcome = await run_demo(
            Path(folder),
            seconds=None,
            stop=stop,
            say=lambda dashboard: console.print(f"dashboard: {dashboard}", highlight=False),
            show=show,
            refresh_seconds=0.5,
        )
    console.print(f"{outcome}\n", highlight=False)
    _save("demo", console.export_svg(title="make demo"))


async def _top(cluster: LocalCluster) -> str:
    addresses = [node.grpc_address for node in cluster.addresses]
    async with AsyncExitStack() as stack:
        channels = {
            address: await stack.enter_async_context(grpc.aio.insecure_channel(address)) for address in addresses
        }
        history = ClusterHistory(addresses)
        app = TopApp(history, partial(poll, channels, history, interval=1.0))
        async with app.run_test(size=(COLUMNS, LINES)) as pilot:
            await asyncio.sleep(WATCHED_SECONDS)
            await pilot.pause()
            return app.export_screenshot(title="headwater top")


def _save(name: str, svg: str) -> None:
    (PICTURES / f"{name}.svg").write_text(FROM_ELSEWHERE.sub("", svg), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
