"""How a voter answers a candidate. Pure.

This is Raft's vote: a voter gives an epoch to one candidate only, and only to one whose log holds at least what
its own log holds. With a majority sealed, the candidate therefore holds everything that was ever committed.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent_core.position import Position


@dataclass(frozen=True, slots=True)
class Promise:
    """To follow no epoch below `epoch`.

    Attributes:
        epoch: 0 when nothing was ever promised.
        candidate: The node that it was given to: who asked for the seal, or who was found leading that epoch.
    """

    epoch: int = 0
    candidate: str = ""


@dataclass(frozen=True, slots=True)
class SealQuestion:
    """A candidate wants to lead `epoch`; its log ends at `last`."""

    epoch: int
    candidate: str
    last: Position


@dataclass(frozen=True, slots=True)
class Sealed:
    """Agreed; the promise must be durable before the candidate hears of it."""

    promise: Promise


@dataclass(frozen=True, slots=True)
class Refused:
    """Not agreed: what was promised already, and where the voter's own log ends."""

    promised_epoch: int
    last: Position


def decide(promise: Promise, own_last: Position, question: SealQuestion) -> Sealed | Refused:
    """Answer a candidate.

    A question for the very epoch that was promised is refused even to the same candidate: it may have lost its
    disk since, and would write that epoch's records a second time. It asks for a higher epoch; epochs are cheap.
    """
    if question.epoch <= promise.epoch or own_last > question.last:
        return Refused(promise.epoch, own_last)
    return Sealed(Promise(question.epoch, question.candidate))
