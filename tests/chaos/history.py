"""What clients saw of a session, and whether the nodes' transcripts agree with it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto


class Outcome(Enum):
    """How an append ended for its caller."""

    ACKNOWLEDGED = auto()
    UNKNOWN = auto()
    """It may have been written, once."""
    REFUSED = auto()
    """The caller was told that nothing was written."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One append as its caller saw it; `seq` is 0 unless it was acknowledged."""

    payload: bytes
    outcome: Outcome
    seq: int = 0


@dataclass(slots=True)
class SessionHistory:
    """One session: its only writer's attempts in the order of calling, and what reads showed too early or too late.

    Attributes:
        session_id: The session.
        attempts: Each append that ended.
        violations: What was wrong already while clients ran.
    """

    session_id: str
    attempts: list[Attempt] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        """How many appends were acknowledged."""
        return self.count(Outcome.ACKNOWLEDGED)

    @property
    def last_acknowledged_seq(self) -> int:
        """The highest entry that a caller knows to be safe; 0 for none."""
        return max((attempt.seq for attempt in self.attempts), default=0)

    def count(self, outcome: Outcome) -> int:
        """How many appends ended so."""
        return sum(attempt.outcome is outcome for attempt in self.attempts)

    def judge(self, transcript: Sequence[bytes]) -> Iterator[str]:
        """What is wrong with a transcript, read after every client had stopped: payloads from seq 1 on."""
        seqs = [attempt.seq for attempt in self.attempts if attempt.outcome is Outcome.ACKNOWLEDGED]
        if seqs != sorted(set(seqs)):
            yield f"{self.session_id}: acknowledged seqs do not rise in the order of calling: {seqs}"
        found = Counter(transcript)
        for payload, times in found.items():
            if times > 1:
                yield f"{self.session_id}: {payload!r} is there {times} times"
        for attempt in self.attempts:
            if attempt.outcome is Outcome.ACKNOWLEDGED and attempt.payload not in found:
                yield f"{self.session_id}: the acknowledged {attempt} is lost"
            elif attempt.outcome is Outcome.ACKNOWLEDGED and transcript[attempt.seq - 1 : attempt.seq] != [
                attempt.payload
            ]:
                yield f"{self.session_id}: the acknowledged {attempt} is not at its seq"
            elif attempt.outcome is Outcome.REFUSED and attempt.payload in found:
                yield f"{self.session_id}: {attempt} was refused and is there"
        for payload in found.keys() - {attempt.payload for attempt in self.attempts}:
            yield f"{self.session_id}: nobody appended {payload!r}"


@dataclass(slots=True)
class ReaderView:
    """What one reader has seen of a session; each read must show that, and may show more."""

    history: SessionHistory
    name: str
    seen: list[bytes] = field(default_factory=list)

    def read(self, transcript: Sequence[bytes], *, at_least: int, where: str) -> None:
        """Note a read and what is wrong with it.

        Args:
            transcript: The payloads from seq 1 on.
            at_least: Entries that it must show, because they were acknowledged before it began.
            where: The node that answered.
        """
        if len(transcript) < at_least:
            self._wrong(where, f"shows {len(transcript)} entries after {at_least} were acknowledged")
        if list(transcript[: len(self.seen)]) != self.seen:
            self._wrong(where, f"goes back: {len(self.seen)} entries were seen, and {len(transcript)} are shown")
        self.seen = list(transcript)

    def _wrong(self, where: str, what: str) -> None:
        self.history.violations.append(f"{self.history.session_id}: a read of {self.name} at {where} {what}")


@dataclass(slots=True)
class SubscriberView:
    """What one subscriber was brought of a session, over all its subscriptions: each entry once, in order.

    Attributes:
        history: The session's.
        transcript: The payloads from seq 1 on.
    """

    history: SessionHistory
    transcript: list[bytes] = field(default_factory=list)

    @property
    def cursor(self) -> int:
        """The last entry that it was brought; 0 for none."""
        return len(self.transcript)

    @property
    def caught_up(self) -> bool:
        """Whether it was brought all that was acknowledged."""
        return self.cursor >= self.history.last_acknowledged_seq

    def brought(self, seq: int, payload: bytes) -> None:
        """Note an entry, and what is wrong with its place."""
        if seq != self.cursor + 1:
            self.history.violations.append(
                f"{self.history.session_id}: a subscriber was brought entry {seq} after entry {self.cursor}"
            )
        self.transcript.append(payload)

    def judge(self) -> Iterator[str]:
        """What is wrong with all that it was brought, once every writer has stopped and it had time to follow."""
        if not self.caught_up:
            yield (
                f"{self.history.session_id}: a subscriber was brought {self.cursor} entries of the "
                f"{self.history.last_acknowledged_seq} that were acknowledged"
            )
        for problem in self.history.judge(self.transcript):
            yield f"a subscriber: {problem}"
