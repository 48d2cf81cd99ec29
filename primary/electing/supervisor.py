"""Decides which node leads which group. Pure: no clock, no socket; it runs on the Raft leader alone.

Nodes attend with a stream and report each group in which they take part. The supervisor compares what they tell
with the map, and asks for what should change: it nominates the furthest log, records who won, and lets a healthy
primary hand over. It chooses well; safety does not rest on it, but on the voters' seals.

    healthy ──▶ suspected ──▶ polling ──▶ nominated ──▶ healthy
                (or handed over)  ▲            │ refused, or no answer
                                  └────────────┘
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent_core.control.cluster_map import EMPTY, ClusterMap
from agent_core.control.commands import RecordPrimary
from agent_core.position import START
from agent_core.quorum import majority
from primary.electing.exchange import (
    Action,
    AskForReport,
    AskToHandOver,
    GroupReport,
    Nominate,
    Probe,
    Record,
    Refusal,
)

POLL_SECONDS = 0.05
"""How long a nomination waits for the voters' newest positions."""
PROBE_SECONDS = 0.2
"""The pause between two probes of a primary that does not attend."""
PREPARING_SECONDS = 3.0
"""How long a primary that shall hand over may let its successor prepare; it serves meanwhile."""
RETRY_SECONDS = 0.1
"""The pause after a nomination that failed."""


@dataclass(slots=True)
class _Attendance:
    """A node with an open stream, and what it told last."""

    since: float
    heard_at: float
    reports: dict[int, GroupReport] = field(default_factory=dict)


@dataclass(slots=True)
class _Pending:
    """A nomination or a hand-over that was asked for and not answered yet."""

    node: str
    number: int
    since: float


@dataclass(slots=True)
class _Group:
    """What the supervisor is about to do for one group."""

    healthy_at: float
    polled_at: float | None = None
    nominated: _Pending | None = None
    handing_over: _Pending | None = None
    heir: str = ""
    """Who shall lead next, when an operator or a drain asked for it."""
    failed_at: dict[str, float] = field(default_factory=dict)
    """When a nomination or a term of a node last came to nothing, since the group was led well."""
    draining_since: float | None = None
    """Since when its primary is draining; None while it is not."""
    not_before: float = 0.0
    recording: float = float("-inf")
    calm: bool = False
    """It was led well at the last tick, and nothing was under way."""


