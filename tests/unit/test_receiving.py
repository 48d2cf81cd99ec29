import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.lag import Lag
from agent_core.log.record import HEADER_BYTES, Record, RecordCodec, RecordKind
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import MAX_RECORD_BYTES, to_message
from replica.lag import StandbyLag
from replica.receiving import MAX_BLOCK_BYTES, Append, Follow, Heard, Receiver, RefusalReason, Refused, Reset

EPOCH = 3
END = Position(2, 10)
CODEC = RecordCodec()


def record(
    lsn: int,
    *,
    epoch: int = EPOCH,
    group: int = 0,
    shard: int = 1,
    kind: RecordKind = RecordKind.TRANSACTION,
    frames: bytes = b"frames of a transaction",
) -> bytes:
    frames = frames if kind is RecordKind.TRANSACTION else b""
    return CODEC.encode(Record(kind, group, shard, Position(epoch, lsn), 1, 0, frames))


def receiver(end: Position = END) -> Receiver:
    one = Receiver(group=0, shards=frozenset({0, 1, 2}))
    one.begin(end)
    welcome = pb.Welcome(epoch=EPOCH, primary="a", shared=to_message(end))
    assert isinstance(one.welcome(welcome, promised_epoch=EPOCH, held=end), Follow)
    return one


def message(*records: bytes, first_lsn: int = 11, epoch: int = EPOCH, last_lsn: int = 99) -> pb.Records:
    return pb.Records(
        epoch=epoch,
        first_lsn=first_lsn,
        records=b"".join(records),
        committed_lsn=9,
        last_lsn=last_lsn,
        bytes_behind=7,
    )


def refused(verdict: object) -> RefusalReason:
    assert isinstance(verdict, Refused), verdict
    return verdict.reason


def judge(one: Receiver, sent: pb.Records) -> Append | Refused:
    return one.records(sent, promised_epoch=EPOCH)


def test_records_that_follow_the_log_are_accepted_as_one_block() -> None:
    one = receiver()
    block = record(11) + record(12)
    assert judge(one, message(block)) == Append(block, (), Heard(9, 99, 7))
    assert judge(one, message(record(13), first_lsn=13)) == Append(record(13), (), Heard(9, 99, 7))
    assert one.last == Position(EPOCH, 13)


def test_a_heartbeat_says_how_far_the_primary_is() -> None:
    one = receiver()
    assert judge(one, message(first_lsn=0)) == Append(b"", (), Heard(9, 99, 7))
    assert one.last == END


def test_resets_are_pointed_out() -> None:
    reset = record(12, kind=RecordKind.RESET, shard=2)
    verdict = judge(receiver(), message(record(11), reset))
    assert isinstance(verdict, Append)
    assert verdict.resets == (Reset(2, 12),)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (message(record(12), first_lsn=12), RefusalReason.OUT_OF_ORDER),
        (message(record(11), record(13)), RefusalReason.OUT_OF_ORDER),
        (message(record(10), first_lsn=10), RefusalReason.REPEATED),
        (message(record(11), record(11)), RefusalReason.REPEATED),
        (message(record(11, epoch=1)), RefusalReason.LOWER_EPOCH),
        (message(record(11), record(12, epoch=2)), RefusalReason.LOWER_EPOCH),
        (message(record(11, epoch=4)), RefusalReason.MALFORMED),
        (message(record(11), epoch=2), RefusalReason.LOWER_EPOCH),
        (message(epoch=2), RefusalReason.LOWER_EPOCH),
        (message(record(11), epoch=4), RefusalReason.MALFORMED),
        (message(record(11, group=1)), RefusalReason.WRONG_GROUP),
        (message(record(11, shard=9)), RefusalReason.WRONG_GROUP),
        (message(record(11), first_lsn=12), RefusalReason.MALFORMED),
        (message(record(11)[:-1]), RefusalReason.MALFORMED),
        (message(record(11), b"rubbish"), RefusalReason.MALFORMED),
        (message(record(11), last_lsn=10), RefusalReason.MALFORMED),
        (message(last_lsn=8), RefusalReason.MALFORMED),
        (message(b"x" * (MAX_BLOCK_BYTES + 1)), RefusalReason.OVERSIZED),
    ],
)
def test_what_does_not_follow_the_log_is_refused_counted_and_leaves_nothing(
    sent: pb.Records, reason: RefusalReason
) -> None:
    one = receiver()
    assert refused(judge(one, sent)) is reason
    assert one.last == END
    assert {name: count for name, count in one.refusals.items() if count} == {reason: 1}


def test_any_changed_byte_is_noticed() -> None:
    good = record(11) + record(12)
    for offset in range(len(good)):
        bad = good[:offset] + bytes([good[offset] ^ 0x40]) + good[offset + 1 :]
        reason = refused(judge(receiver(), message(bad)))
        assert reason in (RefusalReason.BAD_CHECKSUM, RefusalReason.MALFORMED)
        if offset % len(record(11)) >= HEADER_BYTES:
            assert reason is RefusalReason.BAD_CHECKSUM


def test_a_promise_given_during_the_stream_makes_its_epoch_too_low() -> None:
    one = receiver()
    assert refused(one.records(message(record(11)), promised_epoch=EPOCH + 1)) is RefusalReason.LOWER_EPOCH


@given(st.binary(max_size=400))
def test_rubbish_is_refused_and_never_raises(data: bytes) -> None:
    verdict = judge(receiver(), message(data))
    assert isinstance(verdict, Append) == (data == b"")


LARGE = record(11, frames=bytes(range(256)) * 40)


