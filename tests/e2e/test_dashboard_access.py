"""The dashboard for people who use a keyboard, a screen reader, or a phone: each page, in a real browser."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.e2e.dashboard_stage import Stage, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAKY = "/sessions/db5b5fab-8f4d-4e27-9da1-494c73cf256d"
SQL = f"/sql?seconds=30&sql={quote('SELECT name, calls, mean_seconds FROM tool_calls_by_name ORDER BY calls DESC')}"
CHART = f"{SQL}&view=chart"
SHOWN = {
    "/": ".facts",
    "/sessions": "tbody tr",
    "/sessions?text=nothing-like-it": ".state-title",
    FLAKY: ".item",
    "/sessions/nobody": ".state-title",
    "/analytics": ".charts .chart svg",
    "/sql": ".sql-editor .cm-content[aria-label]",
    SQL: ".result tbody tr",
    CHART: ".chart svg",
}
"""Each page with what is there once it is complete."""
NAMES = ["cluster", "sessions", "no-session", "session", "unknown", "analytics", "sql", "sql-table", "sql-chart"]
FIRST_MILLISECONDS = 60_000
"""The first questions in SQL wait for the nodes' workers, on a machine that runs other tests too."""
TABS = 400
LEAST_CONTRAST = 4.5
FOCUSABLE = """
    () => {
        const all = 'a[href], button, input, select, textarea, summary, [contenteditable=true], [tabindex="0"]';
        const seen = [...document.querySelectorAll(all)].filter(e =>
            e.checkVisibility({visibilityProperty: true}) && !e.disabled && e.tabIndex >= 0 &&
            !e.matches('[data-latest]'));
        seen.forEach((e, number) => e.dataset.tab = number);
        return seen.map(e => e.outerHTML.slice(0, 160));
    }
"""
"""All but the link to the latest entry, which leaves when that is in sight; its key is `l`."""
CHART_TEXTS = """
    () => [...document.querySelectorAll('.chart text')].filter(text => text.textContent.trim()).map(text => [
        text.textContent, getComputedStyle(text).fill, getComputedStyle(text.closest('.card')).backgroundColor])
"""
FOCUSED = "() => document.activeElement === document.body ? null : Number(document.activeElement.dataset.tab ?? -1)"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(module_path: Path) -> AsyncIterator[Stage]:
    async with stage(module_path) as built:
        yield built


@pytest.fixture(autouse=True)
def no_complaints(shown: Stage) -> Iterator[None]:
    with shown.without_complaints():
        yield


def contrast(*colours: str) -> float:
    """Of two colours as CSS computes them (WCAG 2.2, contrast ratio)."""

    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4

    channels = [[int(part) / 255 for part in re.findall(r"\d+", colour)[:3]] for colour in colours]
    darker, lighter = sorted(
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue) for red, green, blue in channels
    )
    return (lighter + 0.05) / (darker + 0.05)


async def until_complete(page: Page, path: str) -> None:
    await expect(page.locator(SHOWN[path]).first).to_be_visible(timeout=FIRST_MILLISECONDS)
    await expect(page.get_by_text("Reading …", exact=True)).to_have_count(0, timeout=FIRST_MILLISECONDS)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", SHOWN, ids=NAMES)
async def test_a_page_breaks_no_rule_of_accessibility(shown: Stage, path: str, dark: bool) -> None:
    async with shown.page(path, dark=dark) as page:
        await until_complete(page, path)
        found = (await Axe().run(page)).response["violations"]
        assert [
            (rule["id"], node["target"], node["failureSummary"], node["html"][:200])
            for rule in found
            for node in rule["nodes"]
        ] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/analytics", CHART], ids=["cluster", "analytics", "sql-chart"])
async def test_what_charts_write_can_be_read(shown: Stage, path: str, dark: bool) -> None:
    """The rules' own check looks at no drawing."""
    async with shown.page(path, dark=dark) as page:
        await until_complete(page, path)
        texts = await page.evaluate(CHART_TEXTS)
        assert texts
        assert [text for text, ink, ground in texts if contrast(ink, ground) < LEAST_CONTRAST] == []


