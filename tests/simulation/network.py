"""A network that delays, drops, repeats and reorders messages, breaks streams, and parts nodes from each other."""

from __future__ import annotations

from typing import Any, Protocol

from tests.simulation.world import World

BREAKS_WITHIN_SECONDS = 3.0
"""A stream that lost a message is found broken by both of its ends, each within this time."""


class Endpoint(Protocol):
    """Something with an address."""

    name: str
    up: bool

    def deliver(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A message has come."""


class Stream:
    """One call that both ends may write to. What is written arrives in order, unless the network misbehaves."""

    __slots__ = ("_arrives_at", "_network", "ends", "open")

    def __init__(self, network: Network, opener: Endpoint, server: Endpoint) -> None:
        self._network = network
        self._arrives_at = {opener.name: 0.0, server.name: 0.0}
        self.ends = (opener, server)
        self.open = True

    def other(self, end: Endpoint) -> Endpoint:
        """The end that `end` talks to; a node may talk to itself."""
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def send(self, sender: Endpoint, method: str, *arguments: Any) -> None:
        """Call `method` at the other end, with the stream as the first argument."""
        if not self.open:
            return
        receiver = self.other(sender)
        world = self._network.world
        delay = self._network.delay(sender.name, receiver.name)
        if delay is None or not receiver.up:
            self.break_down()
            return
        arrives_at = world.now + delay
        if not world.chance(self._network.reorders):
            arrives_at = max(arrives_at, self._arrives_at[receiver.name])
            self._arrives_at[receiver.name] = arrives_at
        world.after(arrives_at - world.now, receiver.deliver, method, (self, *arguments))
        if world.chance(self._network.repeats):
            world.after(arrives_at - world.now + 0.001, receiver.deliver, method, (self, *arguments))

    def end(self, sender: Endpoint, reason: str) -> None:
        """End the stream; the other end is told why, or finds it broken."""
        self.send(sender, "stream_ended", reason)
        self.open = False

    def break_down(self) -> None:
        """The connection is lost; each end finds out by itself."""
        if not self.open:
            return
        self.open = False
        for end in self.ends:
            wait = self._network.world.between(0.0, BREAKS_WITHIN_SECONDS)
            self._network.world.after(wait, end.deliver, "stream_ended", (self, "broken"))

    def reset(self, dead: Endpoint) -> None:
        """The process of `dead` is gone; the other end hears of it at once, if anything can be heard from there."""
        self.open = False
        end = self.other(dead)
        delay = self._network.delay(dead.name, end.name)
        if delay is None:
            delay = self._network.world.between(0.0, BREAKS_WITHIN_SECONDS)
        self._network.world.after(delay, end.deliver, "stream_ended", (self, "reset"))


class Network:
    """Carries messages between endpoints.

    Attributes:
        drops: With which probability a message is lost; `repeats` and `reorders` likewise.
        slow: With which probability a message takes up to `slow_seconds`.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.drops = self.repeats = self.reorders = self.slow = 0.0
        self.slow_seconds = 0.3
        self._cut: set[tuple[str, str]] = set()

    def cut(self, sender: str, receiver: str) -> None:
        """Let nothing pass from `sender` to `receiver`."""
        self._cut.add((sender, receiver))

    def heal(self) -> None:
        """Let everything pass."""
        self._cut.clear()

    def passes(self, sender: str, receiver: str) -> bool:
        """Whether messages get from one to the other."""
        return (sender, receiver) not in self._cut

    def refuses(self, asker: str, node: Endpoint) -> bool:
        """Whether the port of `node` refuses a connection from `asker`."""
        return not node.up and self.passes(asker, node.name) and self.passes(node.name, asker)

    def delay(self, sender: str, receiver: str) -> float | None:
        """How long a message takes; None when it is lost."""
        if sender == receiver:
            return 0.00005
        if not self.passes(sender, receiver) or (self.drops and self.world.chance(self.drops)):
            return None
        if self.slow and self.world.chance(self.slow):
            return self.world.between(0.0, self.slow_seconds)
        return self.world.between(0.0002, 0.002)

    def send(self, sender: Endpoint, receiver: Endpoint, method: str, *arguments: Any) -> None:
        """Call `method` at the receiver, perhaps: nobody is told when it is lost."""
        delay = self.delay(sender.name, receiver.name)
        if delay is None:
            return
        self.world.after(delay, receiver.deliver, method, arguments)
        if self.repeats and self.world.chance(self.repeats):
            again = delay + self.world.between(0.0, self.slow_seconds)
            self.world.after(again, receiver.deliver, method, arguments)
