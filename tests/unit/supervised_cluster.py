"""A supervisor, and the nodes' side of it, on a clock of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent_core.control.cluster_map import ClusterMap, Member, Placement
from agent_core.position import START
from primary.electing.exchange import Action, AskForReport, GroupReport
from primary.electing.supervisor import Supervisor

NODES = ("a", "b", "c")
TIMEOUT = 1.0


def cluster(*placements: Placement, draining: str = "") -> ClusterMap:
    members = tuple(
        Member(name, f"127.0.0.1:{port}", f"127.0.0.1:{port + 100}", True, None, draining=name == draining)
        for port, name in enumerate(NODES, 7001)
    )
    return ClusterMap(version=1, cluster_id="c", shard_count=4, members=members, placements=placements)


class Cluster:
    """A supervisor and the nodes' side of it, on a clock of its own."""

    def __init__(self, *placements: Placement, attending: Iterable[str] = NODES) -> None:
        self.now = 100.0
        self.supervisor = Supervisor(failure_timeout_seconds=TIMEOUT)
        self.map = cluster(*placements)
        self.supervisor.learn(self.map, self.now)
        self.logs = dict.fromkeys(NODES, START)
        self.leads: dict[str, dict[int, int]] = {name: {} for name in NODES}
        self.silent = dict.fromkeys(NODES, 0.0)
        self.answered = dict.fromkeys(NODES, 0)
        self.able = dict.fromkeys(NODES, True)
        self.follows = dict.fromkeys(NODES, True)
        self.attending = set(attending)
        for number, placement in enumerate(placements):
            if placement.primary in self.attending:
                self.leads[placement.primary][number] = placement.epoch
        for name in self.attending:
            self.supervisor.attend(name, self.now)
        self.report(*self.attending)

    def report(self, *names: str) -> None:
        for name in names:
            if name not in self.attending:
                continue
            reports = [
                GroupReport(
                    group=number,
                    leads_epoch=self.leads[name].get(number, 0),
                    last=self.logs[name],
                    hears=(placement.primary or "") if self.follows[name] and placement.primary != name else "",
                    silent_seconds=self.silent[name],
                    answered=self.answered[name],
                    able=self.able[name],
                )
                for number, placement in enumerate(self.map.placements)
            ]
            self.supervisor.report(name, reports, self.now)

    def tick(self) -> list[Action]:
        return self.supervisor.tick(self.now)

    def poll(self) -> list[Action]:
        """The next actions, with the voters' newest positions told as soon as they are asked for."""
        actions = self.tick()
        if any(isinstance(action, AskForReport) for action in actions):
            self.now += 0.001
            self.report(*NODES)
            actions = self.tick()
        return actions

    def wait(self, seconds: float, *silent: str) -> None:
        """Time passes; everybody but `silent` goes on reporting, and hears nothing of them."""
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            self.report(*(name for name in NODES if name not in silent))
            self.tick()

    def die(self, name: str) -> None:
        self.attending.discard(name)
        self.leads[name].clear()
        self.supervisor.leave(name)

    def learn(self, *placements: Placement, draining: str = "") -> None:
        self.map = replace(cluster(*placements, draining=draining), version=self.map.version + 1)
        self.supervisor.learn(self.map, self.now)
