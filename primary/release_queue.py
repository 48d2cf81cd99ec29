"""Written mutations until the acknowledgement rules release them. Pure: lsns and times in, waiters told.

A mutation becomes visible as the cluster's mode has it, and in the order in which it was written. Each of its
waiters is told once it is as safe as that one asks, which may be before that or after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from agent_core.position import START
from agent_core.quorum import Acknowledgement, CommitTracker
from primary.mutation import Mutation, Transaction, Waiter


class ReleaseQueue:
    """What one group's writer has written, and not everybody was told of.

    Attributes:
        unreleased_bytes: Bytes of the mutations that are written and not visible yet.
    """

    def __init__(
        self,
        tracker: CommitTracker,
        visible_mode: Acknowledgement,
        *,
        on_visible: Callable[[Mutation], None],
        on_acknowledged: Callable[[Mutation, Acknowledgement], None],
    ) -> None:
        """Release by what `tracker` counts.

        Args:
            tracker: Counts what the voters hold.
            visible_mode: Under which a mutation becomes visible.
            on_visible: Called for each mutation that does, before its waiters hear of it.
            on_acknowledged: Called when whoever made a mutation was told that it is safe under the mode asked for.
        """
        self._tracker = tracker
        self._visible_mode = visible_mode
        self._on_visible = on_visible
        self._on_acknowledged = on_acknowledged
        self._unreleased: deque[Transaction] = deque()
        self._awaiting: dict[Acknowledgement, deque[Mutation]] = {
            mode: deque() for mode in Acknowledgement if mode is not visible_mode
        }
        self.unreleased_bytes = 0

    @property
    def unreleased(self) -> int:
        """Transactions that are written and not visible yet."""
        return len(self._unreleased)

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._unreleased) or any(self._awaiting.values())

    def add(self, transaction: Transaction) -> None:
        """A transaction was written, behind all others."""
        self._unreleased.append(transaction)
        for mutation in transaction.mutations:
            mutation.position = transaction.position
            self.unreleased_bytes += mutation.size_bytes
            for waiter in mutation.waiters:
                self._await(mutation, waiter.acknowledgement)

    def join(self, mutation: Mutation, waiter: Waiter) -> None:
        """One more waits for a mutation that was made before, written or not."""
        mutation.waiters.append(waiter)
        mode = waiter.acknowledgement
        if mutation.position == START:
            return  # It is looked at once it is written.
        if mutation.position.lsn <= self._tracker.safe_lsn(mode):
            self._acknowledge(mutation, mode)
        else:
            self._await(mutation, mode)

    def release(self) -> bool:
        """Tell what has become safe; whether something has become visible."""
        visible_lsn = self._tracker.safe_lsn(self._visible_mode)
        released = False
        while self._unreleased and self._unreleased[0].position.lsn <= visible_lsn:
            released = True
            for mutation in self._unreleased.popleft().mutations:
                self.unreleased_bytes -= mutation.size_bytes
                self._on_visible(mutation)
                self._acknowledge(mutation, self._visible_mode)
        for mode, awaiting in self._awaiting.items():
            safe_lsn = self._tracker.safe_lsn(mode) if awaiting else 0
            while awaiting and awaiting[0].position.lsn <= safe_lsn:
                self._acknowledge(awaiting.popleft(), mode)
        return released

    def expired(self, now: float) -> Iterator[Mutation]:
        """Those whose waiters have waited for long enough; they stay, and may still become visible."""
        for transaction in self._unreleased:
            if transaction.mutations[-1].expires_at > now:
                break
            yield from transaction.mutations
        for awaiting in self._awaiting.values():
            while awaiting and awaiting[0].expires_at <= now:
                yield awaiting.popleft()

    def waiting(self) -> Iterator[Mutation]:
        """All that somebody may wait for."""
        for transaction in self._unreleased:
            yield from transaction.mutations
        for awaiting in self._awaiting.values():
            yield from awaiting

    def _await(self, mutation: Mutation, mode: Acknowledgement) -> None:
        # Under the visible mode it is told as it becomes visible.
        if mode is not self._visible_mode:
            self._awaiting[mode].append(mutation)

    def _acknowledge(self, mutation: Mutation, mode: Acknowledgement) -> None:
        if mutation.acknowledge(mode):
            self._on_acknowledged(mutation, mode)
