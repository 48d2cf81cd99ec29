"""Benchmarks without a cluster: their load, their figures, their command lines."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent_core.database.build import open_for_writing
from agent_core.database.pages import PAGE_HASH_BYTES, page_hashes
from agent_core.database.schema import migrate, read_position
from agent_core.position import Position
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc.administration_pb2 import GroupStatus, StandbyStatus, StatusResponse
from ops.benchmarks.affinity import Cores
from ops.benchmarks.figures import Goal, judged, median_interval, over_runs, percentile
from ops.benchmarks.load import payloads, until
from ops.benchmarks.machine import Machine
from ops.benchmarks.network import Network, why_no_namespaces
from ops.benchmarks.node_metrics import parse
from ops.benchmarks.resync import AHEAD_BY, diverge
from ops.benchmarks.standby import STANDBY, is_caught_up, is_connected
from ops.cli.main import main

BENCHMARKS = ("append", "compare", "lag", "length", "catchup", "resync", "memory", "read", "failover")


def hashes_of(path: Path) -> list[bytes]:
    packed = page_hashes(path.read_bytes(), first=1)
    return [packed[start : start + PAGE_HASH_BYTES] for start in range(0, len(packed), PAGE_HASH_BYTES)]


def test_figures_over_runs_are_medians_beside_what_each_run_gave() -> None:
    runs = [{"rate": 10.4, "ratio": 1.0}, {"rate": 99.6, "ratio": 0.98765}, {"rate": 20.0, "ratio": 1.1}]
    assert over_runs(runs, {"rate": 0, "ratio": 3}) == {
        "runs": 3,
        "rate": 20,
        "rate_spread": [10, 100],
        "rate_all": [10, 100, 20],
        "ratio": 1.0,
        "ratio_spread": [0.988, 1.1],
        "ratio_all": [1.0, 0.988, 1.1],
    }


def test_a_goal_is_met_at_its_limit_and_missed_past_it() -> None:
    figures: dict[str, object] = {"list": {"p50_ms": 20.0, "p99_ms": 61.0}, "rate": 7500}
    outcomes = judged(figures, [Goal("list.p50_ms", 20), Goal("list.p99_ms", 60), Goal("rate", at_least=7500)])
    assert outcomes["list.p50_ms"] == {"at_most": 20, "measured": 20.0, "outcome": "met"}
    assert outcomes["list.p99_ms"] == {"at_most": 60, "measured": 61.0, "outcome": "missed"}
    assert outcomes["rate"] == {"at_least": 7500, "measured": 7500, "outcome": "met"}


def test_an_aim_lies_beyond_its_goal_on_the_same_side() -> None:
    goals = [Goal("low", at_most=2, aim=1), Goal("high", at_least=10, aim=20)]
    for figures, aims in (({"low": 1, "high": 20}, "met"), ({"low": 1.1, "high": 19}, "missed")):
        for judgement in judged(dict(figures), goals).values():
            assert isinstance(judgement, dict)
            assert (judgement["outcome"], judgement["aim_outcome"]) == ("met", aims)


@pytest.mark.parametrize(
    ("allowed", "sides"),
    [
        ({5}, ({5}, {5}, {5}, {5})),
        ({2, 7}, ({2}, {7}, {7}, {2})),
        ({0, 1, 2}, ({0}, {1}, {1}, {2})),
        ({0, 1, 2, 3, 4}, ({0}, {1}, {2}, {3, 4})),
    ],
)
def test_the_primary_never_shares_a_core_with_a_standby_that_is_read_from_where_there_are_two(
    monkeypatch: pytest.MonkeyPatch, allowed: set[int], sides: tuple[set[int], ...]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: allowed)
    cores = Cores.of_this_machine()
    assert [set(part) for part in (cores.primary, cores.standby, cores.readers, cores.rest)] == list(sides)
    assert cores.apart is (len(allowed) > 1)


def test_a_piece_of_work_is_timed_on_the_same_processors_before_and_after() -> None:
    allowed = os.sched_getaffinity(0)
    machine = Machine()
    try:
        os.sched_setaffinity(0, {min(allowed)})
        figures = machine.figures()
        assert os.sched_getaffinity(0) == {min(allowed)}, "what the benchmark chose stays"
    finally:
        os.sched_setaffinity(0, allowed)
    for times in (figures["work_ms_before"], figures["work_ms_after"]):
        assert isinstance(times, list)
        assert len(times) == len(allowed)
        assert min(times) > 0


@pytest.mark.parametrize(("share", "value"), [(0, 1), (0.5, 3), (0.99, 5), (1, 5)])
def test_a_percentile_is_a_measured_value_whatever_their_order(share: float, value: float) -> None:
    assert percentile([5, 1, 4, 2, 3], share) == value


@pytest.mark.parametrize("entry_bytes", [32, 500, 3800])
def test_payloads_are_json_of_the_size_asked_for_and_the_same_each_time(entry_bytes: int) -> None:
    texts = payloads(entry_bytes, count=8)
    assert texts == payloads(entry_bytes, count=8)
    for text in texts:
        assert set(json.loads(text)) == {"role", "content"}
        assert entry_bytes * 0.8 <= len(text) <= entry_bytes + 32


def test_samples_of_a_scrape_are_summed_over_their_labels_and_missing_ones_are_zero() -> None:
    totals = parse(
        "# TYPE headwater_resyncs counter\n"
        'headwater_resyncs_total{group="0"} 2.0\n'
        'headwater_resyncs_total{group="1"} 3.0\n'
        "# TYPE process_resident_memory_bytes gauge\n"
        "process_resident_memory_bytes 1.5e+08\n"
    )
    assert totals["headwater_resyncs_total"] == 5
    assert totals["process_resident_memory_bytes"] == 150_000_000
    assert totals["headwater_sessions_live"] == 0


async def test_waiting_for_a_condition_ends_with_it_or_with_its_deadline() -> None:
    answers = iter([False, False, True])

    async def third_time() -> bool:
        return next(answers)

    async def never() -> bool:
        await asyncio.sleep(0)
        return False

    await until(third_time, every_seconds=0.001, within_seconds=10)
    with pytest.raises(TimeoutError):
        await until(never, every_seconds=0.001, within_seconds=0.02)


def test_a_diverged_shard_differs_in_the_share_asked_for_and_claims_to_be_ahead(tmp_path: Path) -> None:
    path = tmp_path / "shard.db"
    connection = open_for_writing(path)
    migrate(connection, cluster_id="c", shard=0)
    connection.execute("UPDATE replication SET epoch=3, lsn=70")
    connection.execute("INSERT INTO sessions (id, session_id, created_at, folded_updated_at) VALUES (1, 's', 0, 0)")
    rows = [(seq, "x" * 3800) for seq in range(1, 301)]
    connection.executemany(
        "INSERT INTO entries (session, seq, kind, created_at, payload) VALUES (1, ?, 'message', 0, ?)", rows
    )
    connection.close()
    before = hashes_of(path)

    assert diverge(path, 0.01) == 3 + 1

    after = hashes_of(path)
    assert len(after) == len(before)
    assert sum(ours != theirs for ours, theirs in zip(before, after, strict=True)) == 3 + 1
    connection = open_for_writing(path)
    assert read_position(connection) == Position(3, 70 + AHEAD_BY)
    connection.close()


@pytest.mark.parametrize(
    ("connected", "applied_lsn", "expected"),
    [(True, 9, (True, True)), (True, 8, (True, False)), (False, 9, (False, False))],
)
def test_a_standby_has_caught_up_when_it_is_connected_and_holds_the_primarys_log_in_every_group(
    connected: bool, applied_lsn: int, expected: tuple[bool, bool]
) -> None:
    def group(*, connected: bool, applied_lsn: int) -> GroupStatus:
        return GroupStatus(
            durable=pb.Position(epoch=1, lsn=9),
            standbys=[
                StandbyStatus(node_id="node-2"),
                StandbyStatus(node_id=STANDBY, connected=connected, applied_lsn=applied_lsn),
            ],
        )

    status = StatusResponse(
        groups=[group(connected=True, applied_lsn=9), group(connected=connected, applied_lsn=applied_lsn)]
    )
    assert (is_connected(status), is_caught_up(status)) == expected


def test_it_is_said_what_is_missing_where_no_network_can_be_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert why_no_namespaces() == "unshare is not installed"


def test_no_network_is_made_outside_namespaces_of_its_own() -> None:
    with pytest.raises(RuntimeError, match="enter_namespaces"):
        Network(("node-1",))


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_says_what_it_measures_and_offers_json(benchmark: str) -> None:
    shown = CliRunner().invoke(main, ["bench", benchmark, "--help"])
    assert shown.exit_code == 0
    assert "--json" in shown.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["append", "--groups", "0"],
        ["append", "--groups", "1,,2"],
        ["compare", "--before", "/not/there"],
        ["append", "--writers", "0"],
        ["length", "--long", "0"],
        ["catchup", "--megabytes", "0"],
        ["resync", "--differing", "1.5"],
        ["memory", "--sessions", "0"],
        ["lag", "--rate", "0"],
    ],
)
def test_a_benchmark_of_nothing_is_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["bench", *arguments]).exit_code == 2


@pytest.mark.parametrize(
    ("count", "interval"), [(1, (0, 0)), (5, (0, 4)), (6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (20, (5, 14))]
)
def test_the_interval_of_a_median_leaves_out_what_the_sign_test_does(count: int, interval: tuple[int, int]) -> None:
    assert median_interval(range(count)) == interval