def parts(size: int, data: bytes = LARGE, lsn: int = 11) -> list[pb.RecordPart]:
    return [
        pb.RecordPart(epoch=EPOCH, lsn=lsn, total_bytes=len(data), offset=offset, data=data[offset : offset + size])
        for offset in range(0, len(data), size)
    ]


def take(one: Receiver, part: pb.RecordPart) -> Append | Refused:
    return one.part(part, promised_epoch=EPOCH)


def test_a_record_in_parts_is_accepted_whole_with_the_last_one() -> None:
    one = receiver()
    pieces = parts(100)
    for piece in pieces[:-1]:
        assert take(one, piece) == Append()
        assert one.last == END
    assert take(one, pieces[-1]) == Append(LARGE)
    assert one.last == Position(EPOCH, 11)


def test_a_heartbeat_may_come_between_parts() -> None:
    one = receiver()
    first, second = parts(len(LARGE) // 2 + 1)
    take(one, first)
    assert isinstance(judge(one, message(first_lsn=0)), Append)
    assert take(one, second) == Append(LARGE)


def test_records_after_a_record_cut_short_are_refused() -> None:
    one = receiver()
    take(one, parts(100)[0])
    assert refused(judge(one, message(record(11)))) is RefusalReason.OUT_OF_ORDER


def test_a_byte_changed_in_a_part_is_noticed() -> None:
    one = receiver()
    first, second = parts(len(LARGE) - 5)
    take(one, first)
    second.data = b"wrong"
    assert refused(take(one, second)) is RefusalReason.BAD_CHECKSUM


def changed(part: pb.RecordPart, **fields: int | bytes) -> pb.RecordPart:
    copy = pb.RecordPart()
    copy.CopyFrom(part)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"offset": 0}, RefusalReason.REPEATED),
        ({"offset": 200}, RefusalReason.OUT_OF_ORDER),
        ({"total_bytes": 200}, RefusalReason.MALFORMED),
        ({"data": b""}, RefusalReason.MALFORMED),
        ({"lsn": 10}, RefusalReason.REPEATED),
        ({"lsn": 12}, RefusalReason.OUT_OF_ORDER),
        ({"epoch": 2}, RefusalReason.LOWER_EPOCH),
        ({"epoch": 4}, RefusalReason.MALFORMED),
        ({"total_bytes": MAX_RECORD_BYTES + 1}, RefusalReason.OVERSIZED),
        ({"total_bytes": 0}, RefusalReason.OVERSIZED),
        ({"data": b"x" * (MAX_BLOCK_BYTES + 1)}, RefusalReason.OVERSIZED),
    ],
)
def test_a_part_that_does_not_continue_the_last_is_refused(
    fields: dict[str, int | bytes], reason: RefusalReason
) -> None:
    one = receiver()
    first, second, *_ = parts(100)
    take(one, first)
    assert refused(take(one, changed(second, **fields))) is reason
    assert one.last == END


def test_after_a_refusal_and_a_new_hello_the_same_record_is_accepted() -> None:
    one = receiver()
    take(one, parts(100)[0])
    refused(take(one, parts(100)[2]))
    one.begin(END)
    one.welcome(pb.Welcome(epoch=EPOCH, primary="a", shared=to_message(END)), promised_epoch=EPOCH, held=END)
    assert [take(one, piece) for piece in parts(100)][-1] == Append(LARGE)


def test_a_welcome_of_a_lower_epoch_is_refused() -> None:
    one = Receiver(group=0, shards=frozenset({1}))
    one.begin(END)
    verdict = one.welcome(pb.Welcome(epoch=2, shared=to_message(END)), promised_epoch=3, held=END)
    assert refused(verdict) is RefusalReason.LOWER_EPOCH


def test_a_shared_point_past_the_end_of_the_log_is_refused() -> None:
    one = Receiver(group=0, shards=frozenset({1}))
    one.begin(END)
    verdict = one.welcome(pb.Welcome(epoch=3, shared=pb.Position(epoch=2, lsn=11)), promised_epoch=3, held=END)
    assert refused(verdict) is RefusalReason.MALFORMED


def test_a_welcome_that_asks_for_a_resync_names_where_the_log_begins_anew() -> None:
    one = Receiver(group=0, shards=frozenset({1}))
    one.begin(END)
    welcome = pb.Welcome(
        epoch=3, primary="a", resync_required=True, base=pb.Position(epoch=3, lsn=500), committed_lsn=500
    )
    assert one.welcome(welcome, promised_epoch=3, held=END) == Follow(3, "a", Position(3, 500), True, 500)


def test_a_standby_is_not_behind_while_it_hears_that_nothing_is_missing() -> None:
    lag = StandbyLag(0.0, heartbeat_seconds=0.1)
    lag.apply(10)
    lag.hear(last_lsn=10, bytes_behind=0, now=5.0)
    assert lag.measure(unapplied_bytes=0, now=5.15) == Lag(0, 0, 0.0)


def test_the_lag_grows_while_a_dead_primary_is_silent() -> None:
    lag = StandbyLag(0.0, heartbeat_seconds=0.1)
    lag.apply(10)
    lag.hear(last_lsn=10, bytes_behind=0, now=5.0)
    assert lag.measure(unapplied_bytes=0, now=65.0).seconds == 60.0


def test_the_lag_counts_what_was_heard_of_and_what_was_not_applied() -> None:
    lag = StandbyLag(0.0, heartbeat_seconds=0.1)
    lag.hear(last_lsn=10, bytes_behind=0, now=1.0)
    lag.apply(10)
    lag.hear(last_lsn=30, bytes_behind=500, now=2.0)
    lag.apply(15)
    assert lag.measure(unapplied_bytes=40, now=2.5) == Lag(15, 540, 0.5)
