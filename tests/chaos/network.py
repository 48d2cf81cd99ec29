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

INSIDE = "HEADWATER_CHAOS_NAMESPACES"
BRIDGE = "bridge"
HOME = "10.99.0.254"
NOBODY = "02:00:00:00:00:ff"
"""The link address of no node: what is sent there arrives nowhere, and the sender is not told."""


def enter_namespaces() -> None:
    """Run this program anew in namespaces of its own, as root in them; returns once it is in them.

    Raises:
        OSError: `unshare` is not there.
    """
    if os.environ.get(INSIDE) == str(os.getppid()):
        return
    os.environ[INSIDE] = str(os.getppid())
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [sys.executable, "-m", "tests.chaos.run", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", *as_root, "--net", "--mount", "--", *command])


def run(*words: str | Path) -> None:
    """Run a command of the system.

    Raises:
        RuntimeError: It failed; the message says how.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))} failed: {done.stderr.strip()}")


class Network:
    """One namespace per node, `10.99.0.1` and so on, and this process at `10.99.0.254`."""

    def __init__(self, nodes: Iterable[str]) -> None:
        """Make the network; only inside `enter_namespaces`."""
        self._numbers = {node: number for number, node in enumerate(nodes, start=1)}
        Path("/run/netns").mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "namespaces", "/run/netns")
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
