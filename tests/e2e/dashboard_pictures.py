"""Takes the pictures of the dashboard that the README shows: `python -m tests.e2e.dashboard_pictures`."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from urllib.parse import quote

from playwright.async_api import Page, expect

from agent_core.client import Client
from tests.e2e.dashboard_stage import Stage, stage
from tests.exported import roles

PICTURES = Path(__file__).parents[2] / "ops" / "dashboard" / "pictures"
FLAKY = "/sessions/db5b5fab-8f4d-4e27-9da1-494c73cf256d"
STATEMENT = """SELECT name, calls, errors, round(mean_seconds, 2) AS mean_seconds
FROM tool_calls_by_name
ORDER BY calls DESC"""
SAMPLE_DAYS = "since=2025-10-06&until=2025-10-14"
"""On which the sample's transcripts that tell times were made."""
WATCHED_SECONDS = 45
"""So long the chart of the lag grows before its picture."""


async def main() -> None:
    """Take them all."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with stage(Path(folder)) as shown:
            await _session(shown)
            await _sessions(shown)
            await _analytics(shown)
            await _sql(shown)
            await _cluster(shown)


async def _session(shown: Stage) -> None:
    async with shown.page(FLAKY) as page:
        call = page.locator("details.call", has_text="Edit").first
        await call.locator("summary").click()
        await page.locator(".said-by-user").nth(1).scroll_into_view_if_needed()
        await page.evaluate("document.querySelectorAll('.said-by-user')[1].scrollIntoView()")
        await _take(page, "session")
    async with shown.page(FLAKY, phone=True, dark=True) as page:
        await expect(page.locator(".item").first).to_be_visible()
        await _take(page, "phone")


async def _sessions(shown: Stage) -> None:
    async with shown.page("/sessions", dark=True) as page:
        await expect(page.locator("tbody tr")).to_have_count(8)
        await _take(page, "sessions")


async def _analytics(shown: Stage) -> None:
    async with shown.page(f"/analytics?{SAMPLE_DAYS}") as page:
        await expect(page.locator(".charts .chart svg")).to_have_count(6, timeout=60_000)
        await page.set_viewport_size({"width": 1280, "height": 1100})
        await _take(page, "analytics")


async def _sql(shown: Stage) -> None:
    async with shown.page(f"/sql?seconds=30&sql={quote(STATEMENT)}", dark=True) as page:
        await expect(page.get_by_text("bash").first).to_be_visible(timeout=60_000)
        await _take(page, "sql")


async def _cluster(shown: Stage) -> None:
    """The cluster under load, after a primary was killed and came back."""
    primary, _ = await roles(shown.cluster)
    loading = asyncio.create_task(_load(shown.client))
    async with shown.page("/") as page:
        await asyncio.sleep(WATCHED_SECONDS / 2)
        await shown.cluster.kill(primary)
        await expect(page.locator(".change", has_text="fail-over")).to_be_visible()
        await shown.cluster.start_node(primary)
        await asyncio.sleep(WATCHED_SECONDS / 2)
        await _take(page, "cluster", whole=True)
    loading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loading


async def _load(client: Client) -> None:
    session = await client.create_session(title="load")
    while True:
        await client.append(session.session_id, "message", {"role": "user", "content": "x" * 500})
        await asyncio.sleep(0.02)


async def _take(page: Page, name: str, *, whole: bool = False) -> None:
    """A picture of what the window shows, or of the whole page."""
    await page.wait_for_timeout(1500)
    await page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)


if __name__ == "__main__":
    asyncio.run(main())
