from __future__ import annotations

from dataclasses import dataclass, field

from agent_core.rpc import replication_pb2 as pb
from agent_core.ticks import seconds_to_tick
from primary.heartbeats import UNANSWERED, Listener, SpokenFor


@dataclass
class Stream:
    """A stream whose rest the test decides on."""

    group: int
    epoch: int = 1
    resting: bool = True
    heard_at: list[float] = field(default_factory=list)

    @property
    def spoken_for(self) -> SpokenFor:
        led = pb.LedGroup(group=self.group, epoch=self.epoch)
        return SpokenFor(led, rests=lambda: self.resting, on_heard=self.heard_at.append)


def listener(*streams: Stream) -> Listener:
    return Listener({stream.group: stream.spoken_for for stream in streams})


def spoken_for(heartbeat: pb.Heartbeat | None) -> list[tuple[int, int]]:
    return [] if heartbeat is None else [(led.group, led.epoch) for led in heartbeat.groups]


def test_one_heartbeat_speaks_for_the_streams_that_rest_and_for_no_other() -> None:
    heartbeat = listener(Stream(0), Stream(1, resting=False), Stream(2, epoch=7)).heartbeat(now=1.5)
    assert spoken_for(heartbeat) == [(0, 1), (2, 7)]
    assert heartbeat is not None
    assert heartbeat.sent_at_us == 1_500_000


def test_nothing_is_sent_while_every_stream_speaks_for_itself() -> None:
    assert listener(Stream(0, resting=False)).heartbeat(now=1.0) is None


def test_an_echo_is_heard_for_the_groups_that_it_names() -> None:
    first, second = Stream(0), Stream(1)
    listener(first, second).echoed(pb.Echo(heard_us=2_500_000, groups=[pb.LedGroup(group=1, epoch=1)]))
    assert (first.heard_at, second.heard_at) == ([], [2.5])


def test_no_lease_rests_on_an_echo_of_another_epoch_or_of_a_group_that_is_not_streamed() -> None:
    stream = Stream(0, epoch=3)
    groups = [pb.LedGroup(group=0, epoch=2), pb.LedGroup(group=9, epoch=3)]
    listener(stream).echoed(pb.Echo(heard_us=1, groups=groups))
    assert stream.heard_at == []


def test_streams_speak_for_themselves_while_a_standby_answers_nothing() -> None:
    present = listener(Stream(0))
    assert [spoken_for(present.heartbeat(now=1.0)) for _ in range(UNANSWERED + 1)] == [[(0, 1)]] * UNANSWERED + [[]]
    present.echoed(pb.Echo(heard_us=1))
    assert spoken_for(present.heartbeat(now=1.0)) == [(0, 1)]


def test_waits_for_the_next_tick_end_together() -> None:
    ends = {round(now + seconds_to_tick(now, 0.1), 6) for now in (1000.0, 1000.01, 1000.02)}
    assert len(ends) <= 2, "a tick may lie among them"


def test_a_timer_that_fires_a_little_early_does_not_make_two_ticks_of_one() -> None:
    tick = 1000.0 + seconds_to_tick(1000.0, 0.1)
    assert round(seconds_to_tick(tick - 0.002, 0.1), 6) == 0.102
    assert round(seconds_to_tick(tick + 0.03, 0.1), 6) == 0.07
