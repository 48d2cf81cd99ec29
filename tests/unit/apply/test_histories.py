"""Any history of a primary, applied in any portions, ends in identical files."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.apply.harness import assert_identical, open_standby
from tests.unit.shard_histories import History, pages_of

STEPS = st.one_of(
    st.tuples(st.just("fill"), st.integers(1, 40)),
    st.tuples(st.just("update"), st.integers(1, 40)),
    st.tuples(st.just("delete"), st.integers(2, 5)),
    st.tuples(st.just("vacuum"), st.just(0)),
    st.tuples(st.just("schema"), st.just(0)),
    st.tuples(st.just("drop"), st.just(0)),
    st.tuples(st.just("grow and free"), st.integers(1, 60)),
    st.tuples(st.just("spill and roll back"), st.integers(20, 60)),
    st.tuples(st.just("checkpoint primary"), st.just(0)),
    st.tuples(st.just("checkpoint standby"), st.just(0)),
    st.tuples(st.just("apply"), st.just(0)),
    st.tuples(st.just("reopen"), st.just(0)),
)


def take_step(history: History, step: str, size: int) -> None:
    if step == "fill":
        history.fill(size)
    elif step == "update":
        history.commit(f"UPDATE filling SET body = zeroblob({size * 100}) WHERE id % 7 = 0")
    elif step == "delete":
        history.commit(f"DELETE FROM filling WHERE id % {size} = 0")
    elif step == "vacuum":
        history.vacuum()
    elif step == "schema":
        name = f"t{len(history.records)}"
        history.commit(f"CREATE TABLE {name} (a, b)", f"CREATE INDEX {name}_a ON {name} (a)")
    elif step == "drop":
        history.commit("DROP TABLE filling", "CREATE TABLE filling (id INTEGER PRIMARY KEY, body BLOB)")
    elif step == "grow and free":
        history.commit(
            "CREATE TABLE passing (body)",
            lambda c: c.executemany("INSERT INTO passing VALUES (zeroblob(?))", [(9000,)] * size),
            "DROP TABLE passing",
        )
    elif step == "spill and roll back":
        history.connection.execute("PRAGMA cache_size=10")
        history.connection.execute("BEGIN IMMEDIATE")
        history.connection.executemany("INSERT INTO filling (body) VALUES (zeroblob(?))", [(4000,)] * size)
        history.connection.execute("ROLLBACK")
    elif step == "checkpoint primary":
        history.checkpoint()


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=25))
def test_any_history_applied_in_any_portions_ends_in_identical_files(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    directory = tmp_path_factory.mktemp("history")
    history = History(directory / "primary.db")
    history.fill(5)
    standby = open_standby(directory / "standby.db")
    for step, size in [*steps, ("apply", 0)]:
        take_step(history, step, size)
        if step == "apply":
            standby.apply(history.records)
            assert pages_of(standby.path) == pages_of(history.path)
        elif step == "checkpoint standby":
            standby.checkpoint()
        elif step == "reopen":
            standby.close()
            standby.reopen()
    assert_identical(standby, history)
    standby.close()
    history.close()
