"""Simulated clients: each repeats an append with the same key until it is told that it is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_core.position import START, Position
from tests.simulation.checkers import Acknowledged, Checkers
from tests.simulation.network import Network
from tests.simulation.storage import Entry
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode


class SimulatedClient:
    """One caller that writes one session and reads it and others.

    Attributes:
        busy: Whether an append waits for its acknowledgement.
        acknowledged: How many of its appends are safe.
    """

    up = True

    def __init__(
        self,
        name: str,
        sessions: list[str],
        nodes: list[SimulatedNode],
        network: Network,
        checkers: Checkers,
        *,
        roams: bool,
    ) -> None:
        self.name = name
        self.busy = False
        self.stopping = False
        self.acknowledged = 0
        self._sessions = sessions
        self._session = sessions[int(name.removeprefix("client")) % len(sessions)]
        self._nodes = nodes
        self._network = network
        self._world = network.world
        self._checkers = checkers
        self._node = self._world.random.choice(nodes)
        self._number = 0
        self._key = 0
        self._position = START
        self._last_seq = 0
        self._reading: tuple[int, str, int, bool] | None = None
        self._timeout = self._world.random.choice((0.2, 0.5, 1.5))
        self._roams = self._world.random.choice((0.02, 0.02, 0.5))
        self._pace = self._world.random.choice((0.02, 0.05, 0.2))
        self._reads = self._world.random.choice((0.3, 0.3, 0.9))
        if roams:
            self._timeout, self._roams, self._pace = 0.2, 0.6, 0.02
        self._world.after(self._world.between(0.0, 0.5), self._next)

    def deliver(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A message has come."""
        getattr(self, method)(*arguments)

    def _next(self) -> None:
        if self.stopping:
            return
        if self._world.chance(self._reads):
            self._read()
        else:
            self._key += 1
            self.busy = True
            self._append()

    def _append(self) -> None:
        self._number += 1
        entry = Entry(self._session, f"{self.name}-{self._key}")
        if self._world.chance(self._roams):
            self._move()
        self._network.send(self, self._node, "append", self, self._number, entry)
        self._world.after(self._timeout, self._too_late, self._number)

    def answered(self, number: int, outcome: str, seq: int, position: Position, _node: str) -> None:
        """A node answered an append."""
        if number != self._number or not self.busy:
            return
        if outcome != "acknowledged":
            self._number += 1
            self._move()
            self._world.after(self._world.between(0.01, 0.1), self._append)
            return
        if position < self._position:
            raise Violation(f"{self.name} was told {position} after {self._position}")
        if seq <= self._last_seq:
            raise Violation(f"{self.name} was told that entry {seq} follows {self._last_seq}")
        self.busy = False
        self.acknowledged += 1
        self._position, self._last_seq = position, seq
        self._checkers.told(Acknowledged(Entry(self._session, f"{self.name}-{self._key}"), seq, position))
        self._pause()

    def _too_late(self, number: int) -> None:
        if number == self._number and self.busy:
            self._move()
            self._append()
        elif self._reading is not None and self._reading[0] == number:
            self._reading = None
            self._pause()

    def _move(self) -> None:
        self._node = self._world.random.choice(self._nodes)

    def _read(self) -> None:
        self._number += 1
        strict = self._world.chance(0.7)
        if strict:
            session = self._world.random.choice(self._sessions)
            self._reading = (self._number, session, self._checkers.acknowledged_seq(session), True)
            # A primary that was deposed and does not know it yet is the one to ask.
            node = self._world.random.choice(self._nodes) if self._world.chance(0.5) else self._node
            self._network.send(self, node, "read", self, self._number, session)
        else:
            self._reading = (self._number, self._session, self._last_seq, False)
            node = self._world.random.choice(self._nodes)
            self._network.send(self, node, "read_at", self, self._number, self._session, self._position)
        self._world.after(self._timeout, self._too_late, self._number)

    def was_shown(self, number: int, keys: tuple[str, ...] | None, node: str) -> None:
        """A node answered a read."""
        if self._reading is None or self._reading[0] != number:
            return
        _, session, at_least, strict = self._reading
        self._reading = None
        if keys is not None:
            self._checkers.shown(node, session, keys, at_least, strict=strict)
        else:
            self._move()
        self._pause()

    def _pause(self) -> None:
        self._world.after(self._world.between(0.2, 1.8) * self._pace, self._next)
