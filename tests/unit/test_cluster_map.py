"""The cluster's map, the commands that change it, and the machine that runs them."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.control import cluster_map as maps
from agent_core.control import commands, machine
from agent_core.control.cluster_map import EMPTY, ClusterMap, Member, Placement
from agent_core.control.commands import Command, Form, RecordPrimary, SetDraining
from agent_core.control.machine import Applied, Refused
from agent_core.errors import InvalidRequest

MEMBERS = (
    *(Member(f"node-{n}", f"h{n}:7101", f"h{n}:7201", voter=True, raft_address=f"h{n}:7301") for n in (1, 2, 3)),
    Member("reader", "h4:7101", "h4:7201", voter=False, raft_address=None),
)
FORM = Form("example", shard_count=8, members=MEMBERS, shard_group_count=2)

names = st.sampled_from(["node-1", "node-2", "node-3", "reader", "node 1", "", "stranger"])
addresses = st.sampled_from(["h1:7101", "h1:7301", "h2:7101", "h9:1", "[::1]:5", "0.0.0.0:1", "nonsense"])
numbers = st.one_of(st.integers(-2, 5), st.integers())
members = st.builds(Member, names, addresses, addresses, st.booleans(), st.none() | addresses, st.booleans())
forms = st.one_of(
    st.just(FORM),
    st.builds(Form, names, numbers, st.lists(members, max_size=4).map(tuple), numbers),
    st.builds(replace, st.just(FORM), members=st.permutations(MEMBERS).map(tuple)),
)
records = st.builds(RecordPrimary, numbers, numbers, numbers, names)
any_command: st.SearchStrategy[Command] = st.one_of(forms, records, st.builds(SetDraining, names, st.booleans()))


def formed(form: Form = FORM) -> ClusterMap:
    outcome = machine.apply(EMPTY, form)
    assert isinstance(outcome, Applied)
    return outcome.cluster_map


def applied(cluster_map: ClusterMap, command: Command) -> ClusterMap:
    outcome = machine.apply(cluster_map, command)
    assert isinstance(outcome, Applied), outcome
    return outcome.cluster_map


def refusal(cluster_map: ClusterMap, command: Command) -> str:
    outcome = machine.apply(cluster_map, command)
    assert isinstance(outcome, Refused), outcome
    return outcome.reason


def with_member(index: int, **changes: object) -> Form:
    changed = replace(MEMBERS[index], **changes)  # type: ignore[arg-type] # the test names real fields
    return replace(FORM, members=(*MEMBERS[:index], changed, *MEMBERS[index + 1 :]))


def test_forming_makes_version_one_with_unplaced_groups() -> None:
    cluster_map = formed()
    assert cluster_map.version == 1
    assert cluster_map.placements == (Placement(), Placement())
    assert cluster_map.voters() == ("node-1", "node-2", "node-3")
    assert cluster_map.member("reader") == MEMBERS[3]
    with pytest.raises(KeyError, match="no node 'stranger'; the cluster has node-1"):
        cluster_map.member("stranger")


def test_forming_again_with_the_same_configuration_changes_nothing() -> None:
    cluster_map = formed()
    assert applied(cluster_map, FORM) is cluster_map
    assert applied(cluster_map, replace(FORM, members=MEMBERS[::-1])) is cluster_map


def test_forming_again_takes_over_new_addresses_and_leaves_the_rest() -> None:
    before = applied(applied(formed(), RecordPrimary(0, 0, 1, "node-1")), SetDraining("node-2", True))
    after = applied(before, with_member(1, grpc_address="elsewhere:7101", raft_address="elsewhere:7301"))
    assert after.version == before.version + 1
    assert after.placements == before.placements
    assert after.member("node-2") == replace(
        MEMBERS[1], grpc_address="elsewhere:7101", raft_address="elsewhere:7301", draining=True
    )


@pytest.mark.parametrize(
    ("form", "named"),
    [
        (replace(FORM, cluster_id="other"), "cluster_id is 'example' in the cluster and 'other'"),
        (replace(FORM, shard_count=16), "shard_count is 8 in the cluster and 16"),
        (replace(FORM, shard_group_count=4), "shard_group_count is 2 in the cluster and 4"),
        (replace(FORM, members=MEMBERS[:3]), "the nodes are node-1, node-2, node-3, reader in the cluster"),
        (with_member(2, voter=False), "the voters are node-1, node-2, node-3 in the cluster and node-1, node-2 in"),
        (with_member(3, raft_address="h4:7301"), "the Raft members are node-1, node-2, node-3 in the cluster"),
    ],
)
def test_a_configuration_that_differs_in_what_is_fixed_is_refused_with_the_difference(
    form: Form, named: str
) -> None:
    assert named in refusal(formed(), form)


@pytest.mark.parametrize(
    ("form", "named"),
    [
        (replace(FORM, cluster_id="no name"), "cluster_id is 'no name'"),
        (replace(FORM, shard_group_count=9), "there are 9 groups; allowed are 1 to shard_count (8)"),
        (replace(FORM, shard_count=10**30, shard_group_count=10**30), "shard_count is 10000"),
        (with_member(0, node_id="node-2"), "the member 'node-2' is there 2 times"),
        (with_member(0, http_address="h1:7101"), "the address 'h1:7101' is there 2 times"),
        (with_member(0, raft_address=None), "there are 2 Raft members; allowed are 1, 3 or 5"),
        (with_member(0, grpc_address="0.0.0.0:1"), "member node-1 has the address '0.0.0.0:1'"),
        (replace(FORM, members=MEMBERS[3:]), "there are 0 voters"),
    ],
)
def test_a_configuration_that_makes_no_cluster_is_refused(form: Form, named: str) -> None:
    assert named in refusal(EMPTY, form)


def test_a_primary_is_recorded_by_compare_and_set_on_the_epoch() -> None:
    first = applied(formed(), RecordPrimary(1, 0, 3, "node-2"))
    assert first.placements == (Placement(), Placement(3, "node-2"))
    assert first.led_by("node-2") == (1,)
    assert "is in epoch 3, not in 0" in refusal(first, RecordPrimary(1, 0, 4, "node-1"))
    assert applied(first, RecordPrimary(1, 3, 4, "node-1")).led_by("node-2") == ()


def test_recording_what_is_recorded_already_is_no_change_whatever_was_expected() -> None:
    first = applied(formed(), RecordPrimary(0, 0, 2, "node-1"))
    assert applied(first, RecordPrimary(0, 0, 2, "node-1")) is first
    assert "is in epoch 2, not in 0" in refusal(first, RecordPrimary(0, 0, 2, "node-2"))


def test_only_voters_lead_and_only_groups_that_are_there() -> None:
    assert "primary is 'reader'; allowed are the voters" in refusal(formed(), RecordPrimary(0, 0, 1, "reader"))
    assert "group is 2; allowed are 0 to 1" in refusal(formed(), RecordPrimary(2, 0, 1, "node-1"))
    assert "epoch is 0; allowed are those past" in refusal(formed(), RecordPrimary(0, 0, 0, "node-1"))


def test_nothing_but_forming_is_done_before_the_cluster_is_formed() -> None:
    assert "not formed yet" in refusal(EMPTY, RecordPrimary(0, 0, 1, "node-1"))
    assert "not formed yet" in refusal(EMPTY, SetDraining("node-1", True))


def test_draining_is_set_and_taken_back() -> None:
    draining = applied(formed(), SetDraining("node-3", True))
    assert [member.draining for member in draining.members] == [False, False, True, False]
    assert applied(draining, SetDraining("node-3", True)) is draining
    assert applied(draining, SetDraining("node-3", False)) == replace(formed(), version=3)
    assert "node_id is 'stranger'; allowed are node-1" in refusal(formed(), SetDraining("stranger", True))


@given(st.lists(any_command, max_size=12))
def test_whatever_is_asked_maps_stay_valid_versions_rise_by_one_and_epochs_only_rise(asked: list[Command]) -> None:
    cluster_map = EMPTY
    for command in asked:
        outcome = machine.apply(cluster_map, command)
        assert outcome == machine.apply(cluster_map, command)
        if isinstance(outcome, Refused):
            assert outcome.reason
            continue
        after = outcome.cluster_map
        assert not list(after.problems())
        assert maps.from_json(maps.to_json(after)) == after
        if after is not cluster_map:
            assert after.version == cluster_map.version + 1
        if cluster_map.formed:
            assert len(after.placements) == len(cluster_map.placements)
            assert all(
                now == before or now.epoch > before.epoch
                for before, now in zip(cluster_map.placements, after.placements, strict=True)
            )
            assert after.voters() == cluster_map.voters()
        cluster_map = after


@given(
    st.lists(st.one_of(records, st.builds(SetDraining, names, st.booleans())), max_size=12),
)
def test_of_two_that_expect_one_epoch_the_first_wins(asked: list[Command]) -> None:
    cluster_map = formed()
    for command in asked:
        outcome = machine.apply(cluster_map, command)
        if isinstance(outcome, Applied) and isinstance(command, RecordPrimary):
            rival = replace(command, primary=next(v for v in cluster_map.voters() if v != command.primary))
            assert isinstance(machine.apply(outcome.cluster_map, rival), Refused)
        if isinstance(outcome, Applied):
            cluster_map = outcome.cluster_map


@given(
    st.one_of(
        st.just(FORM),
        st.builds(RecordPrimary, st.integers(0, 127), st.integers(0, 9), st.integers(0, 2**63 - 1), names),
        st.builds(SetDraining, names, st.booleans()),
    )
)
def test_a_command_reads_back_as_it_was(command: Command) -> None:
    assert commands.from_json(commands.to_json(command)) == command


foreign = st.one_of(
    st.text(),
    st.just("[" * 10_000),
    st.just('"' + "x" * maps.MAX_JSON_BYTES),
    st.dictionaries(
        st.sampled_from(["form", "record_primary", "set_draining", "version", "members", "retire"]),
        st.none() | st.integers(-1, 3) | st.dictionaries(st.sampled_from(["node_id", "draining"]), st.text()),
    ).map(lambda value: orjson.dumps(value).decode()),
)


@given(foreign)
def test_what_is_no_command_is_refused_and_never_raises(text: str) -> None:
    assert isinstance(machine.apply_json(formed(), text), Refused)
    with pytest.raises(InvalidRequest):
        maps.from_json(text)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 0}, "a map that is not formed is empty"),
        ({"version": -1}, "version: Input should be greater"),
        ({"version": "1"}, "version: Input should be a valid integer"),
        ({"placements": [{"epoch": 1, "primary": "reader"}]}, "group 0 is led by 'reader'"),
        ({"placements": [{"epoch": 1, "primary": None}]}, "group 0 has epoch 1 and primary None"),
        ({"placements": [{"epoch": 2**63, "primary": "node-1"}]}, "placements.0.epoch"),
        ({"members": []}, "there are 0 voters"),
        ({"seals": []}, "seals: Unexpected"),
    ],
)
def test_a_map_from_outside_that_cannot_be_is_refused(change: dict[str, object], named: str) -> None:
    text = orjson.dumps(orjson.loads(maps.to_json(formed())) | change).decode()
    with pytest.raises(InvalidRequest, match=named):
        maps.from_json(text)
