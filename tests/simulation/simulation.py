"""One run: a cluster, its clients and its faults, all drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.checkers import Checkers
from tests.simulation.clients import SimulatedClient
from tests.simulation.control import SimulatedRaft
from tests.simulation.decisions import Decisions
from tests.simulation.faults import Faults
from tests.simulation.network import Network
from tests.simulation.node import SimulatedNode
from tests.simulation.storage import RecordMint, SimulatedDisk
from tests.simulation.world import Violation, World

FAULTY_SECONDS = 15.0
RECOVERY_SECONDS = 30.0
"""Within this time after the last fault every waiting append is acknowledged and all nodes are identical."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What happened in a run."""

    seed: int
    events: int
    epochs: int
    committed: int
    acknowledged: int
    reads: int


class Failed(Exception):
    """A run went wrong; says where, and how to run it again."""


class Simulation:
    """The run of one seed."""

    def __init__(
        self, seed: int, decisions: Decisions | None = None, *, overtakes_only: bool | None = None
    ) -> None:
        """Prepare a run.

        Args:
            seed: Everything is drawn from it.
            decisions: Those of the nodes; the product's if None.
            overtakes_only: Whether the only fault is that somebody stands when a lease is about to end, while
                clients roam and read a lot; None leaves that to the seed.
        """
        self.seed = seed
        self.world = World(seed)
        random = self.world.random
        network = Network(self.world)
        voters = random.choice((("a", "b", "c"), ("a", "b", "c"), ("a", "b", "c", "d", "e")))
        readers = ("r",) if random.random() < 0.2 else ()
        raft = SimulatedRaft(self.world)
        mint = RecordMint()
        peers: dict[str, SimulatedNode] = {}
        disks: dict[str, SimulatedDisk] = {}
        self.checkers = Checkers(disks)
        for name in (*voters, *readers):
            node = SimulatedNode(
                name,
                network,
                raft,
                self.checkers,
                decisions or Decisions(),
                mint=mint,
                voters=frozenset(voters),
                peers=peers,
            )
            peers[name] = node
            if name in voters:
                disks[name] = node.disk
        self.nodes = list(peers.values())
        sessions = [f"s{number}" for number in range(random.randint(1, 3))]
        if overtakes_only is None:
            overtakes_only = random.random() < 0.3
        raft.begin(self.nodes)
        for node in self.nodes:
            node.start()
        self.clients = [
            SimulatedClient(f"client{number}", sessions, self.nodes, network, self.checkers, roams=overtakes_only)
            for number in range(random.randint(2, 6))
        ]
        self.faults = Faults(self.nodes, network, raft, overtakes_only=overtakes_only)

    def run(self) -> Summary:
        """Run it to its end.

        Raises:
            Violation: Something happened that must never happen.
        """
        world, clients = self.world, self.clients
        world.run_until(FAULTY_SECONDS)
        self.faults.heal()
        world.note("world", "is healed")
        before = [client.acknowledged for client in clients]

        def all_went_on() -> bool:
            return all(client.acknowledged > count for client, count in zip(clients, before, strict=True))

        if not world.run_until(world.now + RECOVERY_SECONDS, all_went_on):
            raise Violation(f"no progress within {RECOVERY_SECONDS:g} s without faults")
        for client in clients:
            client.stopping = True
        if not world.run_until(world.now + RECOVERY_SECONDS, self._quiet):
            raise Violation(f"the nodes did not become identical within {RECOVERY_SECONDS:g} s without faults")
        self.checkers.finish(self.nodes)
        return Summary(
            self.seed,
            world.events,
            len(self.checkers.opened),
            len(self.checkers.committed),
            len(self.checkers.acknowledged),
            self.checkers.reads,
        )

    def _quiet(self) -> bool:
        if any(client.busy for client in self.clients):
            return False
        lsn = len(self.checkers.committed)
        last = self.checkers.committed[-1].position
        shard = self.nodes[0].disk.shard.contains
        return all(
            node.disk.log.last == last and node.applied.lsn == lsn and node.disk.shard.contains == shard
            for node in self.nodes
        )


def simulate(seed: int, decisions: Decisions | None = None, *, overtakes_only: bool | None = None) -> Summary:
    """Run a seed; the arguments are those of `Simulation`.

    Raises:
        Failed: With the reason, the last events, and the command that runs it again.
    """
    simulation = Simulation(seed, decisions, overtakes_only=overtakes_only)
    try:
        return simulation.run()
    except (Violation, AssertionError) as error:
        raise Failed(
            f"{simulation.world.trace(60)}\n\nseed {seed} failed at {simulation.world.now:.6f} s: "
            f"{type(error).__name__}: {error}\nrun it again with: make simulate SEEDS=1 FIRST={seed}"
        ) from error
