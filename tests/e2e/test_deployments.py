"""Nodes as the compose file and the stateful set start them: by their own command, environment and names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import orjson
import pytest

from agent_core.cluster import HostPort
from ops.config import load
from tests.deployment.deployed import DEPLOYMENTS, image_command
from tests.deployment.named_hosts import NamedHosts

DEADLINE_SECONDS = 60
CONFIGURATION = image_command()[-1]


class Deployment:
    """The nodes of a deployment and what their configuration says of them."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nodes = DEPLOYMENTS[name]()
        with monkeypatch.context() as patch:
            for key, value in nodes[0].environment.items():
                patch.setenv(key, value)
            path = folder / "for-the-test.toml"
            path.write_text(nodes[0].configuration)
            self.entries = {entry.id: entry for entry in load(path).nodes}
        hosts = {entry.id: HostPort.parse(entry.http).host for entry in self.entries.values()}
        self.hosts = NamedHosts(nodes, hosts, folder)

    async def wait_ready(self, *names: str) -> None:
        """Wait until these say that they are ready."""
        async with httpx.AsyncClient() as http:
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    for name in names:
                        while not await self._is_ready(http, name):
                            await asyncio.sleep(0.05)
            except TimeoutError:
                raise AssertionError(f"{name} did not become ready\n{self.hosts.log()}") from None

    async def _is_ready(self, http: httpx.AsyncClient, name: str) -> bool:
        try:
            return (await http.get(f"{self._http(name)}/readyz")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _http(self, name: str) -> str:
        return f"http://{self.hosts.address(name)}:{HostPort.parse(self.entries[name].http).port}"


@pytest.mark.parametrize("name", DEPLOYMENTS)
async def test_the_nodes_of_a_deployment_elect_a_primary_take_writes_and_end_when_they_are_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(name, tmp_path, monkeypatch)
    hosts, entries = deployment.hosts, deployment.entries
    first, second, third = entries
    async with hosts:
        await asyncio.gather(*(hosts.start(node) for node in entries))
        await deployment.wait_ready(*entries)

        asked = [hosts.run(node, "health", "--config", CONFIGURATION, "--ready") for node in entries]
        for code, output in await asyncio.gather(*asked):
            assert (code, orjson.loads(output)["status"]) == (0, "ready"), output
        appended = await hosts.run(
            first, "append", "deployed", "written through one node", "--create", "--node", entries[second].grpc
        )
        assert appended[0] == 0, appended[1]
        code, shown = await hosts.run(first, "show", "deployed", "--node", entries[third].grpc)
        assert "written through one node" in shown, shown

        assert await asyncio.gather(*map(hosts.stop, entries)) == [0, 0, 0], hosts.log()


async def test_a_node_that_comes_back_with_another_address_is_found_again_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment("kubernetes", tmp_path, monkeypatch)
    hosts, entries = deployment.hosts, deployment.entries
    async with hosts:
        await asyncio.gather(*(hosts.start(node) for node in entries))
        await deployment.wait_ready(*entries)

        for node in entries:
            assert await hosts.stop(node) == 0
            hosts.move(node)
            await hosts.start(node)
            await deployment.wait_ready(*entries)

        # The first knew the last where it was before it moved, and now has to forward to it.
        first, *_, last = entries
        through_first = ("--node", entries[first].grpc)
        switched = await hosts.run(first, "switchover", "--group", "0", "--to", last, *through_first)
        assert switched[0] == 0, switched[1]
        appended = await hosts.run(first, "append", "moved", "after all moved", "--create", *through_first)
        assert appended[0] == 0, appended[1]
