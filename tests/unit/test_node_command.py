"""`headwater node`: flags over environment over file, and errors without tracebacks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import structlog
from click.testing import CliRunner, Result

from agent_core.errors import WrongCluster
from ops.cli.node import node, parse_assignments
from ops.settings import NodeConfiguration

SAMPLE = "ops/headwater.sample.toml"


class Daemon(ModuleType):
    """Stands for `ops.node`."""

    def __init__(self) -> None:
        super().__init__("ops.node")
        self.configuration: NodeConfiguration | None = None
        self.error: Exception | None = None

    def run(self, configuration: NodeConfiguration) -> int:
        self.configuration = configuration
        if self.error is not None:
            raise self.error
        return 0


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    made = Daemon()
    monkeypatch.setitem(sys.modules, "ops.node", made)
    monkeypatch.setattr("ops.cli.node.configure_logging", lambda **_: None)
    yield made
    structlog.reset_defaults()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(node, arguments)


def test_flags_win_over_the_environment_and_that_over_the_file(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADWATER_LOG__LEVEL", "warning")
    monkeypatch.setenv("HEADWATER_LOG__FORMAT", "console")
    flags = ["--log-level", "debug", "--set", "limits.entry_bytes=2048", "--data-directory", str(tmp_path)]
    assert run("--config", SAMPLE, *flags, "--acknowledgement", "all").exit_code == 0
    configuration = daemon.configuration
    assert configuration is not None
    assert (configuration.log.level, configuration.log.format) == ("debug", "console")
    assert configuration.limits.entry_bytes == 2048
    assert configuration.node.data_directory == tmp_path
    assert configuration.cluster.acknowledgement.value == "all"


def test_a_configuration_that_cannot_be_used_ends_with_code_2_and_every_problem(daemon: Daemon) -> None:
    result = run("--config", SAMPLE, "--set", "limits.entry_bytes=few", "--set", "storage.segment_mib=0")
    assert result.exit_code == 2
    assert result.stderr == (
        f"headwater: {SAMPLE} cannot be used:\n"
        "  limits.entry_bytes is 'few' (from a flag); allowed is a whole number from 1024 to 268435456\n"
        "  storage.segment_mib is 0 (from a flag); allowed is a whole number from 1 to 1024\n"
    )
    assert daemon.configuration is None


@pytest.mark.parametrize("error", [WrongCluster("the data directory is another's"), OSError("disk gone")])
def test_a_node_that_cannot_run_says_why_and_ends_with_code_1(daemon: Daemon, error: Exception) -> None:
    daemon.error = error
    result = run("--config", SAMPLE)
    assert (result.exit_code, result.stderr) == (1, f"headwater: node-1 cannot run: {error}\n")


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["limits.entry_bytes=1_024"], {"limits": {"entry_bytes": 1024}}),
        (["log.level=debug"], {"log": {"level": "debug"}}),
        (
            ["election.lease_seconds=0.5", "election.raft_password=b"],
            {"election": {"lease_seconds": 0.5, "raft_password": "b"}},
        ),
        (['nodes=[{id="a", grpc="a:1", http="a:2"}]'], {"nodes": [{"id": "a", "grpc": "a:1", "http": "a:2"}]}),
        (["node.data_directory=/a=b"], {"node": {"data_directory": "/a=b"}}),
    ],
)
def test_an_assignment_is_a_dotted_key_and_a_toml_value_or_text(
    assignments: list[str], expected: dict[str, Any]
) -> None:
    assert parse_assignments(tuple(assignments)) == expected


@pytest.mark.parametrize("assignment", ["limits.entry_bytes", "limits=3", "=3", ".=3", ""])
def test_what_is_no_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(click.BadParameter, match=r"allowed is section\.key=value"):
        parse_assignments((assignment,))


def test_a_key_within_a_value_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="lies within a value"):
        parse_assignments(("log.level=debug", "log.level.deep=1"))


def test_the_help_teaches_with_an_example() -> None:
    assert "headwater node --config node-1/headwater.toml" in run("--help").stdout
