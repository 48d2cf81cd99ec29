"""What was heard of each node, and when: the last answer, rates between answers, lag over time. Pure.

Times are seconds of whatever clock the caller reads; only differences count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from agent_core.rpc.administration_pb2 import StatusResponse
from agent_core.rpc.session_pb2 import Session

LAG_SAMPLES = 120
"""Answers whose lag is kept for each node and group."""
RATE_SECONDS = 10.0
"""Over how long a rate is taken."""
FRESH_SECONDS = 2.0
"""Where nodes are asked all the time, an answer that is older does not tell how the node is now."""

GroupKey = tuple[str, int]
"""A node's address and a group."""


class Rate:
    """How fast a counter grows, over its last samples."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        """The counter stood at `count`; one that went back began anew."""
        if self._samples and count < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now, count))
        while len(self._samples) > 2 and self._samples[0][0] < now - RATE_SECONDS:
            self._samples.popleft()

    @property
    def per_second(self) -> float | None:
        """None before there are two samples."""
        if len(self._samples) < 2:
            return None
        (then, before), (now, count) = self._samples[0], self._samples[-1]
        return (count - before) / (now - then) if now > then else None


class NodeHistory:
    """What was heard of one node.

    Attributes:
        answer: Its last answer; None before the first.
        heard_at: When that came.
        failure: Why the last question was not answered; empty when it was.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.answer: StatusResponse | None = None
        self.heard_at: float | None = None
        self.failure = ""

    def age(self, now: float) -> float | None:
        """Seconds since the last answer; None while there is none."""
        return None if self.heard_at is None else max(0.0, now - self.heard_at)


class ClusterHistory:
    """What was heard of all nodes.

    Args:
        addresses: The nodes.
        fresh_seconds: How old an answer may be to tell how its node is now.

    Attributes:
        nodes: By address, in the order in which they were named.
        appends: Rates of acknowledged entries, for each group on the node that leads it.
        sessions: The sessions of the last page that was read, most recently updated first.
        sessions_at: When it was read; None before the first.
    """

    def __init__(self, addresses: Sequence[str], *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._fresh_seconds = fresh_seconds
        self.nodes = {address: NodeHistory(address) for address in addresses}
        self.appends: dict[GroupKey, Rate] = {}
        self.sessions: Sequence[Session] = ()
        self.sessions_at: float | None = None
        self._session_rates: dict[str, Rate] = {}
        self._lags: dict[GroupKey, deque[float | None]] = {}

    def silent(self, node: NodeHistory, now: float) -> bool:
        """Whether a node does not answer: its last answer, if there is one, tells how it once was."""
        age = node.age(now)
        return bool(node.failure) or age is None or age > self._fresh_seconds

    def heard(self, address: str, answer: StatusResponse, now: float) -> None:
        """A node answered."""
        node = self.nodes[address]
        node.answer, node.heard_at, node.failure = answer, now, ""
        for group in answer.groups:
            key = (address, group.group)
            if group.role == "primary":
                self.appends.setdefault(key, Rate()).add(now, group.acknowledged_appends)
            else:
                self.appends.pop(key, None)
            self._keep_lag(key, None if group.role == "primary" else group.lag_seconds)

    def missed(self, address: str, reason: str, now: float) -> None:
        """A node did not answer; how far it is behind is then told by those that lead."""
        node = self.nodes[address]
        node.failure = reason
        for group in node.answer.groups if node.answer is not None else ():
            told = self.told_lag(address, group.group, now)
            self._keep_lag((address, group.group), None if told is None else told[1])

    def read_sessions(self, sessions: Iterable[Session], now: float) -> None:
        """A page of the most recently updated sessions was read; those that left it are forgotten."""
        self.sessions, self.sessions_at = tuple(sessions), now
        self._session_rates = {
            session.session_id: self._session_rates.get(session.session_id, Rate()) for session in self.sessions
        }
        for session in self.sessions:
            self._session_rates[session.session_id].add(now, session.entry_count)

    def entries_per_second(self, session_id: str) -> float | None:
        """How fast a session of the page grows; None before it was seen twice."""
        rate = self._session_rates.get(session_id)
        return None if rate is None else rate.per_second

    def lags(self, address: str, group: int) -> Sequence[float | None]:
        """The lag in seconds at each question, the newest last; None where nobody could tell it, or it led."""
        return self._lags.get((address, group), ())

    def told_lag(self, address: str, group: int, now: float) -> tuple[int, float] | None:
        """How far a node is behind as the group's primary tells, in transactions and seconds; None if none does."""
        answer = self.nodes[address].answer
        if answer is None:
            return None
        for node in self.nodes.values():
            if node.answer is None or node.address == address or self.silent(node, now):
                continue
            for led in node.answer.groups:
                if led.group == group and led.role == "primary":
                    for standby in led.standbys:
                        if standby.node_id == answer.node_id:
                            return standby.lag_transactions, standby.lag_seconds
        return None

    def reading_address(self, now: float) -> str | None:
        """The node to read sessions from: of those that answer the one that leads least; None if none answers."""
        led = {
            node.address: sum(group.role == "primary" for group in node.answer.groups)
            for node in self.nodes.values()
            if node.answer is not None and not self.silent(node, now)
        }
        return min(led, key=lambda address: led[address], default=None)

    def _keep_lag(self, key: GroupKey, seconds: float | None) -> None:
        self._lags.setdefault(key, deque(maxlen=LAG_SAMPLES)).append(seconds)
