import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent_core.backoff import Backoff
from agent_core.errors import Unavailable
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import to_message
from primary.opening import Ask, EpochOpening, LongerLog, Opened, Vote, Wait, open_epoch

HERE = Position(3, 40)
VOTERS = frozenset("abc")


def opening(promised_epoch: int = 3) -> EpochOpening:
    return EpochOpening(voters=VOTERS, last=HERE, promised_epoch=promised_epoch)


def sealed(epoch: int) -> Vote:
    return Vote(True, epoch, HERE)


def test_it_begins_one_above_every_epoch_that_it_knows() -> None:
    assert opening(promised_epoch=1).next_step() == Ask(4, VOTERS)
    assert opening(promised_epoch=8).next_step() == Ask(9, VOTERS)


def test_a_majority_opens_the_epoch() -> None:
    one = opening()
    one.next_step()
    one.answer("a", 4, sealed(4))
    assert one.next_step() == Wait(frozenset("bc"))
    one.answer("c", 4, sealed(4))
    assert one.next_step() == Opened(4)


def test_one_voter_alone_is_a_majority_of_one() -> None:
    one = EpochOpening(voters="a", last=HERE, promised_epoch=3)
    one.next_step()
    one.answer("a", 4, sealed(4))
    assert one.next_step() == Opened(4)


def test_a_voter_that_answers_twice_counts_once() -> None:
    one = opening()
    one.next_step()
    one.answer("a", 4, sealed(4))
    one.answer("a", 4, sealed(4))
    assert isinstance(one.next_step(), Wait)


def test_whoever_is_no_voter_does_not_count() -> None:
    one = opening()
    one.next_step()
    one.answer("a", 4, sealed(4))
    one.answer("reader", 4, sealed(4))
    assert isinstance(one.next_step(), Wait)


def test_a_higher_promise_makes_it_ask_everyone_for_one_above_that() -> None:
    one = opening()
    one.next_step()
    one.answer("a", 4, sealed(4))
    one.answer("b", 4, Vote(False, 6, HERE))
    assert one.next_step() == Ask(7, VOTERS)
    one.answer("c", 4, sealed(4))
    one.answer("a", 7, sealed(7))
    assert one.next_step() == Wait(frozenset("bc"))


def test_a_longer_log_at_one_voter_does_not_matter_while_a_majority_is_to_be_had() -> None:
    one = opening()
    one.next_step()
    one.answer("b", 4, Vote(False, 3, Position(3, 41)))
    assert one.next_step() == Wait(frozenset("ac"))
    one.answer("a", 4, sealed(4))
    one.answer("c", 4, sealed(4))
    assert one.next_step() == Opened(4)


def test_longer_logs_at_a_majority_end_it_and_the_longest_is_named() -> None:
    one = opening()
    one.next_step()
    one.answer("b", 4, Vote(False, 3, Position(3, 50)))
    one.answer("c", 4, Vote(False, 3, Position(3, 45)))
    assert one.next_step() == LongerLog("b", Position(3, 50))


def test_a_voter_that_lost_its_longer_log_is_named_only_when_no_other_log_goes_further() -> None:
    one = opening()
    one.next_step()
    one.answer("b", 4, Vote(False, 3, Position(3, 50), lost=True))
    one.answer("c", 4, Vote(False, 3, Position(3, 45)))
    assert one.next_step() == LongerLog("c", Position(3, 45))
    one.answer("c", 4, Vote(False, 3, Position(3, 45), lost=True))
    assert one.next_step() == LongerLog("b", Position(3, 50), lost=True)


def test_a_candidate_that_lost_its_end_leads_by_the_votes_of_a_majority_of_others() -> None:
    one = opening()
    one.next_step()
    one.answer("a", 4, Vote(False, 3, Position(3, 41), lost=True))
    one.answer("b", 4, sealed(4))
    assert one.next_step() == Wait(frozenset("c"))
    one.answer("c", 4, sealed(4))
    assert one.next_step() == Opened(4)


@given(st.data())
def test_what_it_opens_was_sealed_by_a_majority_for_that_very_epoch(data: st.DataObject) -> None:
    one = opening()
    given_for: dict[int, set[str]] = {}
    for _ in range(data.draw(st.integers(0, 25))):
        step = one.next_step()
        if isinstance(step, Opened):
            assert len(given_for[step.epoch]) >= 2
            return
        if isinstance(step, LongerLog):
            return
        voter = data.draw(st.sampled_from("abc"))
        epoch = data.draw(st.integers(max(1, one.epoch - 2), one.epoch))
        if data.draw(st.booleans()):
            given_for.setdefault(epoch, set()).add(voter)
            one.answer(voter, epoch, sealed(epoch))
        else:
            one.answer(voter, epoch, Vote(False, data.draw(st.integers(0, one.epoch + 2)), HERE))


class Voters:
    """Answers as voters would, as far as they are up."""

    def __init__(self, **promised: int) -> None:
        self.promised = promised
        self.down: set[str] = set()
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, voter: str, request: pb.SealRequest) -> pb.SealResponse:
        self.asked.append((voter, request.epoch))
        if voter in self.down:
            raise Unavailable("no answer")
        agrees = request.epoch > self.promised[voter]
        self.promised[voter] = max(self.promised[voter], request.epoch)
        return pb.SealResponse(
            sealed=agrees, promised_epoch=self.promised[voter], last=to_message(HERE), voter=voter
        )


async def open_with(voters: Voters, **options: object) -> Opened | LongerLog:
    return await open_epoch(
        opening(),
        voters,
        cluster_id="c",
        group=0,
        candidate="a",
        backoff=Backoff(first_seconds=0.001, longest_seconds=0.001),
        **options,  # type: ignore[arg-type]  # on_waiting, where a test listens
    )


async def test_opening_asks_every_voter_once_when_all_is_well() -> None:
    voters = Voters(a=3, b=3, c=3)
    assert await open_with(voters) == Opened(4)
    assert sorted(voters.asked) == [("a", 4), ("b", 4), ("c", 4)]


async def test_opening_goes_above_a_promise_that_only_a_minority_gave() -> None:
    assert await open_with(Voters(a=3, b=3, c=9)) == Opened(10)


async def test_opening_works_with_a_majority_of_the_voters() -> None:
    voters = Voters(a=3, b=3, c=3)
    voters.down = {"c"}
    assert await open_with(voters) == Opened(4)


async def test_opening_waits_for_a_majority_and_says_for_whom() -> None:
    voters = Voters(a=3, b=3, c=3)
    voters.down = {"b", "c"}
    reasons: list[str] = []

    def heal(reason: str) -> None:
        reasons.append(reason)
        if len(reasons) == 3:
            voters.down = set()

    assert await open_with(voters, on_waiting=heal) == Opened(4)
    assert reasons[0] == "epoch 4 of group 0 waits for a seal of b, c"


async def test_a_voter_that_hangs_does_not_hold_up_a_majority(tmp_path: Path) -> None:
    voters = Voters(a=3, b=3, c=3)

    async def ask(voter: str, request: pb.SealRequest) -> pb.SealResponse:
        if voter == "c":
            await asyncio.Event().wait()
        return await voters(voter, request)

    async with asyncio.timeout(5):
        outcome = await open_epoch(opening(), ask, cluster_id="c", group=0, candidate="a")
    assert outcome == Opened(4)
