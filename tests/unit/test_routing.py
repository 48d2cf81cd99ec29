"""Which shard holds a session may never change."""

from __future__ import annotations

import pytest

from agent_core.errors import InvalidRequest
from agent_core.routing import ShardLayout, check_session_id

GOLDEN = {
    "a": (7, 15, 31),
    "session-1": (5, 5, 5),
    "0b5cf7f2-4a0e-4d3c-9a55-6d1f1f0f7a11": (0, 8, 24),
    "swe-agent-marshmallow-1867": (4, 12, 28),
}


@pytest.mark.parametrize("session_id", GOLDEN)
def test_a_session_stays_in_its_shard_for_ever(session_id: str) -> None:
    shards = tuple(ShardLayout(shard_count=count).shard_of(session_id) for count in (8, 16, 128))
    assert shards == GOLDEN[session_id]


GOLDEN_GROUPS = {
    (8, 1): [0, 0, 0, 0, 0, 0, 0, 0, 0],
    (8, 3): [0, 1, 2, 0, 1, 2, 0, 1, 0],
    (8, 8): [0, 1, 2, 3, 4, 5, 6, 7, 0],
    (16, 4): [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0],
    (16, 5): [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0],
}
"""The group of each shard, the workspace shard at the end, by the counts of shards and of groups."""

GOLDEN_FILES = {
    8: {0: "shard-000.db", 7: "shard-007.db", 8: "workspace.db"},
    16: {0: "shard-000.db", 8: "shard-008.db", 15: "shard-015.db", 16: "workspace.db"},
    128: {9: "shard-009.db", 99: "shard-099.db", 127: "shard-127.db", 128: "workspace.db"},
}
"""The files of shards, by the count of shards."""


@pytest.mark.parametrize("counts", GOLDEN_GROUPS)
def test_a_shard_stays_in_its_group_for_ever(counts: tuple[int, int]) -> None:
    layout = ShardLayout(*counts)
    assert [layout.group_of(shard) for shard in range(counts[0] + 1)] == GOLDEN_GROUPS[counts]


@pytest.mark.parametrize("shard_count", GOLDEN_FILES)
def test_a_shard_stays_in_its_file_for_ever(shard_count: int) -> None:
    layout = ShardLayout(shard_count=shard_count)
    assert {shard: layout.shard_file_name(shard) for shard in GOLDEN_FILES[shard_count]} == GOLDEN_FILES[
        shard_count
    ]


@pytest.mark.parametrize("shard_count", [1, 8, 16, 128])
def test_the_workspace_shard_is_the_one_behind_the_last_session_shard(shard_count: int) -> None:
    assert ShardLayout(shard_count=shard_count).workspace_shard == shard_count


@pytest.mark.parametrize("groups", [1, 3, 16])
def test_every_shard_belongs_to_exactly_one_group(groups: int) -> None:
    layout = ShardLayout(shard_count=16, shard_group_count=groups)
    shards = [shard for group in range(groups) for shard in layout.shards_of(group)]
    assert sorted(shards) == list(range(17))


@pytest.mark.parametrize(("shards", "groups"), [(0, 1), (129, 1), (8, 9), (8, 0)])
def test_an_impossible_layout_names_the_key_and_what_is_allowed(shards: int, groups: int) -> None:
    with pytest.raises(ValueError, match=r"shard_(group_)?count is \d+; allowed are 1 to"):
        ShardLayout(shard_count=shards, shard_group_count=groups)


@pytest.mark.parametrize("session_id", ["", "-a", "a/b", "a b", "é", "a" * 129, "a\0", "../a"])
def test_a_hostile_session_id_is_refused(session_id: str) -> None:
    with pytest.raises(InvalidRequest, match="session_id"):
        check_session_id(session_id)
