"""What goes wrong: crashes, power cuts, stops, partitions, slow disks, a bad network, and leaders that move."""

from __future__ import annotations

from tests.simulation.control import SimulatedRaft
from tests.simulation.network import Network
from tests.simulation.node import SimulatedNode


class Faults:
    """Makes faults by chance until it is told to heal all."""

    def __init__(
        self, nodes: list[SimulatedNode], network: Network, raft: SimulatedRaft, *, overtakes_only: bool
    ) -> None:
        self._nodes, self._network, self._raft, self._world = nodes, network, raft, network.world
        world = self._world
        self._over = False
        self._pause = world.random.choice((0.15, 0.4, 1.0))
        self._hits_sealing_voters = world.random.choice((0.0, 0.0, 0.3))
        self._hits_new_primaries = world.random.choice((0.0, 0.3, 0.7))
        network.drops = world.random.choice((0.0, 0.0, 0.002, 0.02))
        network.repeats = world.random.choice((0.0, 0.0, 0.01))
        network.reorders = world.random.choice((0.0, 0.0, 0.005))
        network.slow = world.random.choice((0.0, 0.0, 0.02))
        kinds = [self._crash, self._stop, self._cut, self._cut_one_way, self._slow_disk, self._hand_over]
        kinds += [self._move, self._nominate, self._overtake]
        weights = [world.random.choice((0, 1, 3)) for _ in kinds]
        self._kinds, self._weights = kinds, weights if any(weights) else [1] * len(kinds)
        if overtakes_only:
            # Nothing else, so that every primary is in office long enough to be overtaken.
            self._pause = 1.5
            self._hits_new_primaries = self._hits_sealing_voters = 0.0
            self._kinds, self._weights = [self._overtake], [1]
        for node in nodes:
            node.on_serving = self._serves
            node.on_sealing = self._seals
        world.after(world.between(0.5, 2.0), self._next)

    def heal(self) -> None:
        """Let everything work again."""
        self._over = True
        network = self._network
        network.drops = network.repeats = network.reorders = network.slow = 0.0
        network.heal()
        for node in self._nodes:
            node.disk.slowness = 1.0
            node.paused_until = min(node.paused_until, self._world.now)
            if not node.up:
                node.start()

    def _next(self) -> None:
        if self._over:
            return
        (kind,) = self._world.random.choices(self._kinds, self._weights)
        kind(self._world.random.choice(self._nodes))
        self._world.after(self._world.random.expovariate(1 / self._pause), self._next)

    def _serves(self, node: SimulatedNode) -> None:
        """A new primary has opened its epoch, or is about to."""
        if not self._over and self._world.chance(self._hits_new_primaries):
            kind = self._world.random.choice((self._crash, self._stop, self._cut, self._cut_one_way))
            self._world.after(self._world.between(0.0, 0.1), self._hit, kind, node)

    def _seals(self, node: SimulatedNode) -> None:
        """A voter gives its seal: it crashes around the write, and another candidate comes when it is back."""
        if not self._over and self._world.chance(self._hits_sealing_voters):
            crash_in = self._world.between(0.0, 0.01)
            self._world.after(crash_in, self._crash_briefly, node)
            self._world.after(crash_in + self._world.between(0.02, 0.1), self._nominate, node)

    def _crash_briefly(self, node: SimulatedNode) -> None:
        if node.up and not self._over:
            node.crash(power_cut=self._world.chance(0.5))
            self._world.after(0.02, self._restart, node)

    def _nominate(self, node: SimulatedNode) -> None:
        """A supervisor that nobody knows of any more nominates nodes out of turn."""
        for candidate in self._nodes:
            if candidate.up and candidate is not node and candidate.name in node.voters and not self._over:
                self._world.after(self._world.between(0.0, 0.01), candidate.deliver, "nominate", (0,))

    def _overtake(self, node: SimulatedNode) -> None:
        """Somebody stands just when the primary's lease is about to end, or should be."""
        del node
        world = self._world
        for primary in self._nodes:
            if not primary.up or primary.leading is None or not primary.leading.serving:
                continue
            others = [node for node in self._nodes if node is not primary and node.name in node.voters]
            world.random.shuffle(others)
            near, far = others[: len(others) // 2], others[len(others) // 2 :]
            stands_in = world.between(0.4, 1.0)
            match world.random.randrange(3):
                case 0:
                    primary.pause(world.between(0.6, 1.0))
                case 1:
                    self._cut_off(primary, others)
                case _:
                    self._cut_off(primary, far)
                    if world.chance(0.5):
                        for voter in near:
                            world.after(stands_in - 0.04, self._crash_briefly, voter)
            for rival in world.random.choice((near[:1], far[:1], [near[0], far[0]])):
                world.after(stands_in + world.between(0.0, 0.01), rival.deliver, "nominate", (0,))
            return

    def _cut_off(self, node: SimulatedNode, others: list[SimulatedNode]) -> None:
        self._world.note("network", "cuts off", node.name, "from", *(other.name for other in others))
        for other in others:
            self._network.cut(node.name, other.name)
            self._network.cut(other.name, node.name)
        self._world.after(1.5, self._network.heal)

    def _hit(self, kind: object, node: SimulatedNode) -> None:
        if not self._over and callable(kind):
            kind(node)

    def _crash(self, node: SimulatedNode) -> None:
        if not node.up:
            return
        node.crash(power_cut=self._world.chance(0.5))
        self._world.after(
            self._world.random.choice((0.02, 0.3, 1.5)) * self._world.between(0.5, 1.5), self._restart, node
        )

    def _restart(self, node: SimulatedNode) -> None:
        if not node.up:
            node.start()

    def _stop(self, node: SimulatedNode) -> None:
        if node.up:
            node.pause(self._world.random.choice((0.1, 0.7, 2.0)) * self._world.between(0.5, 1.5))

    def _cut(self, node: SimulatedNode) -> None:
        """Part a node, alone or with others, from the rest."""
        inside = {node.name} | {other.name for other in self._nodes if self._world.chance(0.2)}
        self._network.heal()
        for a in self._nodes:
            for b in self._nodes:
                if (a.name in inside) != (b.name in inside):
                    self._network.cut(a.name, b.name)
        self._world.note("network", "is parted:", *sorted(inside))
        self._heal_later()

    def _cut_one_way(self, node: SimulatedNode) -> None:
        """Nobody hears a node, or a node hears nobody, or one does not hear one other."""
        others = [other for other in self._nodes if other is not node]
        if self._world.chance(0.4):
            others = [self._world.random.choice(others)]
        hears = self._world.chance(0.5)
        for other in others:
            pair = (other.name, node.name) if hears else (node.name, other.name)
            self._network.cut(*pair)
            self._world.note("network", "lets nothing pass from", pair[0], "to", pair[1])
        self._heal_later()

    def _heal_later(self) -> None:
        self._world.after(
            self._world.random.choice((0.3, 1.5, 4.0)) * self._world.between(0.5, 1.5), self._network.heal
        )

    def _slow_disk(self, node: SimulatedNode) -> None:
        node.disk.slowness = self._world.random.choice((1.0, 10.0, 200.0))
        self._world.note(node.name, "has a disk slowed", f"{node.disk.slowness:g} times")

    def _hand_over(self, node: SimulatedNode) -> None:
        for leader in self._nodes:
            if leader.up and not leader.paused and leader.supervising is not None and node.name in node.voters:
                leader.supervising.hand_over(node.name)

    def _move(self, node: SimulatedNode) -> None:
        del node
        self._raft.move()
