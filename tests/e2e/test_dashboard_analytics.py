"""The dashboard's analytics page in a real browser, over the sample and a day that the test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.e2e.dashboard_stage import Stage, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<img src=x onerror=\"window.pwned=1\"> ${window.pwned=1} {{constructor.constructor('window.pwned=1')()}}"
FIRST_MILLISECONDS = 60_000
"""The first questions wait until the nodes' workers have started, on a machine that runs other tests too."""
NUMBERS = ("Sessions", "Input tokens", "Output tokens", "Cost", "Tool calls", "Failed calls", "Active time")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(module_path: Path) -> AsyncIterator[Stage]:
    async with stage(module_path) as built:
        session = await built.client.create_session(title="hostile", workspace=HOSTILE)
        call = {"type": "tool_call", "id": "1", "name": HOSTILE, "arguments": {}}
        usage = {"input_tokens": 100, "output_tokens": 10, "cost": 1.25}
        said = {"role": "assistant", "model": HOSTILE, "usage": usage, "content": [call]}
        await built.client.append(session.session_id, "message", said)
        result = {"role": "tool_result", "toolCallId": "1", "isError": True, "content": "no"}
        await built.client.append(session.session_id, "message", result)
        yield built


@pytest.fixture(autouse=True)
def no_complaints(shown: Stage) -> Iterator[None]:
    with shown.without_complaints():
        yield


async def test_the_ready_views_are_numbers_charts_and_a_table(shown: Stage) -> None:
    async with shown.page("/analytics") as page:
        await expect(page.locator(".charts .chart svg")).to_have_count(6, timeout=FIRST_MILLISECONDS)
        numbers = page.locator(".number-card")
        await expect(numbers).to_have_count(len(NUMBERS))
        for name in NUMBERS:
            await expect(numbers.filter(has_text=name)).to_be_visible()
        await expect(numbers.filter(has_text="Cost")).to_contain_text("$1.42")  # the sample tells $0.17
        await expect(page.locator(".charts table tbody tr", has_text="onerror")).to_contain_text("100.0%")
        await expect(page.locator(".freshness")).to_contain_text("up to date")
        await shown.picture(page, "analytics-light")
        assert await page.evaluate("window.pwned") is None
        for chart in await page.locator(".charts .chart svg").all():
            await chart.hover()
        assert await page.evaluate("window.pwned") is None
        assert await page.locator("main img").count() == 0


@pytest.mark.parametrize("phone", [False, True])
async def test_it_is_pleasant_in_the_dark_and_on_a_phone(shown: Stage, phone: bool) -> None:
    async with shown.page("/analytics", dark=True, phone=phone) as page:
        await expect(page.locator(".charts .chart svg")).to_have_count(6)
        width = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width == 0, "nothing is wider than the screen"
        await shown.picture(page, "analytics-phone-dark" if phone else "analytics-dark")


async def test_a_range_of_days_narrows_everything_and_stands_in_the_address(shown: Stage) -> None:
    async with shown.page("/analytics") as page:
        await expect(page.locator(".charts .chart svg")).to_have_count(6)
        await page.get_by_role("button", name="7 days").click()
        await page.wait_for_url("**/analytics?days=7")
        await expect(page.locator(".number-card").filter(has_text="Output tokens")).to_have_text("Output tokens10")
        await page.get_by_label("From").fill("2001-01-01")
        await page.get_by_label("Until", exact=True).fill("2001-01-02")
        await expect(page.get_by_text("Nothing on these days")).to_be_visible()
        assert page.url.endswith("/analytics?since=2001-01-01&until=2001-01-02")
        await shown.picture(page, "analytics-empty")
        await page.get_by_role("link", name="Show all time").click()
        await expect(page.locator(".charts .chart svg")).to_have_count(6)
    async with shown.page("/analytics?since=2001-01-01&until=2001-01-02") as page:
        await expect(page.get_by_text("Nothing on these days")).to_be_visible()
        await expect(page.get_by_label("From")).to_have_value("2001-01-01")


async def test_it_reads_another_node_when_one_dies_and_says_so_when_none_is_left(shown: Stage) -> None:
    async with shown.page("/analytics") as page:
        await expect(page.locator(".charts .chart svg")).to_have_count(6)
        read = (await page.locator(".freshness").inner_text()).split(" ·", maxsplit=1)[0].strip()
        await shown.cluster.kill(read)
        await page.get_by_role("button", name="90 days").click()
        await expect(page.locator(".freshness")).not_to_contain_text(read)
        await expect(page.locator(".number-card").first).to_be_visible()
        for node in shown.cluster.addresses:
            if node.node_id != read:
                await shown.cluster.kill(node.node_id)
        await page.get_by_role("button", name="30 days").click()
        await expect(page.get_by_text("No node answers", exact=True)).to_be_visible()
        await shown.picture(page, "analytics-no-node")
        await asyncio.gather(*(shown.cluster.start_node(node.node_id) for node in shown.cluster.addresses))
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator(".number-card, .state-title").first).to_be_visible()
