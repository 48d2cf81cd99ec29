"""Which node to ask next. Pure: it is told what nodes answered, and says whom to ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ops.cluster_view import ClusterResponse

STALE_SECONDS = 5.0
"""A node that is further behind is passed over for one that is not."""
MAX_NODES = 64
"""That are asked, whatever a node says how many there are."""
PROBE_SECONDS = 1.0
MAX_PROBE_SECONDS = 4.0
"""Between two questions to a node that does not answer: doubling from the first to the second."""


@dataclass(slots=True)
class KnownNode:
    """What is known of one node.

    Attributes:
        address: Its HTTP address.
        named: Whether the operator named it; other ones are learnt from the cluster.
        node_id: As it calls itself; empty until that is known.
        failure: Why it did not answer the last time; None while it answers.
        age_seconds: How old its last answer was.
        probe_at: When to ask it again after it failed, on the caller's clock.
        probe_seconds: How long to wait after the next failure.
    """

    address: str
    named: bool
    node_id: str = ""
    failure: str | None = None
    age_seconds: float = 0.0
    probe_at: float = 0.0
    probe_seconds: float = PROBE_SECONDS

    @property
    def name(self) -> str:
        """What to call it before people."""
        return self.node_id or self.address


class NodeChoice:
    """Chooses among the nodes of a cluster, and stays with a good choice.

    In this order it prefers: a node that answers, one that leads fewer groups, one that is fresh, the one that
    was read last, the one that was named first. A node that leads a group is thus read only when no node
    answers that leads none.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._nodes = {address: KnownNode(address, named=True) for address in addresses}
        self._primaries: dict[int, tuple[int, str]] = {}
        self._current: str | None = None

    @property
    def nodes(self) -> Sequence[KnownNode]:
        """All nodes that are known, the named ones first."""
        return tuple(self._nodes.values())

    @property
    def current(self) -> KnownNode | None:
        """The node that was read last; None before the first answer."""
        return None if self._current is None else self._nodes.get(self._current)

    def primary_of(self, group: int) -> tuple[str, int] | None:
        """Who leads a group, and since which epoch, as far as any answer told."""
        found = self._primaries.get(group)
        return None if found is None else (found[1], found[0])

    def leads(self, node: KnownNode) -> int:
        """How many groups a node leads."""
        return sum(bool(node.node_id) and node.node_id == primary for _, primary in self._primaries.values())

    def order(self) -> list[KnownNode]:
        """Every node, the best to read from first."""
        ranks = {
            node.address: (
                node.failure is not None,
                self.leads(node),
                node.age_seconds > STALE_SECONDS,
                node.address != self._current,
                index,
            )
            for index, node in enumerate(self._nodes.values())
        }
        return sorted(self._nodes.values(), key=lambda node: ranks[node.address])

    def to_watch(self, now: float) -> list[KnownNode]:
        """The nodes whose view of the cluster to ask for now.

        Those that lead something are spared while others live; until it is known who leads, only one is asked.
        """
        if not self._primaries:
            due = [node for node in self.order() if self._due(node, now)]
            return due[:1]
        spared = any(node.failure is None and not self.leads(node) for node in self._nodes.values())
        return [node for node in self.order() if self._due(node, now) and not (spared and self.leads(node))]

    def answered(self, address: str, *, age_seconds: float, reading: bool = True) -> None:
        """A node answered; `reading` when it was for someone who looks, not to watch it."""
        node = self._nodes.get(address)
        if node is None:
            return
        node.failure, node.age_seconds, node.probe_seconds = None, age_seconds, PROBE_SECONDS
        if reading:
            self._current = address

    def failed(self, address: str, reason: str, now: float) -> None:
        """A node did not answer, or cannot serve now."""
        node = self._nodes.get(address)
        if node is None:
            return
        node.failure, node.probe_at = reason, now + node.probe_seconds
        node.probe_seconds = min(2 * node.probe_seconds, MAX_PROBE_SECONDS)

    def learn(self, address: str, view: ClusterResponse) -> None:
        """Take over what a node says of the cluster: who it is, who leads, and which other nodes there are."""
        node = self._nodes.get(address)
        if node is None:
            return
        node.node_id = view.node_id
        for group in view.groups:
            known = self._primaries.get(group.group)
            if group.primary and (known is None or group.epoch >= known[0]):
                self._primaries[group.group] = (group.epoch, group.primary)
        ages = [group.lag.seconds for group in view.groups if group.lag is not None]
        node.age_seconds = max(ages, default=0.0)
        self._meet((other.node_id, other.http_address) for other in view.nodes)

    def _meet(self, others: Iterable[tuple[str, str]]) -> None:
        for node_id, address in others:
            known = self._nodes.get(address)
            if known is not None:
                known.node_id = node_id
            elif len(self._nodes) < MAX_NODES:
                self._nodes[address] = KnownNode(address, named=False, node_id=node_id)
        # A node named by another spelling of its address is one node.
        named = {node.node_id for node in self._nodes.values() if node.named and node.node_id}
        for address in [node.address for node in self._nodes.values() if not node.named and node.node_id in named]:
            del self._nodes[address]

    @staticmethod
    def _due(node: KnownNode, now: float) -> bool:
        return node.failure is None or now >= node.probe_at
