"""The dashboard in a real browser, on a real cluster that loses nodes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import expect

from ops.cluster_files import free_ports
from ops.dashboard.process import running_dashboard
from tests.e2e.dashboard_stage import Stage, stage
from tests.exported import roles

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAKY = "db5b5fab-8f4d-4e27-9da1-494c73cf256d"
LONG = 500
LAST_LAGS = """Object.fromEntries(
    getElement(document.querySelector('.chart').id.slice(1)).chart.getOption().series
        .map(line => [line.name, line.data.at(-1)[1]]))"""
"""What the chart of the lag shows at its right end, in seconds by node."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(module_path: Path) -> AsyncIterator[Stage]:
    async with stage(module_path) as built:
        yield built


@pytest.fixture(autouse=True)
def no_complaints(shown: Stage) -> Iterator[None]:
    with shown.without_complaints():
        yield


async def test_the_cluster_page_shows_roles_positions_lag_and_spares_the_primary(shown: Stage) -> None:
    primary, standbys = await roles(shown.cluster)
    async with shown.page("/") as page:
        groups = page.locator("section", has_text="Shard groups")
        await expect(groups.locator("tr", has_text=primary)).to_contain_text("leads, heard by 2")
        for standby in standbys:
            await expect(groups.locator("tr", has_text=standby)).to_contain_text("follows")
        nodes = page.locator("section", has_text="gRPC")
        await expect(nodes.locator("tr", has_text=primary)).to_contain_text("it is not asked")
        await expect(page.locator(".chart svg")).to_be_visible()
        await expect(page.locator(".freshness")).to_contain_text(f"{standbys[0]}, {standbys[1]} · up to date")
        await shown.picture(page, "cluster-light")


async def test_the_lag_of_a_stopped_standby_rises_and_falls_when_it_runs_again(shown: Stage) -> None:
    _, (stopped, other) = await roles(shown.cluster)
    pid = shown.cluster.pid(stopped)
    assert pid is not None
    async with shown.page("/") as page:
        lag = f"{LAST_LAGS}['{stopped}']"
        await page.wait_for_function(f"{lag} < 1")
        os.killpg(pid, signal.SIGSTOP)
        try:
            await page.wait_for_function(f"{lag} > 5")
            assert await page.evaluate(f"{LAST_LAGS}['{other}']") < 2
            await shown.picture(page, "cluster-stopped-standby")
        finally:
            os.killpg(pid, signal.SIGCONT)
        await page.wait_for_function(f"{lag} < 1")
        await shown.picture(page, "cluster-standby-back")


async def test_sessions_are_searched_filtered_and_opened_by_keyboard_alone(shown: Stage) -> None:
    async with shown.page("/", dark=True) as page:
        await expect(page.locator(".facts")).to_be_visible()
        await page.keyboard.press("g")
        await page.keyboard.press("s")
        await expect(page.locator("tbody tr")).to_have_count(8)
        await shown.picture(page, "sessions-dark")
        await page.keyboard.press("/")
        await page.keyboard.type("flaky")
        await expect(page.locator("tbody tr")).to_have_count(1)
        assert "text=flaky" in page.url
        await page.get_by_role("link", name="Flaky business-day test").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Flaky business-day test")


async def test_a_filter_is_part_of_the_address_and_combines_with_others(shown: Stage) -> None:
    async with shown.page("/sessions") as page:
        await page.locator("a.chip-workspace", has_text="kelpie").first.click()
        await expect(page.locator("tbody tr")).to_have_count(2)
        await page.get_by_label("Title or id").fill("index builds")
        await expect(page.locator("tbody tr")).to_have_count(1)
        assert "workspace=kelpie" in page.url
        await page.get_by_label("Updated from").fill("2020-01-01")
        await page.get_by_label("Updated until").fill("2020-01-02")
        await expect(page.get_by_text("No session matches")).to_be_visible()
        await shown.picture(page, "sessions-empty")


async def test_sessions_come_page_by_page(shown: Stage) -> None:
    for number in range(60):
        await shown.client.create_session(workspace="paged", title=f"number {number}")
    async with shown.page("/sessions?workspace=paged") as page:
        await expect(page.locator("tbody tr")).to_have_count(50)
        await page.get_by_role("link", name="Next page").click()
        await expect(page.locator("tbody tr")).to_have_count(10)
        await page.get_by_role("link", name="First page").click()
        await expect(page.locator("tbody tr")).to_have_count(50)


