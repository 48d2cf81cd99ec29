"""Whether a shard and the log beside it tell one history. Pure."""

from __future__ import annotations

from agent_core.position import START, EpochTable, Position


def is_ahead(contains: Position | None, last: Position) -> bool:
    """Whether a shard continues the last epoch of a log past its end.

    Args:
        contains: The shard's own position; None when it holds nothing.
        last: The end of the log.
    """
    return contains is not None and contains.epoch == last.epoch and contains.lsn > last.lsn


def why_unfit(contains: Position | None, history: EpochTable, *, resynced_in_this_epoch: bool) -> str | None:
    """Why a log cannot continue a shard, in a sentence; None when it can.

    Args:
        contains: The shard's own position; None when it holds nothing.
        history: The log's table of epochs.
        resynced_in_this_epoch: The shard was made equal to that of the primary that is followed now, whose log
            this one continues: it may be ahead.
    """
    if contains is None:
        if history.base == START:
            return None
        return "it holds nothing, and the log no longer begins at the beginning"
    if history.contains(contains):
        return None
    if contains.lsn > history.last.lsn and resynced_in_this_epoch:
        return None
    return f"it contains {contains}, which is not in the log from {history.base} to {history.last}"
