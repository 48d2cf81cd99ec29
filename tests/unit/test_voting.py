import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent_core.control.cluster_map import Placement
from agent_core.errors import InvalidRequest, LogDamaged, WrongCluster
from agent_core.log.durable_mark import LogEnd
from agent_core.log.segment import sync_directory
from agent_core.position import START, Position
from agent_core.quorum import majority
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import from_message, to_message
from replica.promises import PromiseFile
from replica.voter import Voter
from replica.voting import Promise, Refused, Sealed, SealQuestion, decide, presumed_primary
from tests.waiting import until

HERE = Position(3, 40)


def test_a_higher_epoch_and_a_log_as_long_is_sealed() -> None:
    assert decide(Promise(4, "a"), HERE, SealQuestion(5, "b", HERE)) == Sealed(Promise(5, "b"))


@pytest.mark.parametrize("epoch", [3, 4])
def test_an_epoch_that_is_promised_already_is_refused_with_the_promise(epoch: int) -> None:
    assert decide(Promise(4, "a"), HERE, SealQuestion(epoch, "b", HERE)) == Refused(4, HERE)


def test_even_the_same_candidate_does_not_get_its_epoch_twice() -> None:
    assert decide(Promise(4, "a"), HERE, SealQuestion(4, "a", HERE)) == Refused(4, HERE)


@pytest.mark.parametrize("last", [Position(3, 39), Position(2, 90), START])
def test_a_shorter_log_is_refused_and_the_longer_one_named(last: Position) -> None:
    assert decide(Promise(), HERE, SealQuestion(9, "b", last)) == Refused(0, HERE)


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from("abc"), st.permutations(range(5))), max_size=30))
def test_no_epoch_ever_gets_two_majorities(questions: list[tuple[int, str, list[int]]]) -> None:
    promises = [Promise() for _ in range(5)]
    sealed: dict[int, dict[str, set[int]]] = {}
    for epoch, candidate, order in questions:
        for voter in order[:4]:
            answer = decide(promises[voter], START, SealQuestion(epoch, candidate, START))
            if isinstance(answer, Sealed):
                promises[voter] = answer.promise
                sealed.setdefault(epoch, {}).setdefault(candidate, set()).add(voter)
    for votes in sealed.values():
        assert sum(len(voters) >= majority(5) for voters in votes.values()) <= 1


def promise_file(path: Path, *, cluster_id: str = "c", group: int = 0) -> PromiseFile:
    return PromiseFile(path / "promises" / "group-000", cluster_id=cluster_id, group=group)


def test_a_promise_is_found_again_after_a_restart(tmp_path: Path) -> None:
    file = promise_file(tmp_path)
    assert file.promise == Promise()
    file.keep(Promise(7, "node-b"))
    assert promise_file(tmp_path).promise == Promise(7, "node-b")
    assert [entry.name for entry in (tmp_path / "promises").iterdir()] == ["group-000"]


def test_a_promise_is_never_replaced_by_a_lower_one(tmp_path: Path) -> None:
    file = promise_file(tmp_path)
    file.keep(Promise(7, "b"))
    with pytest.raises(ValueError, match="epoch 7 does not go beyond"):
        file.keep(Promise(7, "a"))


def test_a_damaged_promise_is_an_error_whichever_byte_is_bad(tmp_path: Path) -> None:
    promise_file(tmp_path).keep(Promise(7, "b"))
    path = tmp_path / "promises" / "group-000"
    good = path.read_bytes()
    for offset in range(len(good)):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 0x11]) + good[offset + 1 :])
        with pytest.raises(LogDamaged, match="damaged"):
            promise_file(tmp_path)
        path.write_bytes(good[:offset])
        with pytest.raises(LogDamaged, match="damaged"):
            promise_file(tmp_path)


def test_a_promise_of_another_cluster_or_group_is_refused(tmp_path: Path) -> None:
    promise_file(tmp_path).keep(Promise(7, "b"))
    with pytest.raises(WrongCluster, match="cluster c"):
        promise_file(tmp_path, cluster_id="other")
    with pytest.raises(WrongCluster, match="group 1"):
        promise_file(tmp_path, group=1)


def voter(tmp_path: Path, last: Position = HERE) -> Voter:
    return Voter(promise_file(tmp_path), node_id="v", cluster_id="c", group=0, last=lambda: last)


def bound_voter(tmp_path: Path) -> Voter:
    """A voter that has just heard its primary, whose lease lasts long."""
    one = Voter(promise_file(tmp_path), node_id="v", cluster_id="c", group=0, last=lambda: HERE, lease_seconds=3600)
    one.watch.heard(asyncio.get_running_loop().time())
    return one


def request(epoch: int, candidate: str = "a", *, cluster_id: str = "c", group: int = 0) -> pb.SealRequest:
    return pb.SealRequest(
        cluster_id=cluster_id, group=group, epoch=epoch, candidate=candidate, last=to_message(HERE)
    )


