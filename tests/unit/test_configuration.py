"""The layers of a node's configuration, its bounds, and how a wrong value is described."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.quorum import Acknowledgement
from ops.config import load, to_toml
from ops.config_problems import InvalidConfiguration
from ops.settings import NodeConfiguration

SAMPLE = Path("ops/headwater.sample.toml")

MINIMAL = """
[cluster]
id = "test"
[node]
id = "node-1"
[[nodes]]
id = "node-1"
grpc = "127.0.0.1:7101"
http = "127.0.0.1:7201"
raft = "127.0.0.1:7301"
[[nodes]]
id = "node-2"
grpc = "127.0.0.1:7102"
http = "127.0.0.1:7202"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "headwater.toml"
    path.write_text(MINIMAL)
    return path


def problems_of(path: Path, overrides: dict[str, Any] | None = None) -> tuple[str, ...]:
    with pytest.raises(InvalidConfiguration) as caught:
        load(path, overrides)
    return caught.value.problems


def test_defaults_fill_what_the_file_leaves_out(file: Path) -> None:
    configuration = load(file)
    assert configuration.cluster.shard_count == 16
    assert configuration.cluster.acknowledgement is Acknowledgement.QUORUM
    assert configuration.limits.entry_bytes == 16 << 20
    assert configuration.own_address.http_address == "127.0.0.1:7201"


def test_the_file_beats_the_default_the_environment_the_file_and_a_flag_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(file).sessions.idle_seconds == 300
    file.write_text(MINIMAL + "[sessions]\nidle_seconds = 10\nmemory_budget_mib = 10\n")
    assert load(file).sessions.idle_seconds == 10
    monkeypatch.setenv("HEADWATER_SESSIONS__IDLE_SECONDS", "20")
    assert load(file).sessions.idle_seconds == 20
    flagged = load(file, {"sessions": {"idle_seconds": "30"}})
    assert flagged.sessions.idle_seconds == 30
    assert flagged.sessions.memory_budget_mib == 10


def test_nodes_can_come_from_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "HEADWATER_NODES",
        '[{"id": "node-1", "grpc": "a:1", "http": "a:2", "raft": "localhost:3"},'
        ' {"id": "b", "grpc": "b:1", "http": "b:2"}]',
    )
    configuration = load(file)
    assert [entry.id for entry in configuration.nodes] == ["node-1", "b"]


