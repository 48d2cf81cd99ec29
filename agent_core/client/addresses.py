"""Which node a client turns to: the addresses that it was given, and behind them what nodes told of further ones.

Pure decisions: no socket, no clock. What a node tells comes over the wire, so it is taken with care:

- The given addresses come first, and are tried whatever happens. An address that was only told is turned to once
  the node behind it has answered (`prove`), and no more after it could not be reached, until it has answered again:
  one that leads nowhere from here, such as a container's name, costs nothing.
- What was told belongs to the cluster of the node that told it. A node that answers for another cluster is never
  turned to, unless it was given; what a given one then tells replaces all that was told before.
- A refusal that names the primary is followed at once, as it always is by the node's own word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from agent_core.errors import NotPrimary

ADDRESS_PATTERN = re.compile(r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})")
MAX_PORT = 65535
MAX_TOLD = 16
"""Nodes of a cluster that a client learns of; the rest of a longer list is passed over."""
MAX_MET = 64
"""Addresses that a client takes from nodes in all its life, told or named in refusals; none is followed past it."""


def check_address(address: str) -> str:
    """Return a node's address.

    Raises:
        ValueError: It is not `host:port`.
    """
    if not is_address(address):
        raise ValueError(f"a node's address is written host:port, for example 127.0.0.1:7101; got {address!r}")
    return address


def is_address(text: str) -> bool:
    """Whether it is `host:port`."""
    match = ADDRESS_PATTERN.fullmatch(text)
    return match is not None and 0 < int(match["port"]) <= MAX_PORT


def primary_address(error: NotPrimary) -> str | None:
    """The address of the primary that a node named in its refusal: the message's last word that is `host:port`."""
    for word in reversed(str(error).split()):
        candidate = word.strip("'\"`,;()").rstrip(".")
        if is_address(candidate):
            return candidate
    return None


@dataclass(frozen=True, slots=True)
class Told:
    """What a node says of its cluster.

    Attributes:
        cluster_id: The cluster's name.
        node_id: Its own.
        addresses: Where each node is reached, itself among them, by its name.
    """

    cluster_id: str
    node_id: str
    addresses: Mapping[str, str]


class Addresses:
    """The addresses to try, and the one in use.

    Args:
        given: One address or several, each `host:port`.

    Attributes:
        current: The address in use.

    Raises:
        ValueError: No address was given, or one is not `host:port`.
    """

    def __init__(self, given: str | Sequence[str]) -> None:
        self._given = (given,) if isinstance(given, str) else tuple(given)
        if not self._given:
            raise ValueError("a client needs the address of at least one node")
        for address in self._given:
            check_address(address)
        self._cluster_id: str | None = None
        self._given_nodes: set[str] = set()
        self._told: tuple[str, ...] = ()
        self._proven: set[str] = set()
        self._met: set[str] = set()
        self._turn = self.current = self._given[0]

    @property
    def unproven(self) -> tuple[str, ...]:
        """The told addresses behind which nobody has answered yet, or any more."""
        return tuple(address for address in self._told if address not in self._proven)

    def failed(self, address: str) -> None:
        """Turn to the next address after `address` did not serve.

        Does nothing when another call has turned away from it already.
        """
        if address != self.current:
            return
        order = (*self._given, *self._told)
        after = order.index(self._turn) + 1 if self._turn in order else 0
        usable = self._proven.union(self._given) - {address}
        turns = (candidate for candidate in order[after:] + order[:after] if candidate in usable)
        self._turn = self.current = next(turns, self._given[0])

    def redirected(self, address: str, refusal: NotPrimary) -> bool:
        """Turn to the primary that the node at `address` named, or to the next address when it named none.

        Returns:
            Whether it named one.
        """
        named = primary_address(refusal)
        if named is None or named == address or not self._meet(named):
            self.failed(address)
            return False
        if address == self.current:
            self.current = named
        return True

    def learn(self, address: str, told: Told) -> None:
        """Take over what the node at `address` says of its cluster, in the place of what was told before."""
        given = address in self._given
        if told.cluster_id != self._cluster_id:
            if self._cluster_id is not None and not given:
                self._forget(address)
                return
            self._cluster_id, self._told = told.cluster_id, ()
            self._given_nodes.clear()
            self._proven.clear()
        if given:
            self._given_nodes.add(told.node_id)
        # A node that was given by another spelling of its address is one node.
        others = (
            other
            for node_id, other in islice(told.addresses.items(), MAX_TOLD)
            if node_id not in self._given_nodes and other not in self._given and self._meet(other)
        )
        self._told = tuple(dict.fromkeys(others))
        self._proven.intersection_update(self._told)
        if address in self._told:
            self._proven.add(address)

    def prove(self, address: str, told: Told) -> None:
        """The node at an address that was told has answered: it may be turned to, if it is of this cluster."""
        if told.cluster_id != self._cluster_id:
            self._forget(address)
        elif address in self._told:
            self._proven.add(address)

    def unreachable(self, address: str) -> None:
        """A node did not take a connection: one that was not given is turned to again once it has answered."""
        self._proven.discard(address)

    def _forget(self, address: str) -> None:
        self._told = tuple(other for other in self._told if other != address)
        self._proven.discard(address)

    def _meet(self, address: str) -> bool:
        """Whether a node's word for an address is taken."""
        if address not in self._given and len(self._met) < MAX_MET:
            self._met.add(address)
        return address in self._met or address in self._given
