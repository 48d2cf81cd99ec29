"""Starts, watches and stops a cluster of real node processes on this machine.

The command `up`, the demo and the tests all use it. Each node runs in a process group of its own and dies with
this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import orjson

from agent_core.cluster import HostPort, NodeAddress
from ops import dies_with_parent
from ops.cluster_files import CONFIGURATION_FILE, LOG_FILE, ClusterPlan, lay_out, node_directory
from ops.node_log import NodeLog

NODE_COMMAND = (sys.executable, "-P", "-m", "ops.cli.main", "node")
"""The installed package, whatever lies in the folder that this is started from."""

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.05
ASK_SECONDS = 2.0

LAST_WORDS_SECONDS = 1.0
ANSWER_BYTES = 16 * 1024


class LocalClusterError(Exception):
    """The cluster did not start or did not stay; the message says which node, why, and shows its last log lines."""


@dataclass(frozen=True, slots=True)
class NodeExit:
    """A node's process ended though nobody had asked it to.

    Attributes:
        node_id: The node.
        code: Its exit code; negative: the signal that killed it.
        log_lines: The last lines of its log.
    """

    node_id: str
    code: int
    log_lines: tuple[str, ...]

    def __str__(self) -> str:
        """Several lines: what happened, and the log's end."""
        how = (
            f"was killed by {signal.Signals(-self.code).name}"
            if self.code < 0
            else f"ended with exit code {self.code}"
        )
        if not self.log_lines:
            return f"{self.node_id} {how}; its log is empty"
        return "\n  ".join([f"{self.node_id} {how}; the last lines of its log:", *self.log_lines])


