"""A network of its own for each node, joined by a bridge, in which the way from one node to another can be cut.

Everything stands in network and mount namespaces of this process and its children, and goes when they end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

INSIDE = "HEADWATER_NETWORK_NAMESPACES"
BRIDGE = "bridge"
HOME = "10.99.0.254"
NOBODY = "02:00:00:00:00:ff"
"""The link address of no node: what is sent there arrives nowhere, and the sender is not told."""
PORTS = {"grpc": 7101, "http": 7201, "raft": 7301}
NAMESPACES = "/run/netns"
"""Where `ip netns` keeps them."""
TRIAL = (
    f"mkdir -p {NAMESPACES} && mount -t tmpfs trial {NAMESPACES} && ip netns add trial"
    " && ip link add trial type bridge"
)


def why_no_namespaces() -> str | None:
    """Why this process cannot have networks of its own, in a sentence; None when it can."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            [*_unshare(), "sh", "-c", TRIAL], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as missing:
        return f"{missing.filename} is not installed"
    if done.returncode == 0:
        return None
    return f"network namespaces need root, or user namespaces, and ip: {done.stderr.strip()}"


def enter_namespaces() -> None:
    """Run this program anew in namespaces of its own, as root in them; returns once it is in them.

    Raises:
        OSError: `unshare` is not there.
    """
    if _inside():
        return
    os.environ[INSIDE] = str(os.getppid())
    command = [*_unshare(), sys.executable, *sys.orig_argv[1:]]
    os.execvp("unshare", command)  # noqa: S606, S607 - this program again


def _inside() -> bool:
    return os.environ.get(INSIDE) == str(os.getppid())


def _unshare() -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *as_root, "--net", "--mount", "--"]


def run(*words: str | Path) -> None:
    """Run a command of the system.

    Raises:
        RuntimeError: It failed; the message says how.
    """
    done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603 - callers' own words
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))} failed: {done.stderr.strip()}")


class Network:
    """One namespace per node, `10.99.0.1` and so on, and this process at `10.99.0.254`."""

    def __init__(self, nodes: Iterable[str]) -> None:
        """Make the network.

        Raises:
            RuntimeError: This process has not come through `enter_namespaces`, or a command failed.
        """
        if not _inside():
            raise RuntimeError("networks are made in namespaces of their own; call enter_namespaces() first")
        self._numbers = {node: number for number, node in enumerate(nodes, start=1)}
        Path(NAMESPACES).mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "namespaces", NAMESPACES)
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{HOME}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        for node, number in self._numbers.items():
            outside = f"to-{number}"
            run("ip", "netns", "add", node)
            run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", node)
            run("ip", "link", "set", outside, "master", BRIDGE, "up")
            run("ip", "-n", node, "link", "set", "lo", "up")
            run("ip", "-n", node, "link", "set", "eth0", "address", self._link_address(node), "up")
            run("ip", "-n", node, "addr", "add", f"{self.host(node)}/24", "dev", "eth0")
        self.heal()

    def host(self, node: str) -> str:
        """A node's host."""
        return f"10.99.0.{self._numbers[node]}"

    def nodes(self) -> list[dict[str, str]]:
        """Every node with its addresses, as a configuration names them."""
        return [
            {"id": node, **{server: f"{self.host(node)}:{port}" for server, port in PORTS.items()}}
            for node in self._numbers
        ]

    def cut(self, source: str, target: str) -> None:
        """Let nothing that `source` sends arrive at `target`; the other way stays as it is."""
        self._send_to(source, target, NOBODY)

    def isolate(self, node: str) -> None:
        """Cut a node off from all others, both ways. This process still reaches it."""
        for other in self._numbers.keys() - {node}:
            self.cut(node, other)
            self.cut(other, node)

    def heal(self) -> None:
        """Let everything arrive."""
        for source, target in permutations(self._numbers, 2):
            self._send_to(source, target, self._link_address(target))

    def _send_to(self, source: str, target: str, link_address: str) -> None:
        entry = (self.host(target), "lladdr", link_address, "nud", "permanent", "dev", "eth0")
        run("ip", "-n", source, "neigh", "replace", *entry)

    def _link_address(self, node: str) -> str:
        return f"02:00:00:00:00:0{self._numbers[node]}"
