"""The files for Docker, Kubernetes and Grafana: their linters judge them, and the product takes what they give."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import orjson
import pytest
import yaml
from compose_spec import PyCompose

from agent_core.cluster import HostPort
from ops.cli.dashboard import dashboard
from ops.cli.health import health
from ops.cli.node import node as node_command
from ops.config import ENVIRONMENT_PREFIX, load
from ops.grafana.dashboard import build as build_grafana_dashboard
from ops.settings import NodeConfiguration
from tests.deployment.deployed import (
    DEPLOYMENTS,
    DOCKERFILE,
    KUBERNETES,
    OPS,
    SECRETS,
    SERVICE_MONITOR,
    DeployedNode,
    bind_mounts,
    compose,
    image_command,
    manifest,
    manifests,
)
from tests.prometheus_files import ALERTS, FOLDER, RECORDING

KUBERNETES_VERSIONS = ("1.31.0", "1.37.0")
Load = Callable[[DeployedNode], NodeConfiguration]


@pytest.fixture
def load_in_its_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    def load_node(node: DeployedNode) -> NodeConfiguration:
        for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
            monkeypatch.delenv(name)
        for name, value in node.environment.items():
            monkeypatch.setenv(name, value)
        path = tmp_path / "headwater.toml"
        path.write_text(node.configuration)
        return load(path)

    return load_node


def test_hadolint_finds_nothing_to_say_of_the_dockerfile() -> None:
    command = [Path(sys.executable).parent / "hadolint", DOCKERFILE]
    outcome = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_the_image_is_made_of_pinned_parts_and_runs_without_root() -> None:
    text = DOCKERFILE.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert set(bases) == {"python:3.11.13-slim-bookworm"}
    fetching, *others = re.findall(r"pip (?:install|wheel|download) .*", text)
    assert "--require-hashes --requirement requirements.lock" in fetching
    assert others
    assert all("--no-index" in other for other in others)
    image = text[text.rindex("FROM ") :]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", image, re.MULTILINE)
    assert "STOPSIGNAL SIGTERM" in image


def test_the_image_gets_everything_that_it_is_made_from_and_nothing_else() -> None:
    ignored = DOCKERFILE.with_suffix(".dockerignore").read_text()
    let_in = set(re.findall(r"^!(.*)$", ignored, re.MULTILINE))
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    assert let_in == {source for line in copied for source in line.split()}
    assert all((OPS.parent / source).exists() for source in let_in)


def test_the_image_asks_for_health_with_a_command_that_the_product_has() -> None:
    asked = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert asked
    program, command, *arguments = yaml.safe_load(asked[1])
    assert (program, command) == ("headwater", "health")
    with health.make_context("health", arguments) as context:
        assert str(context.params["path"]) == image_command()[-1]


def test_the_compose_file_keeps_to_the_compose_specification() -> None:
    parsed = PyCompose.from_json(orjson.dumps(compose()).decode())
    assert {"node-1", "node-2", "node-3", "prometheus", "grafana"} <= set(parsed.service_names())


def test_a_key_that_compose_does_not_have_would_be_found() -> None:
    wrong = compose()
    wrong["services"]["node-1"]["restarts"] = "always"
    with pytest.raises(ValueError, match="restarts"):
        PyCompose.from_json(orjson.dumps(wrong).decode())


def test_everything_that_the_compose_file_mounts_and_depends_on_is_there() -> None:
    described = compose()
    for name, service in described["services"].items():
        for source, target in bind_mounts(service):
            assert source.exists(), f"{name} mounts {source} at {target}"
        named = {volume.split(":")[0] for volume in service.get("volumes", ()) if not volume.startswith(".")}
        assert named <= described["volumes"].keys()
        assert set(service.get("depends_on", ())) <= described["services"].keys()


def test_the_host_reaches_the_compose_services_by_its_loopback_interface_alone() -> None:
    published = [port for service in compose()["services"].values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len(set(published)) == len(published)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_manifest_keeps_strictly_to_the_schema_of_kubernetes(version: str) -> None:
    assert {each["kind"] for each in manifests()} == {
        "ConfigMap",
        "Namespace",
        "PodDisruptionBudget",
        "Service",
        "StatefulSet",
    }
    for each in manifests():
        kubernetes_validate.validate(each, version, strict=True)


def test_a_key_that_kubernetes_does_not_have_would_be_found() -> None:
    wrong = manifest("StatefulSet", "headwater")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSIONS[0], strict=True)


def test_the_manifests_name_each_other_and_one_namespace() -> None:
    specification = manifest("StatefulSet", "headwater")["spec"]
    labels = specification["template"]["metadata"]["labels"]
    assert specification["selector"]["matchLabels"].items() <= labels.items()
    for kind, name in (("Service", "headwater-nodes"), ("Service", "headwater-read")):
        service = manifest(kind, name)["spec"]
        assert service["selector"].items() <= labels.items()
        opened = {port["name"]: port["containerPort"] for port in container()["ports"]}
        assert all(opened[port["targetPort"]] == port["port"] for port in service["ports"])
    assert manifest("PodDisruptionBudget", "headwater")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    namespaces = {each["metadata"].get("namespace") for each in manifests() if each["kind"] != "Namespace"}
    assert namespaces == {manifest("Namespace", "headwater")["metadata"]["name"]}
    assert specification["serviceName"] == "headwater-nodes"


def container() -> dict[str, Any]:
    """The pod's only one."""
    (found,) = manifest("StatefulSet", "headwater")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_the_pods_are_probed_where_a_node_answers() -> None:
    routes = {name: container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: route["path"] for name, route in routes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {route["port"] for route in routes.values()} == {"http"}


def test_the_nodes_addresses_are_the_names_that_kubernetes_gives_to_the_pods(
    load_in_its_environment: Load,
) -> None:
    metadata = manifest("StatefulSet", "headwater")["metadata"]
    for node in DEPLOYMENTS["kubernetes"]():
        address = load_in_its_environment(node).own_address
        host = f"{node.name}.headwater-nodes.{metadata['namespace']}.svc.cluster.local"
        assert {HostPort.parse(each).host for each in (address.grpc_address, address.http_address)} == {host}


def test_namespace_yaml_tells_how_to_make_the_secrets_that_the_pods_want() -> None:
    told = (KUBERNETES / "namespace.yaml").read_text()
    for name, key in SECRETS:
        assert f"create secret generic {name} --from-literal={key}=" in told


def test_a_service_monitor_finds_the_service_of_the_nodes_and_names_them_as_the_rules_want() -> None:
    monitor = yaml.safe_load(SERVICE_MONITOR.read_text())["spec"]
    metadata, service = (manifest("Service", "headwater-nodes")[key] for key in ("metadata", "spec"))
    assert monitor["selector"]["matchLabels"].items() <= metadata["labels"].items()
    assert monitor["jobLabel"] in metadata["labels"]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["ports"]}
    assert [relabeling["targetLabel"] for relabeling in endpoint["relabelings"]] == ["instance"]
    configured = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]
    assert endpoint["interval"] == configured["scrape_interval"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_the_product_takes_the_configuration_of_every_node(deployment: str, load_in_its_environment: Load) -> None:
    nodes = DEPLOYMENTS[deployment]()
    taken = [load_in_its_environment(node) for node in nodes]
    assert [configuration.node.id for configuration in taken] == [node.name for node in nodes]
    assert [entry.id for entry in taken[0].nodes] == [node.name for node in nodes]
    assert len({configuration.cluster_map for configuration in taken}) == 1
    passwords = {configuration.election.raft_password for configuration in taken}
    assert len(passwords) == 1
    assert None not in passwords


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_node_opens_the_ports_that_its_container_does_and_writes_where_a_volume_is(
    deployment: str, load_in_its_environment: Load
) -> None:
    for node in DEPLOYMENTS[deployment]():
        configuration = load_in_its_environment(node)
        address = configuration.own_address
        assert address.raft_address is not None
        opened = {HostPort.parse(each).port for each in (address.grpc_address, address.http_address)}
        # Raft is the nodes' own: compose does not show it to the host.
        assert opened <= node.ports <= opened | {HostPort.parse(address.raft_address).port}
        assert str(configuration.node.data_directory) in node.folders
        with node_command.make_context("node", list(node.arguments[1:])) as context:
            assert str(context.params["path"]) in node.files


def test_prometheus_in_compose_gets_the_projects_own_files_and_scrapes_the_nodes_of_the_cluster(
    load_in_its_environment: Load,
) -> None:
    mounts = {target: source for source, target in bind_mounts(compose()["services"]["prometheus"])}
    for path in (FOLDER / "prometheus.yml", RECORDING, ALERTS):
        assert mounts[f"/etc/prometheus/{path.name}"] == path
    targets = yaml.safe_load(mounts["/etc/prometheus/nodes.yml"].read_text())
    told = {target["labels"]["instance"]: target["targets"] for target in targets}
    configuration = load_in_its_environment(DEPLOYMENTS["compose"]()[0])
    assert told == {entry.id: [entry.http] for entry in configuration.nodes}


def test_the_dashboard_in_compose_takes_its_arguments_and_reads_the_nodes_of_the_cluster(
    load_in_its_environment: Load,
) -> None:
    service = compose()["services"]["dashboard"]
    name, *arguments = service["command"]
    with dashboard.make_context(name, arguments) as context:
        nodes, listen = context.params["nodes"], context.params["listen"]
    configuration = load_in_its_environment(DEPLOYMENTS["compose"]()[0])
    assert nodes == [entry.http for entry in configuration.nodes]
    assert listen.host == service["hostname"]
    assert service["ports"] == [f"127.0.0.1:{listen.port}:{listen.port}"]
    assert f"http://{listen.host}:{listen.port}/" in service["healthcheck"]["test"][-1]


def test_promtool_takes_prometheus_files_as_compose_lays_them_out(tmp_path: Path) -> None:
    for source, target in bind_mounts(compose()["services"]["prometheus"]):
        (tmp_path / Path(target).name).write_text(source.read_text())
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    outcome = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout


def test_the_dashboard_for_grafana_is_what_its_code_makes() -> None:
    assert (OPS / "grafana" / "headwater.json").read_text() == build_grafana_dashboard()


def test_grafana_finds_its_dashboard_where_its_provisioning_looks_and_prometheus_where_compose_runs_it() -> None:
    described = compose()["services"]
    grafana = described["grafana"]
    mounts = {target: source for source, target in bind_mounts(grafana)}
    provisioning = mounts["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "headwater.yml").read_text())["providers"]
    folder = provider["options"]["path"]
    assert mounts[f"{folder}/headwater.json"] == OPS / "grafana" / "headwater.json"
    environment = grafana["environment"]
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in mounts
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "$PROMETHEUS_URL"
    host, port = HostPort.parse(environment["PROMETHEUS_URL"].removeprefix("http://"))
    assert described[host]["ports"][0].endswith(f":{port}")
    shown = orjson.loads(mounts[f"{folder}/headwater.json"].read_bytes())
    wanted = {variable["query"] for variable in shown["templating"]["list"] if variable["type"] == "datasource"}
    assert wanted == {source["type"]}
