"""A simulated node that stands for election: the order of steps of `ops/candidacy.py` and `primary/opening.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from primary.opening import GRACE_SECONDS, SEAL_TIMEOUT_SECONDS, Ask, Opened, Vote, Wait
from replica.voting import SealQuestion

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode

FAILURE_TIMEOUT_SECONDS = 1.0
ASK_AGAIN_SECONDS = 0.05
RELEASE_SECONDS = 0.1


class SimulatedCandidacy:
    """One nomination, until it is won or lost.

    Attributes:
        asks: Voters are being asked, or have agreed: the log must not grow.
    """

    def __init__(
        self,
        node: SimulatedNode,
        number: int,
        pause: Callable[[], None],
        won: Callable[[int], None],
        lost: Callable[[], None],
    ) -> None:
        self._node, self._number = node, number
        self._pause, self._won, self._lost = pause, won, lost
        self._over = False
        self._round = 0
        self.asks = False

    def begin(self, *, able: bool) -> None:
        """Ask for seals, unless this node is not able to lead, or bound by the present primary's lease."""
        node = self._node
        if not able:
            self._lose()
        elif node.decisions.binding_seconds(node.voter.watch, node.clock()):
            node.probe_primary(lambda gone: self._ask() if gone else self._await_release(node.clock()))
        else:
            self._ask()

    def _await_release(self, since: float) -> None:
        """Wait a moment for the word of a primary that hands over."""
        node = self._node
        if node.voter.watch.heard_at == float("-inf"):
            self._ask()
        elif node.clock() - since >= RELEASE_SECONDS:
            self._lose()
        else:
            node.after(0.01, self._await_release, since)

    def give_up(self) -> None:
        """Whatever comes now is too late."""
        self._over = True

    def answered(self, voter: str, epoch: int, number: int, vote: Vote) -> None:
        """A voter answered in round `number`."""
        if number != self._round or self._over:
            return
        self._opening.answer(voter, epoch, vote)
        if self._opening.has_majority:
            self._node.after(GRACE_SECONDS, self._end_round, number)
        self._heard(voter, number)

    def _ask(self) -> None:
        if self._over:
            return
        self.asks = True
        self._pause()
        node = self._node
        known_epoch = max(node.voter.promise.epoch, node.placement.epoch)
        self._opening = node.decisions.opening(node.voters, node.disk.log.last, known_epoch)
        node.note("stands", self._opening.epoch, self._opening.last)
        node.after(FAILURE_TIMEOUT_SECONDS, self._lose)
        self._step()

    def _step(self) -> None:
        match self._opening.next_step():
            case Ask() as ask:
                self._ask_round(ask.voters)
            case Wait(silent):
                self._node.after(ASK_AGAIN_SECONDS, self._ask_again, self._round, silent)
            case Opened(epoch):
                self._win(epoch)
            case _:
                self._lose()

    def _ask_again(self, number: int, silent: frozenset[str]) -> None:
        if number == self._round and not self._over:
            self._ask_round(silent)

    def _ask_round(self, voters: frozenset[str]) -> None:
        self._round += 1
        self._pending = set(voters)
        node, opening, number = self._node, self._opening, self._round
        question = SealQuestion(opening.epoch, node.name, opening.last)
        for voter in sorted(voters):
            peer = node.peers[voter]
            if peer is node:
                node.voter.seal(question, partial(self.answered, voter, question.epoch, number))
            elif node.network.refuses(node.name, peer):
                node.after(0.001, self._heard, voter, number)
            else:
                node.network.send(node, peer, "seal", question, node, number)
        node.after(SEAL_TIMEOUT_SECONDS, self._end_round, number)

    def _heard(self, voter: str, number: int) -> None:
        """A voter answered, or its port refused."""
        if number == self._round:
            self._pending.discard(voter)
            if not self._pending:
                self._end_round(number)

    def _end_round(self, number: int) -> None:
        if number == self._round and not self._over:
            self._round += 1
            self._step()

    def _win(self, epoch: int) -> None:
        node = self._node
        self._over = True
        node.note("elected", epoch)
        node.checkers.leads(node.name, epoch)
        node.voter.adopt(epoch, node.name, partial(self._adopted, epoch))

    def _adopted(self, epoch: int) -> None:
        node = self._node
        node.sealed_epoch = epoch
        node.succession_begins()
        node.answer(self._number)
        node.after(node.world.between(0.001, 0.01), self._won, epoch)

    def _lose(self) -> None:
        if not self._over:
            self._over = True
            self._node.note("not elected")
            self._node.answer(self._number)
            self._lost()