@pytest.mark.parametrize("path", SHOWN, ids=NAMES)
async def test_the_tab_key_reaches_everything_and_leaves_everything(shown: Stage, path: str) -> None:
    async with shown.page(path) as page:
        await until_complete(page, path)
        focusable = await page.evaluate(FOCUSABLE)
        reached: list[int] = []
        for _ in range(TABS):
            await page.keyboard.press("Tab")
            at = await page.evaluate(FOCUSED)
            if at is None or (at == 0 and reached):
                break
            if at >= 0:
                reached.append(at)
        else:
            raise AssertionError(f"the focus does not come round; last it was at {focusable[reached[-1]]}")
        assert "Skip to the content" in focusable[reached[0]]
        missed = set(range(len(focusable))) - set(reached)
        assert [focusable[number] for number in sorted(missed)] == []


@pytest.mark.parametrize("path", SHOWN, ids=NAMES)
async def test_a_page_is_no_wider_than_a_phone(shown: Stage, path: str) -> None:
    async with shown.page(path, phone=True) as page:
        await until_complete(page, path)
        wide = """[...document.querySelectorAll('main *')]
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scrolled, .code, table'))
            .map(e => e.outerHTML.slice(0, 120))"""
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, await page.evaluate(
            wide
        )
        await shown.picture(page, f"phone-{NAMES[list(SHOWN).index(path)]}")


async def test_the_skip_link_leads_past_the_navigation(shown: Stage) -> None:
    async with shown.page("/sessions") as page:
        await until_complete(page, "/sessions")
        await page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        await expect(skip).to_be_focused()
        await expect(skip).to_be_in_viewport()
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.get_by_label("Title or id")).to_be_focused()


async def test_g_and_a_letter_go_to_each_page(shown: Stage) -> None:
    async with shown.page(FLAKY) as page:
        await until_complete(page, FLAKY)
        for key, heading in (("c", "Cluster"), ("a", "Analytics"), ("q", "SQL"), ("s", "Sessions")):
            await page.keyboard.press("g")
            await page.keyboard.press(key)
            await expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()


async def test_j_and_k_go_from_entry_to_entry_and_enter_opens_a_call(shown: Stage) -> None:
    focused = "document.activeElement.closest('.item')?.id"
    async with shown.page(f"{FLAKY}?after=0") as page:
        await expect(page.locator(".item").first).to_be_visible()
        ids = await page.evaluate("[...document.querySelectorAll('.item')].map(item => item.id)")
        for there in ids[:5]:
            await page.keyboard.press("j")
            assert await page.evaluate(focused) == there
        for back in reversed(ids[1:4]):
            await page.keyboard.press("k")
            assert await page.evaluate(focused) == back
        call = page.locator("details.call").first
        while await page.evaluate(focused) != await call.get_attribute("id"):
            await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(call.locator(".call-body")).to_be_visible()


async def test_the_theme_is_changed_by_keyboard(shown: Stage) -> None:
    async with shown.page("/") as page:
        await until_complete(page, "/")
        await page.get_by_role("button", name="Theme: system").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Theme: light")).to_be_focused()
        await page.keyboard.press("Space")
        await expect(page.locator("body.body--dark")).to_be_visible()


async def test_a_range_of_days_is_chosen_by_keyboard(shown: Stage) -> None:
    async with shown.page("/analytics") as page:
        await until_complete(page, "/analytics")
        await page.get_by_role("button", name="7 days").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/analytics?days=7")


async def test_the_table_the_chart_and_the_files_of_a_result_are_reached_by_keyboard(shown: Stage) -> None:
    async with shown.page(SQL) as page:
        await until_complete(page, SQL)
        await page.get_by_role("button", name="Chart", exact=True).focus()
        await page.keyboard.press("Enter")
        await expect(page.locator(".chart svg")).to_be_visible()
        await page.get_by_label("y", exact=True).focus()
        await page.keyboard.press("ArrowDown")
        await page.get_by_role("option", name="mean_seconds").wait_for()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**y=mean_seconds**")
        await page.get_by_role("button", name="Table", exact=True).focus()
        await page.keyboard.press("Space")
        await expect(page.locator(".result tbody tr").first).to_be_visible()
        await page.get_by_role("button", name="Download as csv").focus()
        async with page.expect_download() as waiting:
            await page.keyboard.press("Enter")
        assert (await waiting.value).suggested_filename == "headwater.csv"
