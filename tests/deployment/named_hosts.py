"""Runs the nodes of a deployment as processes of this machine, each under its own names.

The names stand for loopback addresses in a hosts file that only these processes see, in a mount namespace of
their own. So the configuration is used as it is, ports and all; only where files lie is another place.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ops import dies_with_parent
from ops.config import ENVIRONMENT_PREFIX
from tests.deployment.deployed import DeployedNode
from tests.mounted_hosts import with_hosts

HEADWATER = (sys.executable, "-P", "-m", "ops.cli.main")
STOP_SECONDS = 20


class NamedHosts:
    """The nodes of a deployment, by name. `async with` stops those that were started."""

    def __init__(self, nodes: Sequence[DeployedNode], hosts: Mapping[str, str], folder: Path) -> None:
        """Lay out files; starts nothing.

        Args:
            nodes: What the deployment gives to each.
            hosts: The host in each node's addresses, by the node's name.
            folder: For hosts file, configurations, data and logs.
        """
        self.nodes = {node.name: node for node in nodes}
        self._hosts = dict(hosts)
        self._folder = folder
        self._hosts_file = folder / "hosts"
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._network = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}"
        self._numbers = {name: number for number, name in enumerate(self.nodes, start=1)}
        for node in nodes:
            self._path(node).parent.mkdir(parents=True)
            self._path(node).write_text(node.configuration)
        self._write_hosts()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(*(self.stop(name) for name in tuple(self._processes)))

    def address(self, name: str) -> str:
        """The address that a node's host has at the moment."""
        return f"{self._network}.{self._numbers[name]}"

    def move(self, name: str) -> None:
        """Give a node's host another address, as a container gets one with each start."""
        self._numbers[name] += len(self._numbers)
        self._write_hosts()

    async def start(self, name: str) -> None:
        """Start a node as its container would."""
        node = self.nodes[name]
        with (self._path(node).parent / "log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, dies_with_parent.__file__, str(os.getpid())),
                *self.command(name, *node.arguments),
                env=self.environment(name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def stop(self, name: str) -> int:
        """End a node as its container would be ended; returns its exit code."""
        process = self._processes.pop(name)
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            return await process.wait()

    async def run(self, name: str, *arguments: str) -> tuple[int, str]:
        """Run `headwater` in a node's container; returns its exit code and all that it printed."""
        process = await asyncio.create_subprocess_exec(
            *self.command(name, *arguments),
            env=self.environment(name),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    def command(self, name: str, *arguments: str) -> list[str]:
        """What runs `headwater` under the deployment's names, configuration paths put in."""
        node = self.nodes[name]
        there = [str(self._path(node)) if argument in node.files else argument for argument in arguments]
        return with_hosts(self._hosts_file, *HEADWATER, *there)

    def environment(self, name: str) -> dict[str, str]:
        """This process's environment with the container's settings in the place of its own."""
        around = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}
        node = self.nodes[name]
        data = str(self._path(node).parent / "data")
        return around | dict(node.environment) | {f"{ENVIRONMENT_PREFIX}NODE__DATA_DIRECTORY": data}

    def log(self) -> str:
        """The end of every node's log."""
        logs = (self._path(node).parent / "log" for node in self.nodes.values())
        return "\n".join(f"{path}: {path.read_text()[-2000:]}" for path in logs if path.exists())

    def _path(self, node: DeployedNode) -> Path:
        return self._folder / node.name / "headwater.toml"

    def _write_hosts(self) -> None:
        lines = ["127.0.0.1 localhost", *(f"{self.address(name)} {host}" for name, host in self._hosts.items())]
        self._hosts_file.write_text("\n".join(lines) + "\n")