def test_other_variables_of_the_project_are_not_mistaken_for_settings(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_NODE", "127.0.0.1:7101")
    monkeypatch.setenv("HEADWATER_LOG", "/tmp/log")
    assert load(file).node.id == "node-1"


def test_a_misspelt_variable_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_LIMITS__ENTRY_BYTE", "1")
    monkeypatch.setenv("HEADWATER_LIMIT__ENTRY_BYTES", "1")
    assert problems_of(file) == (
        "HEADWATER_LIMIT__ENTRY_BYTES (from the environment) names no section; allowed are "
        "cluster, node, nodes, limits, sessions, storage, replication, election, tracing, log",
        "limits.entry_byte is not a setting (from the environment); did you mean limits.entry_bytes?",
    )


def test_a_list_in_the_environment_that_is_not_json_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_NODES", "node-1,node-2")
    (problem,) = problems_of(file)
    assert "JSON" in problem
    assert '"nodes"' in problem


@pytest.mark.parametrize(
    ("key", "value", "shown", "allowed"),
    [
        ("cluster.shard_count", 129, "129 (from a flag)", "allowed is a whole number from 1 to 128"),
        ("cluster.acknowledgement", "two", "'two' (from a flag)", "allowed is local or quorum or all"),
        ("sessions.idle_seconds", "nan", "'nan' (from a flag)", "allowed is a number above 0 up to 86400"),
        ("limits.queue_entries", "x", "'x' (from a flag)", "allowed is a whole number from 1 to 1000000"),
        ("limits.sql_seconds", 0, "0 (from a flag)", "allowed is a number above 0 up to 600"),
        ("limits.sql_rows", 0, "0 (from a flag)", "allowed is a whole number from 1 to 10000000"),
        ("limits.sql_result_bytes", 1, "1 (from a flag)", "allowed is a whole number from 1024 to 33554432"),
        ("limits.sql_memory_mib", 15, "15 (from a flag)", "allowed is a whole number from 16 to 16384"),
        ("storage.segment_mib", 0, "0 (from a flag)", "allowed is a whole number from 1 to 1024"),
        ("log.level", "loud", "'loud' (from a flag)", "allowed is debug or info or warning or error"),
        ("log.colour", "red", "not a setting (from a flag)", "allowed are level, format"),
        ("node.id", 7, "7 (from a flag)", "allowed is text"),
        ("node.id", "node-9", "'node-9'", "allowed are the nodes node-1, node-2"),
        ("cluster.shard_group_count", 17, "17", "allowed are 1 to cluster.shard_count (16)"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(
    file: Path, key: str, value: object, shown: str, allowed: str
) -> None:
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    assert problems_of(file, nested) == (f"{key} is {shown}; {allowed}",)


def test_a_table_in_place_of_a_value_and_a_value_in_place_of_a_table_are_refused(file: Path) -> None:
    assert problems_of(file, {"limits": 3, "log": {"level": {"a": 1}}, "nodes": {}}) == (
        "nodes is {} (from a flag); allowed is an array of 1 to 64 tables",
        "limits is 3 (from a flag); allowed is a table",
        "log.level is {'a': 1} (from a flag); allowed is debug or info or warning or error",
    )


@pytest.mark.parametrize("election", [{}, {"raft_password": ""}], ids=["none", "empty"])
def test_a_raft_address_that_others_can_reach_needs_a_password(file: Path, election: dict[str, str]) -> None:
    nodes = [{"id": "node-1", "grpc": "10.0.0.7:1", "http": "10.0.0.7:2", "raft": "10.0.0.7:3"}]
    (problem,) = problems_of(file, {"nodes": nodes, "election": election})
    assert problem.startswith("election.raft_password is missing; 10.0.0.7:3 is not a loopback address")
    load(file, {"nodes": nodes, "election": {"raft_password": "secret"}})


def test_the_raft_password_is_written_for_nodes_and_shown_to_nobody(file: Path) -> None:
    configuration = load(file, {"election": {"raft_password": "hush"}})
    assert "hush" not in repr(configuration)
    assert 'raft_password = "hush"' in to_toml(configuration)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"lease_seconds": 0.2}, "election.lease_seconds is 0.2; allowed is three times replication.heartbeat"),
        ({"failure_timeout_seconds": 0.6}, "election.failure_timeout_seconds is 0.6; allowed is more than"),
        ({"failure_timeout_seconds": 9}, "replication.acknowledgement_timeout_seconds is 5; allowed is election"),
    ],
)
def test_times_that_would_make_elections_unsafe_or_idle_are_refused(
    file: Path, section: dict[str, Any], problem: str
) -> None:
    (found,) = problems_of(file, {"election": section})
    assert found.startswith(problem)


def test_sizes_that_contradict_each_other_are_refused_together(file: Path) -> None:
    mib = 1 << 20
    overrides = {
        "limits": {"entry_bytes": 32 * mib, "queue_bytes": mib},
        "storage": {"log_retention_mib": 100},
        "replication": {"heartbeat_seconds": 9},
    }
    assert problems_of(file, overrides) == (
        f"limits.batch_bytes is {16 * mib}; allowed is limits.entry_bytes ({32 * mib}) or more: "
        "a batch must be able to take the largest entry",
        f"limits.queue_bytes is {mib}; allowed is limits.batch_bytes ({16 * mib}) or more",
        "storage.log_retention_mib is 100; allowed is twice storage.segment_mib (128) or more: "
        "only whole segments are dropped",
        "replication.acknowledgement_timeout_seconds is 5; "
        "allowed is twice replication.heartbeat_seconds (18) or more",
    )


