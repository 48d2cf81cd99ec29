"""A simulated node's vote, in the order of steps of `replica/voter.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_core.log.durable_mark import LogEnd
from primary.opening import Vote
from replica.voting import PrimaryWatch, Promise, Refused, Sealed, SealQuestion

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode

LEASE_SECONDS = 0.6


class SimulatedVoter:
    """One process's voter.

    Attributes:
        floor: Nothing below this epoch may be appended or acknowledged from now on.
        watch: When the primary was heard.
        on_raised: Called with each epoch that is promised, before it is durable.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._turns: deque[Callable[[], None]] = deque()
        self._busy = False
        self.floor = node.disk.promise.epoch
        heard = self.floor and node.decisions.remembers_primaries
        self.watch = PrimaryWatch(LEASE_SECONDS, node.clock() if heard else float("-inf"))
        self.on_raised: list[Callable[[int], None]] = []
        self.promise = node.disk.promise

    def seal(self, question: SealQuestion, answer: Callable[[Vote], None]) -> None:
        """Answer a candidate."""
        self._in_turn(lambda: self._consider(question, answer))

    def adopt(self, epoch: int, primary: str, done: Callable[[], None]) -> None:
        """Promise to follow nothing below the epoch that `primary` leads."""

        def promise() -> None:
            if epoch > self.promise.epoch:
                self._keep(Promise(epoch, primary), done)
            else:
                done()
                self._next()

        self._in_turn(promise)

    def _consider(self, question: SealQuestion, answer: Callable[[Vote], None]) -> None:
        verdict = self._decide(question)
        if isinstance(verdict, Refused) and verdict.lease_seconds:
            self._node.probe_primary(lambda gone: self._reconsider(question, answer, gone=gone))
        else:
            self._answer(verdict, answer)

    def _reconsider(self, question: SealQuestion, answer: Callable[[Vote], None], *, gone: bool) -> None:
        if gone:
            self.watch.released()
        self._answer(self._decide(question), answer)

    def _decide(self, question: SealQuestion) -> Sealed | Refused:
        binding = self._node.decisions.binding_seconds(self.watch, self._node.clock())
        return self._node.decisions.answer(self.promise, self._end.for_votes, question, binding)

    def _answer(self, verdict: Sealed | Refused, answer: Callable[[Vote], None]) -> None:
        last = self._node.disk.log.last
        if isinstance(verdict, Refused):
            answer(Vote(False, verdict.promised_epoch, verdict.last, self._end.lost))
            self._next()
            return
        promise = verdict.promise
        self._node.note("seals", promise.epoch, promise.candidate)
        self._node.on_sealing(self._node)
        self._keep(promise, lambda: answer(Vote(True, promise.epoch, last)))

    def _keep(self, promise: Promise, done: Callable[[], None]) -> None:
        self.floor = promise.epoch
        for listener in tuple(self.on_raised):
            listener(promise.epoch)
        disk = self._node.disk
        if not self._node.decisions.promises_before_answering:
            self.promise = promise  # and never written
            done()
            self._next()
            return
        disk.writing = promise

        def durable() -> None:
            self.promise = disk.promise = promise
            disk.writing = None
            self._node.primary_changed()
            done()
            self._next()

        self._node.after(self._node.sync_seconds(), durable)

    @property
    def _end(self) -> LogEnd:
        log = self._node.disk.log
        return LogEnd(log.last, log.marked)

    def _in_turn(self, work: Callable[[], None]) -> None:
        self._turns.append(work)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._turns)
        if self._turns:
            self._turns.popleft()()
