"""What commands show while they run: a status that is watched, a session that is followed, an import's progress."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_core.client import Client
from tests.integration.test_cli import Node, start
from tests.terminal import on_terminal, through_a_pipe
from tests.waiting import until

INTERRUPTED = 130
WITHIN_SECONDS = 30.0


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async for started in start("node-a"):
        yield started


async def test_a_watched_status_is_drawn_anew_in_place_until_ctrl_c(node: Node) -> None:
    async with on_terminal("status", "--watch", "--nodes", node.address) as (shown, _):
        await until(lambda: "node-a      0  primary" in shown.text, seconds=WITHIN_SECONDS)
        node.administration.role = "standby"
        await until(lambda: "node-a      0  standby" in shown.text, seconds=WITHIN_SECONDS)
        node.administration.not_ready = ["shard 3 is damaged"]
        await until(lambda: "node-a is not ready: shard 3 is damaged" in shown.text, seconds=WITHIN_SECONDS)
        shown.interrupt()
        assert await shown.end() == INTERRUPTED
        assert "Traceback" not in shown.text


async def test_a_watched_status_in_a_pipe_is_printed_again_and_again(node: Node) -> None:
    async with through_a_pipe("status", "--watch", "--nodes", node.address) as shown:
        await until(lambda: shown.text.count("Raft leader node-a") >= 3, seconds=WITHIN_SECONDS)
        assert "\x1b" not in shown.text
        shown.interrupt()
        assert await shown.end() == INTERRUPTED


async def test_a_followed_session_shows_each_new_entry_as_it_comes(node: Node) -> None:
    node.primary.add_session("s1", entries=2)

    def seqs() -> list[int]:
        return [json.loads(line)["seq"] for line in shown.text.splitlines(keepends=True) if line.endswith("\n")]

    async with through_a_pipe("tail", "s1", "--after", "1", "--json", "--node", node.address) as shown:
        await until(lambda: seqs() == [2], seconds=WITHIN_SECONDS)
        async with Client(node.address) as client:
            for number in (3, 4):
                await client.append("s1", "message", {"role": "user", "content": f"entry {number}"})
                await until(lambda: len(seqs()) == number - 1, seconds=WITHIN_SECONDS)  # noqa: B023 - awaited here
        assert seqs() == [2, 3, 4]
        shown.interrupt()
        assert await shown.end() == INTERRUPTED


async def test_a_followed_session_is_shown_as_text_on_a_terminal(node: Node) -> None:
    node.primary.add_session("s1")
    async with on_terminal("tail", "s1", "--node", node.address) as (shown, _), Client(node.address) as client:
        await until(lambda: node.primary.subscriptions == 1, seconds=WITHIN_SECONDS)
        await client.append("s1", "message", {"role": "user", "content": "Hello"})
        await until(lambda: "#1 message user" in shown.text and "Hello" in shown.text, seconds=WITHIN_SECONDS)
        shown.interrupt()
        assert await shown.end() == INTERRUPTED
        assert "Traceback" not in shown.text


async def test_an_import_shows_how_far_it_is_and_leaves_the_sum(node: Node, tmp_path: Path) -> None:
    for number in range(2):
        lines = [json.dumps({"session_id": f"s{number}", "role": "user", "content": f"{n}"}) for n in range(200)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(lines))
    node.primary.answer.clear()
    async with on_terminal("import", str(tmp_path), "--node", node.address) as (shown, _):
        await until(lambda: re.search(r"importing \S+ 0/2 200 entries", shown.text), seconds=WITHIN_SECONDS)
        node.primary.answer.set()
        assert await shown.end() == 0
        assert re.search(r"importing \S+ 1/2 \d+ entries", shown.text)
        assert shown.text.splitlines()[-1].strip() == (
            "2 files, 2 sessions: 400 entries added, 0 already there, 0 problems"
        )
