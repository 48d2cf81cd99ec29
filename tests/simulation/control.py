"""The control plane: Raft as one linearizable register of commands with delays, and a supervisor on its leader.

Raft itself is not simulated. Its leader moves when nodes cannot reach it; the one before may go on for a while as
if it still led, and nodes may still attend there, but only the leader's commands come through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_core.control.cluster_map import EMPTY, ClusterMap, Member
from agent_core.control.commands import Command, Form
from agent_core.control.machine import Applied, apply
from agent_core.quorum import majority
from primary.electing.exchange import Action, AskForReport, AskToHandOver, GroupReport, Nominate, Probe, Record
from primary.electing.supervisor import Supervisor
from tests.simulation.candidacy import FAILURE_TIMEOUT_SECONDS
from tests.simulation.network import Stream
from tests.simulation.storage import GROUP
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode

CHECK_SECONDS = 0.1
POLL_SECONDS = 0.05


class SimulatedRaft:
    """What the Raft members agree on, and who leads them.

    Attributes:
        map: What was agreed on last.
        leader: Whose commands come through.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.map: ClusterMap = EMPTY
        self.leader: SimulatedNode | None = None
        self._nodes: list[SimulatedNode] = []
        self._voters: list[SimulatedNode] = []
        self._led_before: SimulatedNode | None = None
        self._missing = 0
        self._first_number = 1

    def begin(self, nodes: list[SimulatedNode]) -> None:
        """Let these nodes be the cluster."""
        self._nodes = nodes
        self._voters = [node for node in nodes if node.name in node.voters]
        members = tuple(
            Member(
                node.name,
                f"{node.name}:1",
                f"{node.name}:2",
                node in self._voters,
                f"{node.name}:3" if node in self._voters else None,
            )
            for node in nodes
        )
        self.form = Form("simulated", 1, members, 1)
        self._check()

    def node_started(self, node: SimulatedNode) -> None:
        """A Raft member reads its journal."""
        node.after(0.01, self._catch_up, node)

    def move(self) -> None:
        """Elect another leader although there is one."""
        self._elect(excluded=self.leader)

    def leader_as_seen_by(self, node: SimulatedNode) -> SimulatedNode | None:
        """Whom a node takes for the Raft leader."""
        before = self._led_before
        if before is not None and before.supervising is not None and node.world.chance(0.3):
            return before
        return self.leader

    def propose(self, proposer: SimulatedNode, command: Command) -> None:
        """Put a command before the members; it is lost when the proposer does not lead them any more."""
        self.world.after(self.world.between(0.001, 0.02), self._commit, proposer, command)

    def _commit(self, proposer: SimulatedNode, command: Command) -> None:
        if proposer is not self.leader or not self._can_lead(proposer):
            return
        outcome = apply(self.map, command)
        if isinstance(outcome, Applied) and outcome.cluster_map != self.map:
            self.map = outcome.cluster_map
            self.world.note("raft", "agrees on", self.map.placements[GROUP])
            for node in self._voters:
                self.world.after(self.world.between(0.0, 0.05), self._catch_up, node)

    def _catch_up(self, node: SimulatedNode) -> None:
        leader = self.leader
        if not node.up or leader is None or not self.map.version:
            return
        if node is leader or (node.network.passes(leader.name, node.name) and node in self._voters):
            node.after(0.0, node.learn, self.map.placements[GROUP])
            if node.supervising is not None:
                node.supervising.learn(self.map)

    def _reaches(self, node: SimulatedNode, other: SimulatedNode) -> bool:
        passes = node.network.passes
        return (
            other.up and not other.paused and passes(node.name, other.name) and passes(other.name, node.name)
        ) or node is other

    def _can_lead(self, node: SimulatedNode) -> bool:
        if not node.up or node.paused:
            return False
        return sum(self._reaches(node, other) for other in self._voters) >= majority(len(self._voters))

    def _check(self) -> None:
        if self.leader is not None and self._can_lead(self.leader) and self.leader.supervising is not None:
            self._missing = 0
            for node in self._voters:
                self._catch_up(node)
        else:
            self._missing += 1
            if self._missing > self.world.random.randint(2, 6):
                self._elect()
        self.world.after(CHECK_SECONDS, self._check)

    def _elect(self, excluded: SimulatedNode | None = None) -> None:
        able = [node for node in self._voters if node is not excluded and self._can_lead(node)]
        if not able:
            return
        before, self.leader = self.leader, self.world.random.choice(able)
        self._missing = 0
        if before is not None and before is not self.leader:
            self._led_before = before
            before.after(self.world.between(0.0, 1.0), self._stop_leading, before)
        self.world.note("raft", "is led by", self.leader.name)
        self._first_number += 1_000_000
        if self.leader.supervising is None:
            self.leader.supervising = SimulatedSupervising(self.leader, self._first_number)

    def _stop_leading(self, node: SimulatedNode) -> None:
        if node.supervising is not None and node is not self.leader:
            node.supervising.stop()
            node.supervising = None