@pytest.mark.parametrize("released_first", [True, False])
async def test_a_released_lease_binds_no_longer_whether_the_release_or_the_wait_for_it_came_first(
    tmp_path: Path, released_first: bool
) -> None:
    one = bound_voter(tmp_path)
    if released_first:
        one.release()
    waiting = asyncio.create_task(one.released(within_seconds=3600))
    await asyncio.sleep(0)
    if not released_first:
        one.release()
    async with asyncio.timeout(10):
        assert await waiting


async def test_a_lease_that_nobody_releases_goes_on_binding(tmp_path: Path) -> None:
    assert not await bound_voter(tmp_path).released(within_seconds=0)


async def test_a_voter_has_promised_durably_before_it_answers(tmp_path: Path) -> None:
    answer = await voter(tmp_path).seal(request(5))
    assert answer.sealed
    assert promise_file(tmp_path).promise == Promise(5, "a")


async def test_a_promise_is_safe_from_a_power_cut_before_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content first, then the name, then the directory that holds the name, then the word."""
    one = voter(tmp_path)
    await one.seal(request(4))
    steps: list[str] = []

    def record(step: str, function: Callable[..., object]) -> Callable[..., object]:
        def recorded(*arguments: object) -> object:
            outcome = function(*arguments)
            steps.append(step)
            return outcome

        return recorded

    monkeypatch.setattr(os, "fsync", record("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", record("replace", Path.replace))
    monkeypatch.setattr("replica.promises.sync_directory", record("directory sync", sync_directory))
    answer = await one.seal(request(5))
    steps.append("answer")
    assert answer.sealed
    # The directory's sync is an fsync too.
    assert steps == ["fsync", "replace", "fsync", "directory sync", "answer"]


async def test_a_voter_raises_its_floor_before_the_promise_is_written(tmp_path: Path) -> None:
    one = voter(tmp_path)
    floors: list[int] = []
    keep = one._file.keep

    def watch(promise: Promise) -> None:
        floors.append(one.floor)
        keep(promise)

    one._file.keep = watch  # type: ignore[method-assign]  # the one moment that cannot be seen from outside
    await one.seal(request(5))
    assert floors == [5]


async def test_a_promise_that_cannot_be_written_was_never_given(tmp_path: Path) -> None:
    one = voter(tmp_path)
    promised: list[int] = []
    one.on_promised(lambda: promised.append(one.promise.epoch))
    (tmp_path / "promises").write_text("in the way")
    with pytest.raises(OSError):
        await one.seal(request(5))
    assert (one.floor, one.promise, promised) == (0, Promise(), [])
    (tmp_path / "promises").unlink()
    assert (await one.seal(request(5, "b"))).sealed, "nobody was told of the promise to another candidate"


async def test_a_primary_of_this_node_is_deposed_even_by_a_promise_that_cannot_be_written(tmp_path: Path) -> None:
    """It must not acknowledge while that is open."""
    one = voter(tmp_path)
    raised: list[int] = []
    one.on_raised(raised.append)
    (tmp_path / "promises").write_text("in the way")
    with pytest.raises(OSError):
        await one.seal(request(5))
    assert raised == [5]


async def test_a_refusal_names_the_promise_and_the_log(tmp_path: Path) -> None:
    one = voter(tmp_path)
    await one.seal(request(5))
    answer = await one.seal(request(5, "b"))
    assert (answer.sealed, answer.promised_epoch, from_message(answer.last)) == (False, 5, HERE)


async def test_whoever_listens_hears_of_raised_epochs(tmp_path: Path) -> None:
    one = voter(tmp_path)
    heard: list[int] = []
    one.on_raised(heard.append)
    await one.adopt(3, "a")
    await one.adopt(3, "a")
    await one.seal(request(9, "b"))
    assert heard == [3, 9]


async def test_a_candidate_of_another_cluster_or_group_or_without_a_name_is_refused(tmp_path: Path) -> None:
    one = voter(tmp_path)
    with pytest.raises(WrongCluster):
        await one.seal(request(5, cluster_id="other"))
    with pytest.raises(InvalidRequest):
        await one.seal(request(5, group=1))
    with pytest.raises(InvalidRequest):
        await one.seal(request(5, candidate=""))


async def test_a_voter_whose_disk_lost_records_refuses_whoever_lacks_them_itself_included(tmp_path: Path) -> None:
    one = Voter(
        promise_file(tmp_path),
        node_id="v",
        cluster_id="c",
        group=0,
        last=lambda: Position(3, 30),
        once_held=lambda: Position(3, 41),
    )
    answer = await one.seal(request(5, "v"))
    assert (answer.sealed, answer.lost, from_message(answer.last)) == (False, True, Position(3, 41))
    further = request(5, "b")
    further.last.CopyFrom(to_message(Position(3, 41)))
    assert (await one.seal(further)).sealed


@given(st.data())
def test_what_a_majority_acknowledged_is_held_by_every_majoritys_candidate_though_disks_lose_their_ends(
    data: st.DataObject,
) -> None:
    """A committed record stands at a majority; of these any number but one may lose it from disk."""
    committed = Position(2, 10)
    holders = data.draw(st.sets(st.integers(0, 4), min_size=3, max_size=5))
    losers = data.draw(st.sets(st.sampled_from(sorted(holders)), max_size=len(holders) - 1))
    short = Position(2, 9)
    ends = [
        LogEnd(
            held=committed if node in holders - losers else short,
            marked=committed if node in holders else short,
        )
        for node in range(5)
    ]
    for candidate in range(5):
        question = SealQuestion(3, "candidate", ends[candidate].held)
        votes = [decide(Promise(), end.for_votes, question) for end in ends]
        if sum(isinstance(vote, Sealed) for vote in votes) >= majority(5):
            assert ends[candidate].held >= committed


@pytest.mark.parametrize(
    ("promise", "placement", "misled_by", "presumed"),
    [
        (Promise(3, "b"), Placement(3, "b"), "", "b"),
        (Promise(4, "c"), Placement(3, "b"), "", "c"),
        (Promise(4, "c"), Placement(3, "b"), "c", "b"),
        (Promise(4, "c"), Placement(3, "b"), "b", "c"),
        (Promise(3, "b"), Placement(5, "c"), "", "c"),
        (Promise(3, "b"), Placement(5, "c"), "c", "b"),
        (Promise(3, "a"), Placement(3, "a"), "", None),
        (Promise(4, "a"), Placement(3, "b"), "b", "b"),
        (Promise(), Placement(), "", None),
    ],
)
def test_a_node_follows_whoever_has_the_highest_epoch_or_another_but_never_itself(
    promise: Promise, placement: Placement, misled_by: str, presumed: str | None
) -> None:
    assert presumed_primary(promise, placement, node_id="a", misled_by=misled_by) == presumed


class SlowDisk:
    """Writes of promises begin at once and end when they are let, in the order in which they are let."""

    def __init__(self, file: PromiseFile) -> None:
        self._keep = file.keep
        self.writes: list[tuple[Promise, threading.Event]] = []
        file.keep = self  # type: ignore[method-assign]  # the disk is what is slow here

    def __call__(self, promise: Promise) -> None:
        may_end = threading.Event()
        self.writes.append((promise, may_end))
        assert may_end.wait(10)
        self._keep(promise)


async def test_a_seal_that_is_given_up_holds_its_turn_until_its_write_has_ended(tmp_path: Path) -> None:
    """Else a late write of epoch 5 would follow an answer for epoch 6, which could then be given twice."""
    one = voter(tmp_path)
    disk = SlowDisk(one._file)
    given_up = asyncio.create_task(one.seal(request(5)))
    await until(lambda: disk.writes)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    again = asyncio.create_task(one.seal(request(6, "b")))
    adopted = asyncio.create_task(one.adopt(5, "a"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert [promise for promise, _ in disk.writes] == [Promise(5, "a")]
    disk.writes[0][1].set()
    await until(lambda: len(disk.writes) == 2)
    assert one.promise == Promise(5, "a")
    disk.writes[1][1].set()
    assert (await again).sealed
    await adopted
    assert one.promise == promise_file(tmp_path).promise == Promise(6, "b")
    assert not (await one.seal(request(6, "c"))).sealed


async def test_a_promise_whose_candidate_gave_up_counts_all_the_same(tmp_path: Path) -> None:
    one = voter(tmp_path)
    told: list[int] = []
    one.on_promised(lambda: told.append(one.promise.epoch))
    disk = SlowDisk(one._file)
    given_up = asyncio.create_task(one.seal(request(5)))
    await until(lambda: disk.writes)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    disk.writes[0][1].set()
    await until(lambda: told == [5])
    assert (one.floor, one.promise) == (5, Promise(5, "a"))


async def test_a_write_that_fails_after_its_candidate_gave_up_was_no_promise(tmp_path: Path) -> None:
    one = voter(tmp_path)
    (tmp_path / "promises").write_text("in the way")
    disk = SlowDisk(one._file)
    given_up = asyncio.create_task(one.seal(request(5)))
    await until(lambda: disk.writes)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    with capture_logs() as logs:
        disk.writes[0][1].set()
        await until(lambda: logs)
    assert logs[0]["event"] == "a promise could not be kept"
    assert (one.floor, one.promise) == (0, Promise())


def test_two_writes_of_one_promise_file_at_a_time_are_refused(tmp_path: Path) -> None:
    """They would share one unfinished file."""
    file = promise_file(tmp_path)
    with file._writing, pytest.raises(RuntimeError, match="is being written already"):
        file.keep(Promise(7, "b"))
    file.keep(Promise(7, "b"))