async def test_a_transcript_reads_as_a_conversation_with_tool_calls_folded(shown: Stage) -> None:
    async with shown.page(f"/sessions/{FLAKY}") as page:
        await expect(page.locator(".said-by-user").first).to_contain_text("fails about one run in five")
        await expect(page.locator(".said-by-assistant strong", has_text="UTC").first).to_be_visible()
        call = page.locator("details.call", has_text="eta.py").nth(1)
        await expect(call.locator(".call-body")).to_be_hidden()
        await call.locator("summary").click()
        await expect(call.locator(".call-body")).to_contain_text("def next_business_day")
        change = page.locator("details.call", has_text="Edit").first
        await change.locator("summary").press("Enter")
        await expect(change.locator(".code .gi").first).to_be_visible()
        await shown.picture(page, "session-light")


@pytest.mark.parametrize("path", ["/", "/sessions", f"/sessions/{FLAKY}"])
async def test_pages_fit_a_phone(shown: Stage, path: str) -> None:
    async with shown.page(path, phone=True, dark=True) as page:
        await expect(page.locator(".table, .item").first).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        await shown.picture(page, f"phone-{path.strip('/').split('/')[0] or 'cluster'}{path.count('/')}")


@pytest.mark.parametrize("path", ["/", "/sessions", f"/sessions/{FLAKY}", "/sql"])
async def test_pages_fit_whatever_window_they_are_in(shown: Stage, path: str) -> None:
    async with shown.page(path) as page:
        await expect(page.locator(".table, .item, .sql-table").first).to_be_visible()
        for width in (320, 641, 820, 901, 1101, 1920):
            await page.set_viewport_size({"width": width, "height": 800})
            assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width


async def test_how_old_everything_is_can_be_read_on_a_phone(shown: Stage) -> None:
    async with shown.page("/", phone=True) as page:
        shown_age = page.locator(".freshness")
        await expect(shown_age).to_contain_text("up to date")
        assert await shown_age.evaluate(
            "chip => [chip, ...chip.children].every(e => e.scrollWidth <= e.clientWidth)"
        )


async def test_the_keyboard_sees_where_it_is_and_what_a_pointer_would_be_told(shown: Stage) -> None:
    async with shown.page("/analytics") as page:
        await expect(page.locator(".freshness")).to_contain_text("up to date")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
        await page.get_by_role("link", name="SQL").focus()
        await page.keyboard.press("Tab")
        await expect(page.locator(".freshness")).to_be_focused()
        await expect(page.get_by_role("tooltip")).to_contain_text("Read from")
        for name in ("Theme: system; change it", "7 days"):
            await page.keyboard.press("Tab")
            button = page.get_by_role("button", name=name)
            await expect(button).to_be_focused()
            await expect(button).not_to_have_css("box-shadow", "none")


async def test_a_session_grows_while_it_is_looked_at(shown: Stage) -> None:
    session = await shown.client.create_session(title="Grows")
    async with shown.page(f"/sessions/{session.session_id}") as page:
        await expect(page.get_by_text("Nothing has been said yet")).to_be_visible()
        for text in ("first words", "second words"):
            await shown.client.append(session.session_id, "message", {"role": "user", "content": text})
            await expect(page.locator(".said").last).to_contain_text(text)
        await expect(page.get_by_text("Nothing has been said yet")).to_be_hidden()
        content = [{"type": "tool_call", "id": "call-1", "name": "bash", "arguments": {"command": "sleep 1"}}]
        await shown.client.append(session.session_id, "message", {"role": "assistant", "content": content})
        await expect(page.locator(".call-pending")).to_contain_text("no result yet")
        result = {"role": "tool_result", "toolCallId": "call-1", "content": "done", "isError": True}
        await shown.client.append(session.session_id, "message", result)
        await expect(page.locator(".call-errored")).to_contain_text("failed")


async def test_a_long_transcript_opens_at_its_end_comes_in_parts_and_offers_its_latest(shown: Stage) -> None:
    session = await shown.client.create_session(title="Long")
    for number in range(1, LONG + 1):
        await shown.client.append(
            session.session_id, "message", {"role": "user", "content": f"entry number {number} of many"}
        )
    async with shown.page(f"/sessions/{session.session_id}") as page:
        await expect(page.get_by_text(f"entry number {LONG} of many")).to_be_in_viewport()
        await expect(page.locator(".item")).to_have_count(200)
        await page.get_by_role("link", name="Start").first.click()
        await expect(page.get_by_text("entry number 1 of many")).to_be_in_viewport()
        await page.get_by_role("link", name="Later").first.click()
        await expect(page.get_by_text("entries 201 to 400 of 500")).to_be_visible()
        await page.get_by_role("link", name="Jump to latest").click()
        await expect(page.get_by_text(f"entry number {LONG} of many")).to_be_in_viewport()
        # Whoever looks at the end stays there; who has scrolled away is told what came.
        await shown.client.append(session.session_id, "message", {"role": "user", "content": "one more"})
        await expect(page.get_by_text("one more")).to_be_in_viewport()
        await page.evaluate("window.scrollTo(0, 0)")
        await expect(page.get_by_role("link", name="Jump to latest")).to_be_visible()
        await shown.client.append(session.session_id, "message", {"role": "user", "content": "and another"})
        await expect(page.get_by_role("link", name="Jump to latest 1 new")).to_be_visible()
        await page.keyboard.press("l")
        await expect(page.get_by_text("and another")).to_be_in_viewport()


