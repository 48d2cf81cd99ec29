"""A tiny run of each benchmark on real processes: it ends, and reports what it says it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ops import GRPC_SETTINGS

HEADWATER = (sys.executable, "-m", "ops.cli.main")


def run(*arguments: str) -> dict[str, Any]:
    """The figures of one benchmark; the command prints nothing else on standard output, and them on one line."""
    done = subprocess.run(
        [*HEADWATER, "bench", *arguments, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stderr, "it says what it does"
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["benchmark"] == arguments[0]
    assert len(figures["machine"]["work_ms_before"]) == len(figures["machine"]["work_ms_after"]) > 0
    return figures


def test_appends_are_measured_with_the_groups_asked_for() -> None:
    figures = run("append", "--writers", "4", "--seconds", "0.5", "--runs", "2", "--groups", "2")
    assert (figures["writers"], figures["groups"], figures["runs"]) == (4, 2, 2)
    assert len(figures["appends_per_second_all"]) == 2
    assert figures["appends_per_second"] > 0
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert figures["goals"] == {}


@pytest.mark.parametrize(("writers", "figure"), [("64", "appends_per_second"), ("1", "p50_ms")])
def test_appends_of_the_loads_that_have_goals_are_judged(writers: str, figure: str) -> None:
    figures = run("append", "--writers", writers, "--seconds", "0.5", "--runs", "1")
    assert set(figures["goals"]) == {figure}


def test_several_counts_of_groups_are_measured_one_after_another() -> None:
    figures = run("append", "--writers", "4", "--seconds", "0.5", "--runs", "1", "--groups", "1,2")
    assert [figures[f"groups_{count}"]["groups"] for count in (1, 2)] == [1, 2]


def test_two_builds_are_compared_in_turns() -> None:
    here = str(Path(__file__).parents[2])
    figures = run("compare", "--before", here, "--writers", "4", "--seconds", "0.5", "--runs", "2")
    assert len(figures["ratio_all"]) == 2
    assert figures["appends_per_second_before"] > 0
    assert set(figures["goals"]) == {"ratio"}


def test_another_build_has_what_it_sets_for_grpc_itself(tmp_path: Path) -> None:
    program = tmp_path / "ops" / "cli" / "main.py"
    program.parent.mkdir(parents=True)
    program.write_text(
        "import json, os\n"
        f"rate = sum(name in os.environ for name in {list(GRPC_SETTINGS)}) + 1\n"
        "print(json.dumps({'appends_per_second': rate, 'p50_ms': 1}))\n"
    )
    figures = run("compare", "--before", str(tmp_path), "--writers", "4", "--seconds", "0.5", "--runs", "1")
    assert figures["appends_per_second_before"] == 1


def test_lag_is_measured() -> None:
    figures = run("lag", "--rate", "100", "--seconds", "1", "--runs", "2")
    assert figures["samples_all"] == [10, 10]
    assert set(figures["goals"]) == {"visible_p99_ms"}
    assert 0 < figures["visible_p50_ms"] <= figures["visible_p99_ms"]
    assert 0 < figures["append_p50_ms"] <= figures["append_p99_ms"]


def test_long_and_short_transcripts_are_compared() -> None:
    figures = run("length", "--short", "2", "--long", "30", "--pairs", "20", "--runs", "1")
    assert (figures["short_entries"], figures["long_entries"]) == (2, 30)
    assert figures["ratio"] == pytest.approx(figures["long_p50_ms"] / figures["short_p50_ms"], rel=0.01)


def test_a_standby_catches_up_with_all_that_was_written_meanwhile() -> None:
    figures = run("catchup", "--megabytes", "10", "--writers", "8", "--runs", "1")
    assert figures["pages_mb"] >= 10
    assert figures["pages_mb_per_second"] == pytest.approx(figures["pages_mb"] / figures["seconds"], rel=0.1)


def test_a_resync_sends_little_more_than_what_differs_and_makes_the_shards_identical() -> None:
    figures = run("resync", "--megabytes", "4", "--differing", "0.05", "--runs", "2")
    assert figures["identical"] is True
    assert 0.03 < figures["differing_share"] < 0.07
    assert figures["pages_sent_mb"] > 0
    # Pages and the hashes of all pages, which are 16 bytes for 4096.
    assert 16 / 4096 < figures["sent_share"] < figures["differing_share"] + 0.01


def test_memory_is_measured_beside_the_registrys_estimate() -> None:
    figures = run("memory", "--sessions", "20", "--session-bytes", "50000", "--runs", "2")
    assert (figures["sessions"], figures["session_bytes"], figures["runs"]) == (20, 50_000, 2)
    assert 1 <= figures["estimate_mb"] < 2
    assert figures["empty_resident_mb"] > 20


def test_the_gap_in_acknowledged_appends_is_measured_for_each_way_of_losing_a_primary() -> None:
    figures = run("failover", "--runs", "1", "--writers", "2", "--idle-seconds", "1")
    for idle in ("idle", "idle_16_groups"):
        assert 0 < figures[idle]["cpu_share_worst"] == max(figures[idle]["cpu_share_by_node"].values())
    for name in ("killed", "killed_with_raft_leader", "frozen", "partitioned"):
        assert 0 < figures[f"{name}_seconds"] == figures[f"{name}_seconds_worst"] <= 15
        assert figures[f"{name}_errors"] == 0
    assert figures["switchover_errors"] == 0
    assert figures["switchover_longest_append_seconds"] > 0
    assert {judged["outcome"] for judged in figures["goals"].values()} <= {"met", "missed"}


def test_a_standby_is_read_from_on_real_nodes_and_every_goal_is_judged() -> None:
    figures = run(
        "read", "--sessions", "2000", "--entries", "10000", "--requests", "10",
        "--seconds", "0.5", "--rounds", "1", "--queries", "2",
    )  # fmt: skip
    assert (figures["sessions"], figures["entries"], figures["shards"]) == (2000, 10_000, 16)
    assert 0 < figures["session_list"]["worst_p50_ms"] <= figures["session_list"]["worst_p99_ms"]
    assert figures["transcript"]["entries"] == 500
    assert figures["aggregate"]["sqlite_seconds"] > 0
    assert figures["aggregate"]["sqlite_written_for_it_seconds"] > 0
    assert figures["appends_beside_reads"]["appends_per_second_alone"] > 0
    beside = figures["appends_beside_queries"]
    assert set(beside["ratio"]) == set(beside["ratio_spread"]) == set(beside["with"])
    assert {judged["outcome"] for judged in figures["goals"].values()} <= {"met", "missed"}
