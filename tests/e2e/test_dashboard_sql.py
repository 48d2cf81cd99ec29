"""The dashboard's SQL page in a real browser, against real nodes."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import duckdb
import httpx
import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from ops.dashboard.sql.catalogue import TABLES
from tests.e2e.dashboard_stage import Stage, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUN = "window.pwned=1;fetch('https://evil.example/');alert(1)"
FORMULA = "=cmd|' /C calc'!A0"
ATTACKS = [
    f"<script>{RUN}</script>",
    f'<img src=x onerror="{RUN}">',
    f"</bdi></td></table><svg onload={RUN}>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "${window.pwned=1} :window.pwned=1",
]
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c"
RUNNING = re.compile(r"running, [1-9]")
"""For a second at least."""
DEADLINE_SECONDS = 20
BUSY_MS = 20_000
"""A machine that runs other tests too may need longer than the default for a view."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(module_path: Path) -> AsyncIterator[Stage]:
    async with stage(module_path) as built:
        for attack in ATTACKS:
            await built.client.create_session(title=attack, workspace="hostile")
        await built.client.create_session(title=FORMULA, workspace="sheet")
        yield built


@pytest.fixture(autouse=True)
def no_complaints(shown: Stage) -> Iterator[None]:
    with shown.without_complaints():
        yield


async def write(page: Page, sql: str) -> None:
    """Put a statement into the editor, in place of what stands there."""
    await page.locator(".cm-content").click()
    await page.keyboard.press("Control+A")
    await page.keyboard.insert_text(sql)


async def stopped_workers(shown: Stage) -> float:
    """The workers of SQL that the nodes had to stop, all nodes together."""
    total = 0.0
    async with httpx.AsyncClient() as http:
        for node in shown.cluster.addresses:
            metrics = (await http.get(f"http://{node.http_address}/metrics")).text
            line = next(line for line in metrics.splitlines() if line.startswith("headwater_sql_workers_stopped"))
            total += float(line.rsplit(" ", 1)[1])
    return total


async def until_stopped(shown: Stage, count: float) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while await stopped_workers(shown) < count:
        assert time.monotonic() < deadline, "the nodes stopped no worker in time"
        await asyncio.sleep(0.1)


async def downloaded(page: Page, ending: str) -> bytes:
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name=f"Download as {ending}").click()
    download = await waiting.value
    assert download.suggested_filename == f"headwater.{ending}"
    return await asyncio.to_thread((await download.path()).read_bytes)


async def test_control_enter_runs_and_the_address_shares_the_query(shown: Stage) -> None:
    async with shown.page("/sql") as page:
        await expect(page.get_by_text("No query yet")).to_be_visible()
        await write(page, "SELECT workspace, sessions FROM sessions_by_workspace ORDER BY workspace")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator(".result tbody tr", has_text="kelpie")).to_be_visible()
        await expect(page.locator(".sql-progress")).to_contain_text("rows in")
        await expect(page.locator(".freshness")).to_contain_text("up to date")
        address = page.url
        assert "sql=SELECT+workspace" in address
        await shown.picture(page, "sql-light")
    async with shown.page(address.removeprefix(shown.url), dark=True, phone=True) as page:
        await expect(page.locator(".result tbody tr", has_text="kelpie")).to_be_visible()
        await expect(page.locator(".cm-content")).to_contain_text("sessions_by_workspace")
        await shown.picture(page, "sql-phone-dark")


async def test_every_table_of_the_list_has_the_columns_that_it_names_and_can_be_looked_at(shown: Stage) -> None:
    async with httpx.AsyncClient(base_url=f"http://{shown.cluster.addresses[0].http_address}", timeout=60) as http:
        for table in TABLES:
            sql = f"SELECT * FROM {table.name} LIMIT 0"
            empty = await http.get("/v1/query", params={"sql": sql, "timeout_ms": BUSY_MS})
            assert tuple(empty.json().get("columns", [empty.text])) == table.columns
            looked = await http.get("/v1/query", params={"sql": table.example, "timeout_ms": BUSY_MS})
            assert looked.status_code == 200, looked.text
    async with shown.page("/sql?seconds=30") as page:
        await page.locator(".sql-table", has_text="tool_calls_by_name").locator("summary").click()
        await page.get_by_role("button", name="Look at tool_calls_by_name").click()
        await expect(page.locator(".result thead")).to_contain_text("error_rate")
        await expect(page.locator(".cm-content")).to_contain_text("ORDER BY calls DESC")


async def test_an_error_is_shown_as_the_node_said_it(shown: Stage) -> None:
    async with shown.page(f"/sql?sql={quote('SELECT nope FROM sessions')}") as page:
        await expect(page.locator(".sql-error")).to_contain_text('Referenced column "nope" not found')
        await expect(page.locator(".freshness")).to_contain_text("up to date")
        await write(page, "DROP TABLE sessions")
        await page.get_by_role("button", name="Run").click()
        await expect(page.locator(".sql-error")).not_to_contain_text("nope")
        await expect(page.locator(".sql-error")).to_contain_text("The node refused this query")
        await shown.picture(page, "sql-error")
        await write(page, "SELECT 1 AS one WHERE false")
        await page.keyboard.press("Control+Enter")
        await expect(page.get_by_text("No rows")).to_be_visible()