async def test_the_theme_that_was_chosen_stays(shown: Stage) -> None:
    async with shown.page("/sessions") as page:
        await page.get_by_role("button", name="Theme: system").click()
        await page.get_by_role("button", name="Theme: light").click()
        for _ in range(2):
            await expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
            await expect(page.locator("body")).to_have_class(re.compile("body--dark"))
            await page.reload()


async def test_what_is_not_there_is_said_and_shown_once_it_comes(shown: Stage) -> None:
    async with shown.page("/sessions/nobody-yet") as page:
        await expect(page.get_by_text("No such session")).to_be_visible()
        await expect(page.locator(".freshness")).to_contain_text("up to date")
        await shown.client.create_session(session_id="nobody-yet", title="Here now")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Here now")


async def test_nothing_is_loaded_from_elsewhere(shown: Stage) -> None:
    async with shown.page("/"):
        pass
    ours = urlsplit(shown.url).netloc
    assert {urlsplit(url).netloc for url in shown.requested if not url.startswith("data:")} == {ours}


async def test_the_page_goes_on_from_another_node_when_the_one_it_reads_dies_and_says_so(shown: Stage) -> None:
    primary, standbys = await roles(shown.cluster)
    session = await shown.client.create_session(title="Outlives nodes")
    async with shown.page(f"/sessions/{session.session_id}") as page, shown.page("/") as overview:
        await shown.client.append(session.session_id, "message", {"role": "user", "content": "before"})
        await expect(page.get_by_text("before")).to_be_visible()
        read = ((await page.locator(".freshness").inner_text()).split("·")[0]).strip()
        (other,) = set(standbys) - {read}
        await expect(overview.locator(".facts")).to_be_visible()
        known = await overview.locator(".change", has_text=f"{read} stopped answering").count()
        await shown.cluster.kill(read)
        await expect(page.get_by_text(f"{read} stopped answering; reading from {other}")).to_be_visible()
        await expect(page.locator(".freshness")).to_contain_text(other)
        await shown.client.append(session.session_id, "message", {"role": "user", "content": "after"})
        await expect(page.get_by_text("after", exact=True)).to_be_visible()
        await shown.picture(page, "session-moved")
        # A test before may have stopped it too.
        await expect(overview.locator(".change", has_text=f"{read} stopped answering")).to_have_count(known + 1)
        await shown.cluster.start_node(read)
        await expect(overview.locator(".change", has_text=f"{read} is back")).to_have_count(known + 1)

        await shown.cluster.kill(primary)
        await expect(overview.locator(".change", has_text="fail-over")).to_contain_text(f"from {primary}")
        await shown.picture(overview, "cluster-failover")
        await shown.cluster.start_node(primary)


async def test_a_cluster_that_never_answered_is_told_of_once_with_its_newest_reason(
    shown: Stage, tmp_path: Path
) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    port, dashboard_port = free_ports(2)
    log = tmp_path / "dashboard.log"
    async with (
        running_dashboard([f"127.0.0.1:{port}"], f"127.0.0.1:{dashboard_port}", log) as url,
        replace(shown, url=url, requested=set()).page("/") as page,
    ):
        said = page.locator(".state-error")
        await expect(said).to_contain_text("it refuses connections")
        async with await asyncio.start_server(hang_up, "127.0.0.1", port):
            await expect(said).to_contain_text("the connection broke")
            await expect(said).to_have_count(1)


async def test_without_any_node_the_page_says_since_when_and_goes_on_by_itself(shown: Stage) -> None:
    names = [node.node_id for node in shown.cluster.addresses]
    async with shown.page("/sessions") as sessions, shown.page("/") as overview:
        await expect(sessions.locator("tbody tr").first).to_be_visible()
        await expect(overview.locator(".facts")).to_be_visible()
        for name in names:
            await shown.cluster.kill(name)
        await expect(overview.locator(".freshness")).to_contain_text("as of")
        async with shown.page("/") as opened_later:
            await expect(opened_later.locator(".freshness")).to_contain_text("as of")
        await sessions.get_by_label("Title or id").fill("x")
        await expect(sessions.get_by_text("No node answers")).to_be_visible()
        await shown.picture(sessions, "no-node")
        for name in names:
            await shown.cluster._processes[name].start()
        await shown.cluster.wait_ready()
        await expect(
            sessions.get_by_text("No session matches").or_(sessions.locator("tbody tr").first)
        ).to_be_visible()
        await expect(overview.locator(".freshness")).to_contain_text("up to date")
