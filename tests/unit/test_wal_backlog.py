"""What waits in a shard's WAL, and when it is time to move it."""

from __future__ import annotations

from agent_core.database.checkpoints import BLOCKED_WAIT, WalBacklog, Written

LIMIT = 1000


def backlog_of(written_bytes: int, lsn: int = 5) -> WalBacklog:
    backlog = WalBacklog.of_opened(0, 0)
    backlog.wrote(written_bytes, lsn)
    return backlog


def test_a_shard_is_due_once_its_wal_holds_as_much_as_it_may() -> None:
    assert not backlog_of(LIMIT - 1).is_due(LIMIT)
    assert backlog_of(LIMIT).is_due(LIMIT)


def test_what_a_wal_held_when_its_shard_was_opened_counts_and_needs_the_log() -> None:
    left_over = WalBacklog.of_opened(lsn=7, wal_bytes=LIMIT)
    assert left_over.is_due(LIMIT)
    assert left_over.needs_lsn == 0
    assert WalBacklog.of_opened(lsn=7, wal_bytes=0).needs_lsn is None


def test_a_checkpoint_that_moves_all_leaves_nothing_and_frees_the_log() -> None:
    backlog = backlog_of(LIMIT, lsn=5)
    backlog.ended(backlog.written, moved_all=True)
    assert (backlog.pending_bytes, backlog.needs_lsn, backlog.completed) == (0, None, 1)
    assert not backlog.is_due(LIMIT)


def test_what_was_written_during_a_checkpoint_stays_pending_and_is_not_counted_as_durable() -> None:
    backlog = backlog_of(LIMIT, lsn=5)
    began_at = backlog.written
    backlog.wrote(300, 6)
    backlog.ended(began_at, moved_all=True)
    assert (backlog.pending_bytes, backlog.needs_lsn, backlog.completed) == (300, 5, 0)


def test_after_a_reader_was_in_the_way_the_next_try_waits_until_a_part_more_was_written() -> None:
    backlog = backlog_of(LIMIT)
    backlog.ended(backlog.written, moved_all=False)
    assert (backlog.blocked, backlog.completed) == (1, 0)
    backlog.wrote(LIMIT // BLOCKED_WAIT - 1, 6)
    assert not backlog.is_due(LIMIT)
    backlog.wrote(1, 7)
    assert backlog.is_due(LIMIT)


def test_a_failed_checkpoint_is_counted_and_waits_likewise() -> None:
    backlog = backlog_of(LIMIT)
    backlog.has_failed()
    assert backlog.failed == 1
    assert not backlog.is_due(LIMIT)
    assert backlog.needs_lsn == 0


def test_once_a_checkpoint_has_moved_all_an_earlier_refusal_delays_nothing() -> None:
    backlog = backlog_of(LIMIT)
    backlog.ended(backlog.written, moved_all=False)
    backlog.ended(backlog.written, moved_all=True)
    backlog.wrote(LIMIT, 6)
    assert backlog.is_due(LIMIT)


def test_a_commit_that_is_on_disk_by_itself_needs_no_log_although_it_waits_in_the_wal() -> None:
    backlog = backlog_of(300, lsn=5)
    backlog.is_durable(5)
    assert (backlog.pending_bytes, backlog.needs_lsn) == (300, None)


def test_an_older_checkpoint_takes_back_nothing_of_what_is_durable() -> None:
    backlog = backlog_of(300, lsn=5)
    began_at = Written(0, 0)
    backlog.is_durable(5)
    backlog.ended(began_at, moved_all=True)
    assert backlog.durable_lsn == 5


def test_the_file_lacks_something_for_certain_once_a_transaction_ended_that_began_after_the_last_checkpoint() -> (
    None
):
    backlog = WalBacklog.of_opened(lsn=7, wal_bytes=LIMIT)
    assert not backlog.lacks_some_for_certain, "who knows what was moved before"
    backlog.begins()
    backlog.has_run()
    backlog.wrote(300, 8)
    assert not backlog.lacks_some_for_certain, "the checkpoint may have seen its commit"
    backlog.begins()
    assert not backlog.lacks_some_for_certain, "it has not ended"
    backlog.wrote(300, 9)
    assert backlog.lacks_some_for_certain


def test_a_transaction_that_was_rolled_back_adds_nothing_for_certain() -> None:
    backlog = backlog_of(300)
    backlog.begins()
    backlog.has_run()
    backlog.begins()
    assert not backlog.lacks_some_for_certain