class Supervisor:
    """Watches every group of a cluster.

    Attributes:
        refusals: Nominations that failed or were not answered, for metrics.
        nominations: Nominations made.
    """

    def __init__(self, *, failure_timeout_seconds: float, first_number: int = 1) -> None:
        """Begin with an empty map and nobody attending.

        Args:
            failure_timeout_seconds: After this silence a node counts as failed.
            first_number: Nominations are numbered from here; two supervisors in a row should not overlap.
        """
        self._timeout = failure_timeout_seconds
        self._next_number = first_number
        self._map = EMPTY
        self._voters: tuple[str, ...] = ()
        self._attending: dict[str, _Attendance] = {}
        self._refused: set[str] = set()
        self._probed_at: dict[str, float] = {}
        self._groups: dict[int, _Group] = {}
        self.nominations = 0
        self.refusals = 0

    def learn(self, cluster_map: ClusterMap, now: float) -> None:
        """The Raft members agreed on this map. `now` is in seconds, on the clock of every other call."""
        before, self._map = self._map, cluster_map
        self._voters = cluster_map.voters()
        for number, placement in enumerate(cluster_map.placements):
            group = self._groups.setdefault(number, _Group(healthy_at=now))
            if number >= len(before.placements) or before.placements[number] != placement:
                # One hand-over for one wish: a primary without a quorum would be asked again in every epoch.
                fulfilled = placement.primary in {None, group.heir} or group.handing_over is not None
                self._groups[number] = _Group(
                    healthy_at=now, heir="" if fulfilled else group.heir, failed_at=group.failed_at
                )

    def attend(self, node: str, now: float) -> None:
        """A node opened its stream."""
        self._attending[node] = _Attendance(since=now, heard_at=now)
        self._refused.discard(node)

    def report(self, node: str, reports: Iterable[GroupReport], now: float) -> None:
        """A node told about its groups."""
        attendance = self._attending.get(node)
        if attendance is None:
            return
        attendance.heard_at = now
        for report in reports:
            before = attendance.reports.get(report.group)
            if (
                before is not None
                and before.leads_epoch
                and not report.leads_epoch
                and report.group in self._groups
            ):
                self._groups[report.group].failed_at[node] = now
            attendance.reports[report.group] = report

    def leave(self, node: str) -> None:
        """A node's stream ended."""
        self._attending.pop(node, None)
        self._refused.discard(node)
        self._probed_at.pop(node, None)

    def probed(self, node: str, *, refused: bool) -> None:
        """A probe ended: the node's port refused the connection, or it did not."""
        if refused and node not in self._attending:
            self._refused.add(node)

    def hand_over(self, group: int, to: str, now: float) -> Refusal | None:
        """An operator wants `to` to lead `group`: None when that is under way, else why it cannot be.

        One wish leads to one hand-over, whoever comes to lead by it: ask again for another.
        """
        if not 0 <= group < len(self._map.placements):
            return Refusal(f"group is {group}; this cluster has the groups 0 to {len(self._map.placements) - 1}")
        if to not in self._voters:
            return Refusal(f"node is {to!r}; allowed are the voters {', '.join(self._voters)}")
        if self._map.member(to).draining:
            return Refusal(f"{to} is draining; undrain it first")
        if not self._is_fresh(to, now):
            return Refusal(f"{to} does not attend at the Raft leader; a primary must be reachable", passing=True)
        report = self._report_of(to, group, now)
        if report is None or not report.able:
            return Refusal(
                f"{to} cannot lead now: shards of it wait for a resync, or its disk failed", passing=True
            )
        self._groups[group].heir = to
        return None

    def heir(self, group: int) -> str:
        """Who shall lead a group next, by a wish or a drain; empty when that is over, or nobody asked."""
        return self._groups[group].heir

    def tick(self, now: float) -> list[Action]:
        """What to do now. Call it after each other method, and from `calm_until` on every `POLL_SECONDS`."""
        actions: list[Action] = []
        for number in range(len(self._map.placements)):
            actions += self._supervise(number, self._groups[number], now)
        return actions

    def calm(self) -> bool:
        """Whether every group was led well at the last tick, and nothing is under way."""
        return bool(self._groups) and all(group.calm for group in self._groups.values())

    def calm_until(self) -> float:
        """Before this moment no silence lasts long enough to need a tick; minus infinity while it is not calm."""
        if not self.calm():
            return float("-inf")
        return min(
            (
                attendance.heard_at + self._timeout - max(report.silent_seconds for report in reports)
                for attendance in self._attending.values()
                if (reports := attendance.reports.values())
            ),
            default=float("-inf"),
        )

    def _supervise(self, number: int, group: _Group, now: float) -> list[Action]:
        placement = self._map.placements[number]
        group.calm = False
        leader = self._highest_claim(number)
        if leader is not None and leader[0] > placement.epoch:
            if now - group.recording < self._timeout:
                return []
            group.recording = now
            epoch, node = leader
            return [Record(RecordPrimary(number, placement.epoch, epoch, node))]
        primary = placement.primary
        if primary is None:
            return self._elect(number, group, primary, now)
        if self._is_healthy(number, primary, placement.epoch, now):
            group.healthy_at, group.polled_at, group.nominated = now, None, None
            group.failed_at.clear()
            actions = self._hand_over(number, group, primary, now) or self._probe_if_gone(primary, now)
            moves = group.handing_over is not None or group.heir or self._map.member(primary).draining
            group.calm = primary in self._attending and not moves
            return actions
        if self._is_suspect(number, primary, group, now):
            return self._elect(number, group, primary, now)
        return self._probe_if_gone(primary, now)

    def _highest_claim(self, number: int) -> tuple[int, str] | None:
        claims = [
            (attendance.reports[number].leads_epoch, node)
            for node, attendance in self._attending.items()
            if number in attendance.reports and attendance.reports[number].leads_epoch
        ]
        return max(claims, default=None)

    def _is_fresh(self, node: str, now: float) -> bool:
        attendance = self._attending.get(node)
        return attendance is not None and now - attendance.heard_at < self._timeout

    def _report_of(self, node: str, number: int, now: float) -> GroupReport | None:
        return self._attending[node].reports.get(number) if self._is_fresh(node, now) else None

    def _is_healthy(self, number: int, primary: str, epoch: int, now: float) -> bool:
        """Whether a majority of the voters hears the primary.

        It counts itself: where it attends by its own report, else, cut off from the Raft leader alone, where
        another voter hears it. Without that majority it would step down, and they would hear nothing more.
        """
        if primary in self._refused:
            return False
        hearing = 0
        for voter in self._voters:
            report = self._report_of(voter, number, now)
            if report is None:
                continue
            if voter == primary:
                if report.leads_epoch != epoch:
                    return False
            else:
                age = report.silent_seconds + now - self._attending[voter].heard_at
                hearing += report.hears == primary and age < self._timeout
        itself = hearing > 0 or self._report_of(primary, number, now) is not None
        return hearing + itself >= majority(len(self._voters))

    def _is_suspect(self, number: int, primary: str, group: _Group, now: float) -> bool:
        report = self._report_of(primary, number, now)
        if report is not None and report.leads_epoch < self._map.placements[number].epoch:
            return True  # it came back, or stepped down
        return (
            primary in self._refused
            or now - group.healthy_at >= self._timeout
            or self._unheard_by(number, primary, now) >= majority(len(self._voters))
        )

    def _unheard_by(self, number: int, primary: str, now: float) -> int:
        """How many voters followed the primary and have not heard it for the timeout, whoever supervised then."""
        count = 0
        for voter in self._voters:
            report = self._report_of(voter, number, now)
            if report is not None and report.hears == primary:
                count += report.silent_seconds + now - self._attending[voter].heard_at >= self._timeout
        return count

    def _probe_if_gone(self, primary: str, now: float) -> list[Action]:
        if primary in self._attending or now - self._probed_at.get(primary, float("-inf")) < PROBE_SECONDS:
            return []
        self._probed_at[primary] = now
        return [Probe(primary)]

    def _elect(self, number: int, group: _Group, primary: str | None, now: float) -> list[Action]:
        if group.nominated is not None and not self._nomination_failed(number, group.nominated, now):
            return []
        if group.nominated is not None:
            group.failed_at[group.nominated.node] = now
            group.nominated, group.polled_at = None, None
            group.not_before = now + RETRY_SECONDS
            self.refusals += 1
        if now < group.not_before or not self._enough_attend(number, primary, now):
            group.polled_at = None
            return []
        reachable = [voter for voter in self._voters if self._is_fresh(voter, now)]
        if group.polled_at is None:
            group.polled_at = now
            return [AskForReport(voter) for voter in reachable]
        answered = all(self._attending[voter].heard_at > group.polled_at for voter in reachable)
        if not answered and now - group.polled_at < POLL_SECONDS:
            return []
        candidate = self._furthest(number, reachable, group, now)
        if candidate is None:
            return []
        self.nominations += 1
        group.nominated = _Pending(candidate, self._number(), now)
        return [Nominate(candidate, number, group.nominated.number)]

    def _enough_attend(self, number: int, primary: str | None, now: float) -> bool:
        """Whether a nomination can win, and waiting for more voters would not make it better."""
        voters = self._voters
        attending = [
            self._attending[voter]
            for voter in voters
            if (report := self._report_of(voter, number, now)) is not None
            # Before the first election a node that opens its shards yet is worth waiting for: groups spread evenly.
            and (report.able or primary is not None)
        ]
        if len(attending) < majority(len(voters)):
            return False
        missing = len(voters) - len(attending)
        expected = 1 if primary is not None and not self._is_fresh(primary, now) else 0
        newest = max(attendance.since for attendance in attending)
        return missing <= expected or now - newest >= self._timeout

    def _furthest(self, number: int, reachable: Iterable[str], group: _Group, now: float) -> str | None:
        reports = {
            voter: report
            for voter in reachable
            # Who still leads this epoch unheard by a majority would only do the same in the next.
            if (report := self._report_of(voter, number, now)) and report.able and not report.leads_epoch
        }
        furthest = max((report.last for report in reports.values()), default=START)
        equals = [voter for voter, report in reports.items() if report.last == furthest]
        # A draining node leads rather than nobody: its log may be the only one that is far enough.
        equals = [voter for voter in equals if not self._map.member(voter).draining] or equals
        if group.heir in equals:
            return group.heir
        burden, failed_at = self._burden(), group.failed_at
        # Whoever failed last comes last: it may lead nothing just because it cannot.
        return min(
            equals, key=lambda voter: (failed_at.get(voter, float("-inf")), burden[voter], voter), default=None
        )

    def _burden(self) -> Mapping[str, int]:
        """How many groups each voter leads, or is about to."""
        burden = dict.fromkeys(self._voters, 0)
        for number, placement in enumerate(self._map.placements):
            nominated = self._groups[number].nominated
            node = nominated.node if nominated is not None else placement.primary
            if node in burden:
                burden[node] += 1
        return burden

    def _nomination_failed(self, number: int, nominated: _Pending, now: float) -> bool:
        report = self._report_of(nominated.node, number, now)
        if report is None or now - nominated.since >= self._timeout:
            return True
        return report.answered == nominated.number and report.leads_epoch == 0

    def _hand_over(self, number: int, group: _Group, primary: str, now: float) -> list[Action]:
        pending = group.handing_over
        if pending is not None:
            report = self._report_of(primary, number, now)
            refused = report is not None and report.answered == pending.number
            if refused or now - pending.since >= PREPARING_SECONDS + 2 * self._timeout:
                group.handing_over, group.heir = None, ""
                group.not_before = now + self._timeout
            return []
        if now < group.not_before:
            return []
        to = group.heir
        if not self._map.member(primary).draining:
            group.draining_since = None
        elif not to:
            group.draining_since = now if group.draining_since is None else group.draining_since
            to = self._successor(number, primary, now, patient=now - group.draining_since < self._timeout)
        if not to or to == primary:
            group.heir = ""
            return []
        group.heir = to
        group.handing_over = _Pending(primary, self._number(), now)
        return [AskToHandOver(primary, number, to, group.handing_over.number)]

    def _successor(self, number: int, primary: str, now: float, *, patient: bool) -> str:
        """Who takes a group from a draining node; empty when nobody can.

        While `patient`, nobody does who is alone in following it while another could yet: groups spread evenly.
        """
        burden = self._burden()
        for other in self._groups.values():
            if other.handing_over is not None and other.heir in burden:
                burden = {**burden, other.heir: burden[other.heir] + 1}
        able = {
            voter: report
            for voter in self._voters
            if voter != primary
            and not self._map.member(voter).draining
            and (report := self._report_of(voter, number, now)) is not None
            and (report.able or report.hears == primary)
        }
        following = [voter for voter, report in able.items() if report.hears == primary]
        if patient and len(following) < len(able):
            return ""
        return min(following, key=lambda voter: (burden[voter], voter), default="")

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number - 1
