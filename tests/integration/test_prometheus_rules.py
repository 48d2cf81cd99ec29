"""Prometheus' own tool judges configuration and rules, and their expressions ask for what nodes export."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from agent_core.client import Client
from ops.local_cluster import LocalCluster
from tests.prometheus_files import ALERTS, FOLDER, RECORDING, rules
from tests.promql import ADDED_BY_PROMETHEUS, Series, offered, unanswerable
from tests.steady import steady_plan

DASHBOARD = FOLDER.parent / "grafana" / "headwater.json"
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


@pytest.fixture(scope="module")
def exported(module_path: Path) -> Series:
    """What a primary and two standbys really export once something was written, and what rules record of it."""
    return {**asyncio.run(scraped(module_path)), **recorded()}


async def scraped(directory: Path) -> Series:
    async with LocalCluster(directory, steady_plan()) as cluster:
        async with Client(cluster.address("node-1").grpc_address) as client:
            session = await client.create_session()
            await client.append(session.session_id, "message", {"text": "hello"})
        async with httpx.AsyncClient() as http:
            answers = [await http.get(f"http://{node.http_address}/metrics") for node in cluster.addresses]
        return offered(answer.text for answer in answers)


def recorded() -> Series:
    """The rules' own series: the first part of a name lists the labels."""
    return {rule["record"]: set(rule["record"].split(":")[0].split("_")) for rule in rules(RECORDING)}


@pytest.mark.parametrize("path", [RECORDING, ALERTS], ids=lambda path: path.name)
def test_every_expression_of_the_rules_asks_for_what_nodes_export(path: Path, exported: Series) -> None:
    for rule in rules(path):
        assert unanswerable(rule["expr"], exported) == [], rule


def test_every_expression_of_the_dashboard_asks_for_what_nodes_export(exported: Series) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    expressions = {
        target["expr"]: target.get("legendFormat", "") for panel in panels for target in panel["targets"]
    }
    expressions |= {annotation["expr"]: "" for annotation in dashboard["annotations"]["list"]}
    assert len(expressions) > len(panels)
    for expression, legend in expressions.items():
        # Grafana puts a length of time in place of these before Prometheus sees them.
        promql = re.sub(r"\$__(rate_)?interval", "1m", expression)
        assert unanswerable(promql, exported) == [], expression
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            assert unanswerable(f"max by ({label}) ({promql})", exported) == [], legend


def test_the_dashboard_asks_for_its_variables_where_nodes_export_them(exported: Series) -> None:
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    queries = [variable["query"] for variable in variables if variable["type"] == "query"]
    assert len(queries) == 2
    for query in queries:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        assert found, query
        assert unanswerable(f"max by ({found[2]}) ({found[1]})", exported) == [], query


def test_an_expression_that_asks_for_what_is_not_there_is_found() -> None:
    series = {"headwater_lag_seconds": {"group", *ADDED_BY_PROMETHEUS}}
    assert unanswerable("max by (job, group) (headwater_lag_seconds)", series) == []
    assert unanswerable("rate(headwater_lag[1m])", series) == ["no series is called headwater_lag"]
    assert unanswerable('headwater_lag_seconds{node="a"}', series) == ["headwater_lag_seconds has no label node"]
    assert unanswerable("sum by (shard) (headwater_lag_seconds)", series) == ["nothing here has the label shard"]
