"""Which shards of a group need a resync, why, and what may be acknowledged before they had it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from agent_core.position import START, EpochTable, Position
from replica.fitness import is_ahead, why_unfit
from replica.receiving import Reset
from replica.staging import StagedPages

_ORDERED = "an operator ordered its resync"


class HeldShard(Protocol):
    """What is looked at of a shard; `ShardApplier` is it."""

    @property
    def shard(self) -> int:
        """Its number."""

    @property
    def damage(self) -> str | None:
        """What is wrong with the file."""

    @property
    def staged(self) -> StagedPages | None:
        """What will make it whole, whatever is wrong with the file."""

    @property
    def holds(self) -> Position | None:
        """The position that this node has of it, in the file or staged beside it."""


class ResyncNeeds:
    """The resyncs that one group's shards wait for.

    Attributes:
        epoch: Of the primary that is followed.
        resets: The lsn of the record that resets a shard which was not resynced since.
    """

    def __init__(self, resets: Mapping[int, int]) -> None:
        self.epoch = 0
        self.resets = dict(resets)
        self._broken: dict[int, str] = {}
        self._ordered: set[int] = set()
        self._resynced_in: dict[int, int] = {}

    @property
    def reasons(self) -> Mapping[int, str]:
        """Shards that wait for a resync, with the reason."""
        demanded = {shard: f"record {lsn} resets it" for shard, lsn in self.resets.items()}
        return {**demanded, **self._broken}

    def acknowledgeable(self, durable_lsn: int) -> int:
        """The part of what is durable in the log that this node could also bring into its shards.

        The log alone cannot rebuild a shard that waits for a resync, so what lies past that is not acknowledged.
        A reset itself is: its resync waits for it to be committed.
        """
        return 0 if self._broken else min([durable_lsn, *self.resets.values()])

    def expect(self, reset: Reset, holds: Position | None) -> bool:
        """A reset is about to be appended to the log; whether it demands a resync of a shard that holds this."""
        demands = (holds or START).lsn < reset.lsn
        if demands:
            self.resets.setdefault(reset.shard, reset.lsn)
        return demands

    def order(self, shard: int) -> None:
        """An operator wants a shard resynced."""
        self._ordered.add(shard)
        self._broken.setdefault(shard, _ORDERED)

    def demand(self, shard: int, reason: str) -> None:
        """A shard cannot go on without a resync."""
        self._broken[shard] = reason

    def unfit(self, shards: Iterable[HeldShard], history: EpochTable) -> Mapping[int, str]:
        """Shards that the log cannot continue, with the reason; nothing is acknowledged until they are resynced."""
        unfit = {shard.shard: self._why_unfit(shard, history) for shard in shards}
        self._broken = {shard: reason for shard, reason in unfit.items() if reason is not None}
        return dict(self._broken)

    def complete(self, shards: Iterable[HeldShard], history: EpochTable) -> bool:
        """Whether a log leads every shard to its end: no resync is due, nor holds one more than the log.

        What is past the log may have been brought by a resync and never be committed.
        """
        return not self.reasons and all(
            is_ahead(shard.holds, history.last) or self._why_unfit(shard, history, ahead=False) is None
            for shard in shards
        )

    def resynced(self, shard: int, position: Position, epoch: int) -> None:
        """A shard has come from the primary of `epoch`, as it was at `position`; it may be staged still."""
        self._resynced_in[shard] = epoch
        self._broken.pop(shard, None)
        if self.resets.get(shard, position.lsn + 1) <= position.lsn:
            del self.resets[shard]

    def fulfilled(self, shard: int) -> None:
        """What an operator ordered is done: the shard's file is equal to the primary's."""
        self._ordered.discard(shard)

    def cut_back(self, lsn: int) -> None:
        """The log ends at `lsn` now."""
        self.resets = {shard: reset for shard, reset in self.resets.items() if reset <= lsn}

    def _why_unfit(self, shard: HeldShard, history: EpochTable, *, ahead: bool = True) -> str | None:
        if shard.staged is None:
            if shard.damage is not None:
                return shard.damage
            if shard.shard in self._ordered:
                return _ORDERED
        resynced = ahead and self._resynced_in.get(shard.shard) == self.epoch
        return why_unfit(shard.holds, history, resynced_in_this_epoch=resynced)
