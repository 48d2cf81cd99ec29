"""The page of the OpenAPI description in a real browser that reaches nothing but the node."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import async_playwright, expect

from ops.cluster_files import free_ports
from ops.http import HttpServer, build_app
from ops.node_snapshot import NodeSnapshot
from tests.e2e.dashboard_stage import CHROMIUM


@pytest.fixture
async def address() -> AsyncIterator[str]:
    node = NodeSnapshot(cluster_id="test", node_id="node-1", version="1.2.3")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = await HttpServer.start(build_app(lambda: node), address)
    yield f"http://{address}"
    await server.stop()


async def test_the_page_shows_the_operations_and_asks_nobody_else_for_anything(address: str) -> None:
    asked: list[str] = []
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        answer = await page.goto(f"{address}/docs")
        assert answer is not None
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        for path in ("/metrics", "/healthz", "/readyz"):
            await expect(page.locator(f'.opblock-summary-path[data-path="{path}"]')).to_be_visible()
        await page.locator("#operations-operations-health_healthz_get").click()
        await page.get_by_role("button", name="Try it out").click()
        await page.get_by_role("button", name="Execute").click()
        await expect(page.locator(".live-responses-table")).to_contain_text("ok")
        redoc = await page.request.get(f"{address}/redoc")
        assert redoc.status == 404
        await browser.close()
    assert asked
    assert [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))] == []
    assert complaints == []
