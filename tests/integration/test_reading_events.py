"""Server-sent events of a node's own HTTP server, which may go away and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from playwright.async_api import async_playwright

from agent_core.routing import ShardLayout
from ops.cluster_files import free_ports
from ops.http import OPERATIONS, HttpServer, build_app
from ops.node_snapshot import NodeSnapshot
from replica.reading.http import reading_routes
from replica.reading.live_follow import MAX_FOLLOWERS
from replica.reading.positions import AppliedPositions
from replica.reading.reading import Reading
from tests.reading_shards import WrittenShards
from tests.waiting import until

CHROMIUM = "/usr/bin/chromium"
LAYOUT = ShardLayout(shard_count=1, shard_group_count=1)
SESSION = "followed"
EVENTS = f"/v1/sessions/{SESSION}/events"


class Node:
    """A node's shard with one session, and its HTTP server."""

    def __init__(self, directory: Path) -> None:
        self.shards = WrittenShards(directory, LAYOUT)
        self.shards.create_every_shard()
        self.shards.create(SESSION)
        self.applied = AppliedPositions(1)
        self.applied.written_by(0, self.shards.rows.get)
        self.reading = Reading.open(directory, LAYOUT, self.applied)
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self._server: HttpServer | None = None
        self.append("1", "2")

    def append(self, *payloads: str) -> None:
        self.shards.append(SESSION, *payloads)
        self.applied.advance(0, self.shards.position(0))

    async def serve(self) -> None:
        snapshot = NodeSnapshot(cluster_id="test", node_id="node-1", version="1.2.3")
        self._server = await HttpServer.start(
            build_app(lambda: snapshot, routes=reading_routes(self.reading)), self.address
        )

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    await made.serve()
    yield made
    await made.stop()
    await made.reading.close()
    made.shards.close()


async def test_a_follower_too_many_is_refused_and_the_probes_are_answered(node: Node) -> None:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://{node.address}", timeout=60, limits=limits) as http:
        async with AsyncExitStack() as followers:
            await asyncio.gather(
                *(followers.enter_async_context(http.stream("GET", EVENTS)) for _ in range(MAX_FOLLOWERS))
            )
            refused = await http.get(EVENTS)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
            assert "128 readers follow sessions on this node already" in refused.json()["error"]["message"]
            for path in (*OPERATIONS, f"/v1/sessions/{SESSION}"):
                assert (await http.get(path)).status_code == 200
        await until(lambda: not node.reading.live_follow.following)
        async with http.stream("GET", EVENTS) as events:
            assert events.status_code == 200


async def test_a_browser_resumes_by_itself_after_what_it_has(node: Node) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto(f"http://{node.address}/healthz")
        await page.evaluate(
            """path => {
                window.seen = [];
                const events = new EventSource(path);
                events.addEventListener("entry", event => window.seen.push(JSON.parse(event.data).seq));
            }""",
            EVENTS,
        )
        await page.wait_for_function("window.seen.length == 2")
        await node.stop()
        node.append("3")
        await node.serve()
        await page.wait_for_function("window.seen.length >= 3")
        node.append("4")
        await page.wait_for_function("window.seen.length >= 4")
        assert await page.evaluate("window.seen") == [1, 2, 3, 4]
        await browser.close()
