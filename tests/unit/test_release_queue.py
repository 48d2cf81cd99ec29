"""Nobody is told that a write is safe before it is as safe as asked, nor twice, nor never once it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import HeadwaterError
from agent_core.position import Position
from agent_core.quorum import Acknowledgement, CommitTracker
from primary.mutation import Mutation, Transaction, Waiter
from primary.release_queue import ReleaseQueue

VOTERS = ("a", "b", "c")
MODES = st.sampled_from(Acknowledgement)


class Sink:
    """Notes what each caller hears, and how safe the write is at that moment."""

    def __init__(self, tracker: CommitTracker) -> None:
        self._tracker = tracker
        self.modes: list[Acknowledgement] = []
        self.told: list[int] = []

    def waiter(self, mode: Acknowledgement, *, repeats: bool = False) -> Waiter:
        self.modes.append(mode)
        return Waiter(mode, self, len(self.modes) - 1, repeats=repeats)

    def appended(self, request_id: int, group: int, seq: int, position: Position, *, duplicate: bool) -> None:
        assert request_id not in self.told, "each is told once"
        assert self._tracker.safe_lsn(self.modes[request_id]) >= position.lsn, "and not too early"
        self.told.append(request_id)

    def failed(self, request_id: int, error: HeadwaterError) -> None:
        raise AssertionError("nothing fails here")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(MODES, min_size=1, max_size=3)),
        st.tuples(st.just("repeat"), st.integers(0, 20), MODES),
        st.tuples(st.just("durable"), st.sampled_from(VOTERS), st.integers(1, 20)),
    ),
    max_size=40,
)


@given(STEPS, st.sampled_from([Acknowledgement.LOCAL, Acknowledgement.QUORUM]))
def test_each_waiter_is_told_once_and_as_safely_as_it_asked(
    steps: list[tuple[object, ...]], visible_mode: Acknowledgement
) -> None:
    tracker = CommitTracker("a", frozenset(VOTERS), 1)
    sink, visible, written = Sink(tracker), list[Mutation](), list[Mutation]()
    queue = ReleaseQueue(
        tracker, visible_mode, on_visible=visible.append, on_acknowledged=lambda _mutation, _mode: None
    )
    held = dict.fromkeys(VOTERS, 0)
    last_lsn = 0
    for step in steps:
        match step:
            case ("write", list(modes)):
                last_lsn += 1
                mutations = [Mutation(7, sink.waiter(mode), shard=0, group=0) for mode in modes]
                queue.add(Transaction(0, mutations, Position(1, last_lsn)))
                written += mutations
            case ("repeat", int(index), Acknowledgement() as mode) if written:
                queue.join(written[index % len(written)], sink.waiter(mode, repeats=True))
            case ("durable", str(node), int(lsn)):
                held[node] = max(held[node], min(lsn, last_lsn))
                tracker.durable(node, held[node])
                queue.release()
    for node in VOTERS:
        tracker.durable(node, last_lsn)
        queue.release()
    assert sorted(sink.told) == list(range(len(sink.modes)))
    assert visible == written, "in the order in which they were written"
    assert (queue.unreleased, queue.unreleased_bytes, bool(queue)) == (0, 0, False)
