"""A cluster with the sample transcripts, its dashboard in a process of its own, and a real browser."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from agent_core.client import Client
from ops.cluster_files import free_ports
from ops.dashboard.process import running_dashboard
from ops.importing import import_files
from ops.local_cluster import LocalCluster
from ops.sample_transcripts import sample_paths
from tests.steady import steady_plan

CHROMIUM = "/usr/bin/chromium"
ARTEFACTS = Path(__file__).parents[2] / "build" / "screenshots"
"""Where tests leave what they saw; git ignores it."""
DEADLINE_MILLISECONDS = 20_000
LARGE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}


@dataclass
class Stage:
    """What the tests of one module share.

    Attributes:
        cluster: Three nodes that hold the sample.
        client: Writes to them.
        url: Of the dashboard.
        browser: Chromium.
        complaints: What pages reported as errors, refused scripts among them.
        requested: Every address that pages asked for.
    """

    cluster: LocalCluster
    client: Client
    url: str
    browser: Browser
    complaints: list[str] = field(default_factory=list)
    requested: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def page(self, path: str, *, dark: bool = False, phone: bool = False) -> AsyncIterator[Page]:
        """A page of the dashboard in a browser without a past."""
        context: BrowserContext = await self.browser.new_context(
            viewport=PHONE if phone else LARGE,  # type: ignore[arg-type] # a TypedDict of the library's own
            color_scheme="dark" if dark else "light",
        )
        context.set_default_timeout(DEADLINE_MILLISECONDS)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: self.complaints.append(message.text) if message.type == "error" else None,
        )
        page.on("request", lambda request: self.requested.add(request.url))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog opened: {dialog.message}"))
        try:
            await page.goto(self.url + path)
            yield page
        finally:
            await context.close()

    @contextmanager
    def without_complaints(self) -> Iterator[None]:
        """Within it pages report no error, refuse nothing, and ask nobody but the dashboard."""
        self.complaints.clear()
        self.requested.clear()
        yield
        assert self.complaints == []
        assert [url for url in self.requested if not url.startswith((self.url, "data:", "blob:"))] == []

    async def picture(self, page: Page, name: str) -> None:
        """Keep what the page looks like."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=ARTEFACTS / f"{name}.png")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window."""
    expect.set_options(timeout=DEADLINE_MILLISECONDS)
    # As root, Chromium runs only without its sandbox.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """Set the stage, and clear it."""
    async with LocalCluster(folder / "cluster", steady_plan()) as cluster:
        nodes = [node.http_address for node in cluster.addresses]
        (port,) = free_ports(1)
        async with (
            Client([node.grpc_address for node in cluster.addresses], timeout_seconds=60) as client,
            running_dashboard(nodes, f"127.0.0.1:{port}", folder / "dashboard.log") as url,
            chromium() as browser,
        ):
            await import_files(client, sample_paths())
            yield Stage(cluster, client, url, browser)