class NodeProcess:
    """One node's process, which can be started again after it ended."""

    def __init__(
        self, node_id: str, command: Sequence[str], log: NodeLog, on_unexpected_exit: Callable[[NodeExit], None]
    ) -> None:
        self.node_id = node_id
        self.log = log
        self._command = tuple(command)
        self._on_unexpected_exit = on_unexpected_exit
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._exit_expected = False

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it; its output goes on in its log.

        Raises:
            OSError: The process or the log cannot be made.
        """
        assert self.pid is None, f"{self.node_id} runs already"
        self._exit_expected = False
        tied = (sys.executable, "-I", "-S", dies_with_parent.__file__, str(os.getpid()))
        self.log.open()
        self._process = await asyncio.create_subprocess_exec(
            *tied,
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._watch = asyncio.create_task(self._wait(self._process), name=f"watch {self.node_id}")

    async def stop(self, grace_seconds: float = STOP_SECONDS) -> int | None:
        """Ask it to stop, and kill it when it does not in time; returns its exit code, None if it never ran."""
        if self.pid is not None and self._process is not None and self._watch is not None:
            self._exit_expected = True
            self._process.terminate()
            await asyncio.wait([self._watch], timeout=grace_seconds)
        return await self.kill()

    async def kill(self) -> int | None:
        """Kill it and all that it started; returns its exit code, None if it never ran."""
        if self._process is None or self._watch is None:
            return None
        self._exit_expected = True
        # The node may have ended and left others of its group behind, or none.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._watch
        return self._process.returncode

    def exit(self) -> NodeExit | None:
        """How it ended; None while it runs."""
        if self._process is None or self._process.returncode is None:
            return None
        return NodeExit(self.node_id, self._process.returncode, self.log.last_lines())

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        keeping = asyncio.create_task(self.log.keep(process.stdout), name=f"log of {self.node_id}")
        await process.wait()
        # What it said last tells why it ended. What it started may hold the pipe open a little longer.
        await asyncio.wait([keeping], timeout=LAST_WORDS_SECONDS)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        ended = self.exit()
        if ended is not None and not self._exit_expected:
            self._on_unexpected_exit(ended)


class LocalCluster:
    """A cluster in a directory of this machine. `async with` starts and stops it.

    Attributes:
        directory: Where its files are; see `ops.cluster_files`.
        configurations: Every node's configuration, by node id.
    """

    def __init__(
        self,
        directory: Path,
        plan: ClusterPlan | None = None,
        *,
        command: Sequence[str] = NODE_COMMAND,
        on_log_line: Callable[[str, str], None] | None = None,
    ) -> None:
        """Lay out the cluster's files, or read those that stand; starts nothing.

        Args:
            directory: Made when it is not there.
            plan: What the cluster should be like.
            command: Runs one node when `--config FILE` is appended.
            on_log_line: Is told each line that a node writes to its log, behind the node's id.

        Raises:
            InvalidConfiguration: See `ops.cluster_files.lay_out`.
            OSError: The directory cannot be read or written.
        """
        self.directory = directory.resolve()
        self.configurations = lay_out(self.directory, plan or ClusterPlan())
        self._on_log_line = on_log_line
        self._unexpected: asyncio.Queue[NodeExit] = asyncio.Queue()
        self._processes = {node_id: self._node_process(node_id, command) for node_id in self.configurations}

    @property
    def addresses(self) -> tuple[NodeAddress, ...]:
        """Every node with its addresses."""
        return next(iter(self.configurations.values())).cluster_map.nodes

    @property
    def log_paths(self) -> Mapping[str, Path]:
        """Every node's log."""
        return {node_id: process.log.path for node_id, process in self._processes.items()}

    def address(self, node_id: str) -> NodeAddress:
        """One node with its addresses."""
        return self.configurations[node_id].own_address

    def pid(self, node_id: str) -> int | None:
        """A node's process id; None while it does not run."""
        return self._processes[node_id].pid

    async def start(self, ready_seconds: float = READY_SECONDS) -> None:
        """Start every node and wait until all are ready; when that fails, all are stopped again.

        Raises:
            LocalClusterError: An address is in use, a node ended, or was not ready in time.
        """
        self._check_addresses_free()
        try:
            for process in self._processes.values():
                await process.start()
            await self.wait_ready(ready_seconds=ready_seconds)
        except BaseException:
            await self.stop()
            raise

    async def wait_ready(self, *node_ids: str, ready_seconds: float = READY_SECONDS) -> None:
        """Wait until these nodes, or all, say that they are ready.

        Raises:
            LocalClusterError: One ended, or was not ready in time.
        """
        deadline = asyncio.get_running_loop().time() + ready_seconds
        async with asyncio.TaskGroup() as waiting:
            tasks = [
                waiting.create_task(self._why_not_ready(node_id, deadline))
                for node_id in node_ids or self._processes
            ]
        problems = [problem for task in tasks if (problem := task.result())]
        if problems:
            raise LocalClusterError("\n".join(problems))

    async def start_node(self, node_id: str, ready_seconds: float = READY_SECONDS) -> None:
        """Start a node that was stopped or killed, and wait until it is ready.

        Raises:
            LocalClusterError: It ended, or was not ready in time.
        """
        await self._processes[node_id].start()
        await self.wait_ready(node_id, ready_seconds=ready_seconds)

    async def stop_node(self, node_id: str, grace_seconds: float = STOP_SECONDS) -> int | None:
        """Ask a node to stop, kill it when it does not in time; returns its exit code, None if it never ran."""
        return await self._processes[node_id].stop(grace_seconds)

    async def kill(self, node_id: str) -> None:
        """Kill a node without warning (SIGKILL), with all that it started."""
        await self._processes[node_id].kill()

    async def restart(self, node_id: str, ready_seconds: float = READY_SECONDS) -> None:
        """Stop a node if it runs, start it, and wait until it is ready.

        Raises:
            LocalClusterError: It ended, or was not ready in time.
        """
        await self.stop_node(node_id)
        await self.start_node(node_id, ready_seconds)

    async def unexpected_exit(self) -> NodeExit:
        """Wait until a node ends that was neither stopped nor killed from here."""
        return await self._unexpected.get()

    async def stop(self, grace_seconds: float = STOP_SECONDS) -> Mapping[str, int | None]:
        """Stop all nodes together; returns their exit codes, None for one that never ran."""
        codes = await asyncio.gather(*(process.stop(grace_seconds) for process in self._processes.values()))
        return dict(zip(self._processes, codes, strict=True))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _check_addresses_free(self) -> None:
        """What listens there already would else be taken for the node that could not start."""
        taken = [
            f"{node.node_id} cannot listen on {address}: {reason}"
            for node in self.addresses
            for address in (node.grpc_address, node.http_address)
            if (reason := _why_taken(address)) is not None
        ]
        if taken:
            raise LocalClusterError(
                "\n  ".join([*taken, "stop what uses them; `headwater up` can take others: --base-port"])
            )

    def _node_process(self, node_id: str, command: Sequence[str]) -> NodeProcess:
        folder = node_directory(self.directory, node_id)
        return NodeProcess(
            node_id,
            (*command, "--config", str(folder / CONFIGURATION_FILE)),
            NodeLog(folder / LOG_FILE, partial(self._on_log_line, node_id) if self._on_log_line else None),
            self._unexpected.put_nowait,
        )

    async def _why_not_ready(self, node_id: str, deadline: float) -> str | None:
        """None once the node is ready; else why it will not be, or was not before the deadline."""
        process, address = self._processes[node_id], self.address(node_id).http_address
        loop = asyncio.get_running_loop()
        while True:
            ended = process.exit()
            if ended is not None:
                return str(ended)
            reasons = await asyncio.to_thread(_ask_ready, address)
            if not reasons:
                return None
            if loop.time() >= deadline:
                lines = [f"{node_id} is not ready: {'; '.join(reasons)}", *process.log.last_lines()]
                return "\n  ".join(lines)
            await asyncio.sleep(POLL_SECONDS)


def _why_taken(address: str) -> str | None:
    """Why nothing can listen at an address now; None when something can."""
    host, port = HostPort.parse(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _ask_ready(address: str) -> list[str]:
    """Why the node at an HTTP address is not ready; empty when it is."""
    host, port = HostPort.parse(address)
    connection = http.client.HTTPConnection(host, port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        content = answer.read(ANSWER_BYTES)
        if answer.status == http.HTTPStatus.OK:
            return []
        return [str(reason) for reason in orjson.loads(content)["reasons"]] or [f"HTTP status {answer.status}"]
    except (OSError, http.client.HTTPException) as error:
        return [f"http://{address}/readyz does not answer: {error}"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return [f"http://{address}/readyz is not a Headwater node"]
    finally:
        connection.close()
