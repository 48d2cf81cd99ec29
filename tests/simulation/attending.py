"""A simulated node's stream to the Raft leader, in the order of steps of `ops/control/attending.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.network import Stream

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode

REPORT_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 0.2


class SimulatedAttending:
    """One process's attendance."""

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._stream: Stream | None = None
        self._reporting = False
        self._news_waits = False
        node.after(0.0, self._attend)

    def news(self) -> None:
        """Report at once."""
        if self._reporting and not self._news_waits:
            self._news_waits = True
            self._node.after(0.0, self._report)

    def told(self, stream: Stream, what: str, *details: Any) -> None:
        """The Raft leader tells something."""
        if stream is not self._stream:
            return
        match what:
            case "map":
                self._node.learn(details[0])
                if not self._reporting:
                    self._reporting = True
                    self._report_regularly(stream)
            case "ask":
                self.news()
            case "nominate":
                self._node.nominate(details[0])
            case "hand over":
                self._node.hand_over(*details)

    def stream_ended(self, stream: Stream) -> None:
        """A stream of this node is over."""
        if stream is self._stream:
            self._stream = None
            self._reporting = False
            self._node.after(self._node.world.between(0.02, LONGEST_DELAY_SECONDS), self._attend)

    def _attend(self) -> None:
        leader = self._node.raft.leader_as_seen_by(self._node)
        if leader is None or self._node.network.refuses(self._node.name, leader):
            self._node.after(LONGEST_DELAY_SECONDS, self._attend)
            return
        self._reporting = False
        self._stream = self._node.open_stream(leader)
        self._stream.send(self._node, "attend")

    def _report_regularly(self, stream: Stream) -> None:
        if stream is self._stream:
            self._report()
            self._node.after(REPORT_SECONDS, self._report_regularly, stream)

    def _report(self) -> None:
        self._news_waits = False
        if self._stream is not None and self._reporting:
            self._stream.send(self._node, "reports", self._node.report())
