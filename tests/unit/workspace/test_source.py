"""One source keeps a workspace; whoever takes it over fences the former one off."""

from __future__ import annotations

import pytest

from agent_core.workspace.source import Claim, Keeper, is_admitted, keeper_after
from primary.workspace.source_table import Hold, hold
from tests.unit.workspace.index import Index

A, B = "a" * 32, "b" * 32
KEPT_BY_A = Keeper(A, "laptop:/notes", 3, 1000)


@pytest.mark.parametrize(
    ("keeper", "claim", "admitted"),
    [
        (None, None, True),
        (None, Claim(A, ""), True),
        (None, Claim(A, "", epoch=7), True),
        (KEPT_BY_A, None, False),
        (KEPT_BY_A, Claim(A, ""), True),
        (KEPT_BY_A, Claim(A, "elsewhere now"), True),
        (KEPT_BY_A, Claim(A, "", epoch=3), True),
        (KEPT_BY_A, Claim(A, "", epoch=2), False),
        (KEPT_BY_A, Claim(A, "", epoch=2, take_over=True), False),
        (KEPT_BY_A, Claim(B, ""), False),
        (KEPT_BY_A, Claim(B, "", epoch=3), False),
        (KEPT_BY_A, Claim(B, "", take_over=True), True),
    ],
)
def test_changes_are_those_of_the_keeper_in_its_epoch_or_of_who_takes_over(
    keeper: Keeper | None, claim: Claim | None, admitted: bool
) -> None:
    assert is_admitted(keeper, claim) is admitted


@pytest.mark.parametrize(
    ("keeper", "claim", "epoch"),
    [
        (None, Claim(A, ""), 1),
        (None, Claim(A, "", epoch=(1 << 64) - 1), 1),
        (KEPT_BY_A, Claim(A, "", epoch=3), 3),
        (KEPT_BY_A, Claim(A, ""), 3),
        (KEPT_BY_A, Claim(A, "", take_over=True), 3),
        (KEPT_BY_A, Claim(B, "", take_over=True), 4),
    ],
)
def test_only_another_source_raises_the_epoch(keeper: Keeper | None, claim: Claim, epoch: int) -> None:
    assert keeper_after(keeper, claim, 2000) == Keeper(claim.source, claim.label, epoch, 2000)


def test_the_table_remembers_the_keeper_of_each_workspace() -> None:
    index = Index()
    assert hold(index.connection, "w", None, 1) == Hold(True, None)
    assert hold(index.connection, "w", Claim(A, "here"), 2) == Hold(True, Keeper(A, "here", 1, 2))
    assert hold(index.connection, "w", Claim(B, "there"), 3) == Hold(False, Keeper(A, "here", 1, 2))
    assert hold(index.connection, "other", Claim(B, "there"), 4) == Hold(True, Keeper(B, "there", 1, 4))
    assert hold(index.connection, "w", Claim(B, "there", take_over=True), 5) == Hold(True, Keeper(B, "there", 2, 5))
    assert hold(index.connection, "w", Claim(A, "here", epoch=1), 6) == Hold(False, Keeper(B, "there", 2, 5))
    index.close()


def test_a_change_of_a_former_time_is_refused_also_when_its_source_is_back() -> None:
    index = Index()
    for source, take_over in ((A, False), (B, True), (A, True)):
        assert hold(index.connection, "w", Claim(source, "", take_over=take_over), 1).is_admitted
    late = Claim(A, "", epoch=1)
    assert not hold(index.connection, "w", late, 1).is_admitted
    index.close()
