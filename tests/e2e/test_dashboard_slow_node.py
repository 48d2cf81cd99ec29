"""The dashboard in a real browser, before a node that answers some questions at once and others late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from playwright.async_api import expect

from ops.cluster_files import free_ports
from ops.dashboard.process import running_dashboard
from tests.e2e.dashboard_stage import DEADLINE_MILLISECONDS, chromium
from tests.unit.dashboard.views import view

TOOLS = [["bash", 7, 1, 0, 0.5, 2.0]]
"""The rows that the question for tool calls gets."""


@asynccontextmanager
async def slow_node(late: asyncio.Event) -> AsyncIterator[str]:
    """The address of what looks like a standby: it knows the tool calls at once, all else once `late`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /v1/cluster "):
            content = view("node-2", {0: ("node-1", 1)}, nodes=["node-2"]).model_dump_json().encode()
        else:
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            sql = orjson.loads(await reader.readexactly(length))["sql"]
            rows = TOOLS if " FROM tool_calls " in sql else []
            if not rows:
                await late.wait()
            told = {"columns": [], "rows": rows, "row_count": len(rows), "truncated": False, "shard": None}
            content = orjson.dumps(told | {"positions": []})
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(content) + content)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
        late.set()


async def test_each_chart_is_shown_when_its_own_answer_has_come(tmp_path: Path) -> None:
    late = asyncio.Event()
    (port,) = free_ports(1)
    async with (
        slow_node(late) as node,
        running_dashboard([node], f"127.0.0.1:{port}", tmp_path / "dashboard.log") as url,
        chromium() as browser,
    ):
        page = await browser.new_page()
        page.set_default_timeout(DEADLINE_MILLISECONDS)
        await page.goto(f"{url}/analytics")
        numbers = page.locator(".number-card")
        await expect(numbers.filter(has_text="Tool calls")).to_contain_text("7")
        await expect(page.locator(".charts .chart svg")).to_have_count(2)
        await expect(page.locator(".charts table")).to_contain_text("14.3%")
        await expect(numbers.filter(has_text="Sessions")).to_contain_text("…")
        await expect(page.locator(".charts").get_by_text("Reading …")).to_have_count(4)
        late.set()
        await expect(page.get_by_text("No sessions yet")).to_be_visible()