def test_every_problem_of_every_layer_is_reported_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(MINIMAL + "[log]\nlevel = 'loud'\n")
    monkeypatch.setenv("HEADWATER_SESSIONS__IDLE_SECONDS", "-1")
    problems = problems_of(file, {"storage": {"checkpoint_mib": 0}})
    assert [re.findall(r"\((from [^)]*)\)", problem) for problem in problems] == [
        ["from the environment"],
        ["from a flag"],
        ["from the file"],
    ]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")
    assert problems_of(path) == (
        "cluster is missing; allowed is a table",
        "node is missing; allowed is a table",
        "nodes is missing; allowed is an array of 1 to 64 tables",
    )


@pytest.mark.parametrize("content", [b"[cluster", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidConfiguration, match=r"broken\.toml cannot be used:\n  it is not TOML"):
        load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "absent.toml") == ("there is no such file",)


def test_a_huge_wrong_value_is_cut_in_the_message(file: Path) -> None:
    (problem,) = problems_of(file, {"log": {"level": "x" * 10_000}})
    assert len(problem) < 300


def test_a_relative_data_directory_starts_at_the_folder_of_the_file(file: Path) -> None:
    assert load(file).node.data_directory == file.parent / "data"
    assert load(file, {"node": {"data_directory": "/srv/x"}}).node.data_directory == Path("/srv/x")


def test_a_configuration_cannot_be_changed_once_loaded(file: Path) -> None:
    configuration = load(file)
    with pytest.raises(ValueError, match="frozen"):
        configuration.limits.entry_bytes = 1


def test_a_written_configuration_reads_back_as_it_was(file: Path, tmp_path: Path) -> None:
    overrides = {
        "cluster": {"shard_count": 8, "shard_group_count": 2},
        "election": {"raft_password": "hush"},
        "replication": {"heartbeat_seconds": 0.15},
        "log": {"format": "json"},
    }
    configuration = load(file, overrides)
    copy = tmp_path / "copy.toml"
    copy.write_text(to_toml(configuration))
    assert load(copy) == configuration
    assert "[limits]" not in copy.read_text()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_path_survives_being_written(name: str) -> None:
    sample = load(SAMPLE)
    node = sample.node.model_copy(update={"data_directory": Path("/") / name})
    text = to_toml(sample.model_copy(update={"node": node}))
    assert tomllib.loads(text)["node"]["data_directory"] == str(Path("/") / name)


def test_the_sample_parses_and_names_every_key_with_its_default() -> None:
    load(SAMPLE)
    uncommented = re.sub(r"^# (?=[a-z_]+ = )", "", SAMPLE.read_text(), flags=re.MULTILINE)
    shown = tomllib.loads(uncommented)
    assert list(shown) == list(NodeConfiguration.model_fields)
    for section, field in NodeConfiguration.model_fields.items():
        table = shown[section][0] if section == "nodes" else shown[section]
        model = field.annotation.__args__[0] if section == "nodes" else field.annotation  # type: ignore[union-attr] # a tuple
        assert list(table) == list(model.model_fields)  # type: ignore[union-attr] # a section's model
        for key, key_field in model.model_fields.items():  # type: ignore[union-attr] # as above
            if not key_field.is_required() and key_field.default is not None:
                default = key_field.get_default(call_default_factory=True)
                expected = str(default) if isinstance(default, Path) else default
                assert (section, key, table[key]) == (section, key, expected)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4317", "ftp://collector:4317", "http://", "http://a b"])
def test_a_collector_is_named_by_its_whole_address(
    file: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HEADWATER_TRACING__ENDPOINT", endpoint)
    (problem,) = problems_of(file)
    assert problem == (
        f"tracing.endpoint is '{endpoint}'; allowed are http://HOST:PORT and https://HOST:PORT of a collector that "
        "takes OTLP over gRPC, or nothing"
    )