async def test_a_result_is_drawn_as_a_chart_of_chosen_columns(shown: Stage) -> None:
    sql = "SELECT 'day ' || range AS day, range AS n, range * range AS square FROM range(10)"
    async with shown.page(f"/sql?sql={quote(sql)}", dark=True) as page:
        await page.get_by_role("button", name="Chart", exact=True).click()
        await expect(page.locator(".chart svg")).to_be_visible()
        await page.get_by_label("y", exact=True).click()
        await page.get_by_role("option", name="square").click()
        await expect(page.locator(".chart svg")).to_be_visible()
        await page.wait_for_url("**y=square**")
        await shown.picture(page, "sql-chart-dark")
        address = page.url
    async with shown.page(address.removeprefix(shown.url)) as page:
        await expect(page.locator(".chart svg")).to_be_visible()
        await expect(page.locator(".sql-select", has_text="square")).to_be_visible()


async def test_a_cancelled_query_frees_its_worker_on_the_node(shown: Stage) -> None:
    before = await stopped_workers(shown)
    async with shown.page("/sql?seconds=30") as page:
        await write(page, ENDLESS)
        await page.keyboard.press("Control+Enter")
        await expect(page.locator(".sql-progress")).to_contain_text(RUNNING)
        await expect(page.get_by_text("No query yet")).to_be_hidden()
        await expect(page.locator(".freshness")).to_be_hidden()
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.locator(".sql-progress")).to_contain_text("cancelled after")
        await expect(page.get_by_text("No query yet")).to_be_visible()
        await until_stopped(shown, before + 1)
        await write(page, "SELECT 42 AS answer")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator(".result")).to_contain_text("42")


async def test_a_viewer_who_leaves_takes_the_query_along(shown: Stage) -> None:
    before = await stopped_workers(shown)
    async with shown.page(f"/sql?seconds=30&sql={quote(ENDLESS)}") as page:
        await expect(page.locator(".sql-progress")).to_contain_text(RUNNING)
    await until_stopped(shown, before + 1)


async def test_a_query_past_its_time_says_so(shown: Stage) -> None:
    async with shown.page(f"/sql?sql={quote(ENDLESS)}") as page:
        await expect(page.locator(".sql-error")).to_contain_text("limit of 5 s")


async def test_files_hold_every_row_and_csv_no_formula(shown: Stage, tmp_path: Path) -> None:
    sql = "SELECT title, workspace, -1 AS debt FROM sessions WHERE workspace IN ('sheet', 'hostile') ORDER BY title"
    async with shown.page(f"/sql?sql={quote(sql)}") as page:
        await expect(page.locator(".result tbody tr")).to_have_count(len(ATTACKS) + 1)
        read = list(csv.reader(io.StringIO((await downloaded(page, "csv")).decode("utf-8-sig"), newline="")))
        assert read[0] == ["title", "workspace", "debt"]
        assert ["'" + FORMULA, "sheet", "-1"] in read
        rows = orjson.loads(await downloaded(page, "json"))
        assert {row["title"] for row in rows} == {*ATTACKS, FORMULA}
        (tmp_path / "rows.parquet").write_bytes(await downloaded(page, "parquet"))
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT title, debt FROM '{tmp_path}/rows.parquet'").fetchall()
    assert set(found) == {(title, -1) for title in (*ATTACKS, FORMULA)}


@pytest.mark.parametrize("view", ["table", "chart"])
async def test_nothing_in_a_result_runs(shown: Stage, view: str) -> None:
    sql = (
        "SELECT title, title AS \"<img src=x onerror='window.pwned=1'>\", {'<b>': title} AS nested, 1 AS n "
        "FROM sessions WHERE workspace = 'hostile'"
    )
    async with shown.page(f"/sql?view={view}&sql={quote(sql)}") as page:
        if view == "table":
            await expect(page.locator(".result tbody tr")).to_have_count(len(ATTACKS))
            await shown.picture(page, "sql-hostile")
        else:
            await expect(page.locator(".chart svg")).to_be_visible()
            await page.locator(".chart svg").hover()
            await page.get_by_label("x", exact=True).click()
            await expect(page.get_by_role("option", name="onerror")).to_be_visible()
        assert await page.evaluate("window.pwned") is None
        assert await page.locator("main script, main img, main svg[onload], main iframe").count() == 0


async def test_a_statement_in_an_address_does_not_run_in_the_page(shown: Stage) -> None:
    async with shown.page(f"/sql?x={quote(ATTACKS[1])}&sql={quote(ATTACKS[0] + ATTACKS[1])}") as page:
        await expect(page.locator(".sql-error")).to_be_visible()
        assert await page.evaluate("window.pwned") is None


async def test_a_query_goes_to_another_node_when_the_one_that_was_read_is_killed(shown: Stage) -> None:
    async with shown.page(f"/sql?sql={quote('SELECT 7 AS seven')}") as page:
        await expect(page.locator(".result")).to_contain_text("7")
        read = (await page.locator(".freshness").inner_text()).split(" ·", maxsplit=1)[0].strip()
        await shown.cluster.kill(read)
        await write(page, "SELECT 8 AS eight")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator(".result")).to_contain_text("8")
        await expect(page.locator(".freshness")).not_to_contain_text(read)
        await shown.cluster.restart(read)
