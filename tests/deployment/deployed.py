"""What a deployment's files give to each node: its command, its environment, its configuration file, its ports.

Nothing is added to what the files say but the values that whoever deploys has to choose: `CHOSEN`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

OPS = Path(__file__).parents[2] / "ops"
COMPOSE = OPS / "docker" / "compose.yaml"
DOCKERFILE = OPS / "docker" / "Dockerfile"
KUBERNETES = OPS / "kubernetes"
SERVICE_MONITOR = KUBERNETES / "optional" / "service-monitor.yaml"

CHOSEN = {"HEADWATER_ELECTION__RAFT_PASSWORD": "a long random word", "GRAFANA_PASSWORD": "another"}
"""Variables that the compose file asks for."""
SECRETS = {("headwater-raft", "password"): "a long random word"}
"""Secrets that the manifests ask for, by name and key, as namespace.yaml says to make them."""

REQUIRED_VARIABLE = re.compile(r"\$\{(\w+):\?[^}]*\}")


@dataclass(frozen=True, slots=True)
class DeployedNode:
    """One container that runs `headwater node`.

    Attributes:
        name: Of the container or pod.
        arguments: Behind `headwater`.
        environment: Complete but for what the image sets.
        files: The text of each mounted file, by its path in the container.
        folders: Where something writable is mounted.
        ports: What the container opens, as numbers.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, str]
    folders: frozenset[str]
    ports: frozenset[int]

    @property
    def configuration(self) -> str:
        """The text of the file that its arguments name."""
        return self.files[self.arguments[self.arguments.index("--config") + 1]]


def compose() -> dict[str, Any]:
    """The compose file, anchors resolved and asked-for variables put in."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner) for inner in value]
        return REQUIRED_VARIABLE.sub(lambda found: CHOSEN[found[1]], value) if isinstance(value, str) else value

    filled: dict[str, Any] = fill(yaml.safe_load(COMPOSE.read_text()))
    return filled


def bind_mounts(service: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What a service mounts from the project, and where it sees it."""
    for volume in service.get("volumes", ()):
        source, target, *_ = volume.split(":")
        if source.startswith("."):
            yield (COMPOSE.parent / source).resolve(), target


def compose_nodes() -> list[DeployedNode]:
    """The services of the compose file that are nodes."""
    described = compose()
    named = described["volumes"]
    command = image_command()
    nodes = []
    for name, service in described["services"].items():
        if "HEADWATER_NODE__ID" not in service.get("environment", {}):
            continue
        assert service["hostname"] == name, "containers find a node by its service's name, and it itself by its own"
        targets = {source: target for source, target, *_ in (volume.split(":") for volume in service["volumes"])}
        nodes.append(
            DeployedNode(
                name=name,
                arguments=tuple(service.get("command", command)),
                environment={key: str(value) for key, value in service["environment"].items()},
                files={target: source.read_text() for source, target in bind_mounts(service)},
                folders=frozenset(target for source, target in targets.items() if source in named),
                ports=frozenset(int(port.split(":")[-1]) for port in service["ports"]),
            )
        )
    return nodes


def image_command() -> list[str]:
    """What the image runs behind its entry point when nobody says otherwise."""
    found = re.search(r"^CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found
    command: list[str] = yaml.safe_load(found[1])
    return command


def manifests() -> list[dict[str, Any]]:
    """Every object of `ops/kubernetes`."""
    return [
        manifest for path in sorted(KUBERNETES.glob("*.yaml")) for manifest in yaml.safe_load_all(path.read_text())
    ]


def manifest(kind: str, name: str) -> dict[str, Any]:
    """The object of this kind and name."""
    (found,) = [each for each in manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def kubernetes_nodes() -> list[DeployedNode]:
    """The pods that the stateful set makes."""
    stateful_set = manifest("StatefulSet", "headwater")
    specification = stateful_set["spec"]
    pod = specification["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    files = {
        f"{mounts[volume['name']]}/{name}": text
        for volume in pod["volumes"]
        if "configMap" in volume
        for name, text in manifest("ConfigMap", volume["configMap"]["name"])["data"].items()
    }
    claims = {claim["metadata"]["name"] for claim in specification["volumeClaimTemplates"]}
    return [
        DeployedNode(
            name=(name := f"{stateful_set['metadata']['name']}-{ordinal}"),
            arguments=tuple(container["args"]),
            environment={variable["name"]: _value(variable["valueFrom"], name) for variable in container["env"]},
            files=files,
            folders=frozenset(mounts[claim] for claim in claims),
            ports=frozenset(port["containerPort"] for port in container["ports"]),
        )
        for ordinal in range(specification["replicas"])
    ]


def _value(source: Mapping[str, Any], pod: str) -> str:
    if source.get("fieldRef", {}).get("fieldPath") == "metadata.name":
        return pod
    secret = source["secretKeyRef"]
    return SECRETS[secret["name"], secret["key"]]


DEPLOYMENTS = {"compose": compose_nodes, "kubernetes": kubernetes_nodes}
"""The nodes of each way to deploy a cluster."""