class SimulatedSupervising:
    """The supervisor on a Raft leader, in the order of steps of `ops/control/supervising.py`."""

    def __init__(self, node: SimulatedNode, first_number: int) -> None:
        self._node = node
        self._attendees: dict[str, Stream] = {}
        self._over = self._rests = False
        self.supervisor = Supervisor(failure_timeout_seconds=FAILURE_TIMEOUT_SECONDS, first_number=first_number)
        self._map = EMPTY
        self.learn(node.raft.map)
        node.raft.propose(node, node.raft.form)
        self._look_number = 0
        self._look_later()

    def stop(self) -> None:
        """Another node leads."""
        self._over = True
        for stream in self._attendees.values():
            stream.end(self._node, "not the leader")

    def learn(self, cluster_map: ClusterMap) -> None:
        """The members agreed on this map."""
        if cluster_map.version <= self._map.version:
            return
        self._map = cluster_map
        self.supervisor.learn(cluster_map, self._node.clock())
        for stream in self._attendees.values():
            stream.send(self._node, "told", "map", cluster_map.placements[GROUP])
        self._act()

    def attend(self, stream: Stream) -> None:
        """A node opens its stream."""
        if not self._map.version:
            stream.end(self._node, "the cluster is being formed")
            return
        name = stream.other(self._node).name
        before = self._attendees.pop(name, None)
        if before is not None:
            before.end(self._node, "a newer stream took its place")
        self._attendees[name] = stream
        self.supervisor.attend(name, self._node.clock())
        stream.send(self._node, "told", "map", self._map.placements[GROUP])

    def report(self, stream: Stream, report: GroupReport) -> None:
        """A node reports."""
        name = stream.other(self._node).name
        if self._attendees.get(name) is stream:
            self.supervisor.report(name, [report], self._node.clock())
            self._act()

    def stream_ended(self, stream: Stream) -> None:
        """A stream is over."""
        for name, attending in list(self._attendees.items()):
            if attending is stream:
                del self._attendees[name]
                self.supervisor.leave(name)
                self._act()

    def hand_over(self, to: str) -> None:
        """An operator wants another primary."""
        self.supervisor.hand_over(GROUP, to, self._node.clock())
        self._act()

    def _look_later(self) -> None:
        calm_seconds = max(0.0, self.supervisor.calm_until() - self._node.clock())
        self._rests = calm_seconds > 0
        self._look_number += 1
        self._node.after(calm_seconds + POLL_SECONDS, self._look, self._look_number)

    def _look(self, number: int) -> None:
        if not self._over and number == self._look_number:
            self._act()
            self._look_later()

    def _act(self) -> None:
        if self._over:
            return
        for action in self.supervisor.tick(self._node.clock()):
            self._carry_out(action)
        if self._rests and not self.supervisor.calm():
            self._look_later()

    def _carry_out(self, action: Action) -> None:
        node = self._node
        match action:
            case AskForReport(name):
                self._tell(name, "ask")
            case Nominate(name, _, number):
                node.note("nominates", name, number)
                self._tell(name, "nominate", number)
            case AskToHandOver(name, _, to, number):
                node.note("asks", name, "to hand over to", to)
                self._tell(name, "hand over", to, number)
            case Record(command):
                node.raft.propose(node, command)
            case Probe(name):
                refused = node.network.refuses(node.name, node.peers[name])
                node.after(node.world.between(0.0005, 0.01 if refused else 0.3), self._probed, name, refused)

    def _probed(self, name: str, refused: bool) -> None:
        if not self._over:
            self.supervisor.probed(name, refused=refused)
            self._act()

    def _tell(self, name: str, what: str, *details: object) -> None:
        stream = self._attendees.get(name)
        if stream is not None:
            stream.send(self._node, "told", what, *details)
