"""Prometheus' own tool judges configuration and rules, and their expressions ask for what nodes export."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

from agent_core.client import Client
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster
from tests.prometheus_files import ALERTS, FOLDER, RECORDING, rules
from tests.promql import ADDED_BY_PROMETHEUS, Series, offered, unanswerable

CASES = Path(__file__).parent / "prometheus" / "alerts.test.yml"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", str(FOLDER / "prometheus.yml")),
        ("check", "rules", str(RECORDING), str(ALERTS)),
        ("test", "rules", str(CASES)),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    outcome = subprocess.run(
        ["promtool", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stdout


def test_each_alert_is_made_to_fire_by_some_case() -> None:
    text = CASES.read_text()
    for rule in rules(ALERTS):
        assert f"{rule['alert']}\n        exp_alerts:" in text, rule["alert"]


async def exported(tmp_path: Path) -> Series:
    """What a primary and two standbys really export once something was written."""
    async with LocalCluster(tmp_path, ClusterPlan(base_port=0)) as cluster:
        async with Client(cluster.address("node-1").grpc_address) as client:
            session = await client.create_session()
            await client.append(session.session_id, "message", {"text": "hello"})
        async with httpx.AsyncClient() as http:
            answers = [await http.get(f"http://{node.http_address}/metrics") for node in cluster.addresses]
        return offered(answer.text for answer in answers)


async def test_every_expression_of_the_rules_asks_for_what_nodes_export(tmp_path: Path) -> None:
    series = dict(await exported(tmp_path))
    for rule in rules(RECORDING):
        assert unanswerable(rule["expr"], series) == [], rule["record"]
        level, metric, _ = rule["record"].split(":")
        series[rule["record"]] = set(level.split("_"))
        assert any(name.startswith(metric) for name in series), metric
    for rule in rules(ALERTS):
        assert unanswerable(rule["expr"], series) == [], rule["alert"]


def test_an_expression_that_asks_for_what_is_not_there_is_found() -> None:
    series = {"headwater_lag_seconds": {"group", *ADDED_BY_PROMETHEUS}}
    assert unanswerable("max by (job, group) (headwater_lag_seconds)", series) == []
    assert unanswerable("rate(headwater_lag[1m])", series) == ["no series is called headwater_lag"]
    assert unanswerable('headwater_lag_seconds{node="a"}', series) == ["headwater_lag_seconds has no label node"]
    assert unanswerable("sum by (shard) (headwater_lag_seconds)", series) == ["nothing here has the label shard"]
