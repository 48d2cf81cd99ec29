"""Real processes of a local cluster: started, watched, killed and stopped together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import psutil
import pytest

from agent_core.cluster import HostPort
from ops.cluster_files import CONFIGURATION_FILE, ClusterPlan, lay_out
from ops.config import load
from ops.config_problems import InvalidConfiguration
from ops.local_cluster import LocalCluster, LocalClusterError

STAND_IN = (sys.executable, "-m", "tests.integration.stand_in_node")
PLAN = ClusterPlan(base_port=0)


def cluster(directory: Path, **behaviours: str) -> LocalCluster:
    made = LocalCluster(directory, PLAN, command=STAND_IN)
    for node, behaviour in behaviours.items():
        (directory / node.replace("_", "-") / "behaviour").write_text(behaviour)
    return made


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_a_cluster_starts_in_own_process_groups_and_stops_together(tmp_path: Path) -> None:
    subject = cluster(tmp_path)
    await subject.start()
    pids = [subject.pid(node) for node in subject.configurations]
    assert all(pid is not None and os.getpgid(pid) == pid for pid in pids)
    assert await subject.stop() == {"node-1": 0, "node-2": 0, "node-3": 0}
    assert [subject.pid(node) for node in subject.configurations] == [None] * 3
    assert b'"starting"' in subject.log_paths["node-2"].read_bytes()


async def test_another_process_at_an_address_is_not_taken_for_the_node(tmp_path: Path) -> None:
    subject = cluster(tmp_path)
    with (
        socket.create_server(HostPort.parse(subject.address("node-2").http_address)),
        pytest.raises(LocalClusterError, match=r"node-2 cannot listen on 127\.0\.0\.1:\d+: Address already in use"),
    ):
        await subject.start()
    assert subject.pid("node-1") is None
    async with subject:
        pass


async def test_a_killed_node_comes_back_and_nobody_calls_that_unexpected(tmp_path: Path) -> None:
    async with cluster(tmp_path) as subject:
        before = subject.pid("node-2")
        await subject.kill("node-2")
        assert subject.pid("node-2") is None
        await subject.start_node("node-2")
        await subject.restart("node-3")
        assert subject.pid("node-2") not in (None, before)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(subject.unexpected_exit(), 0.05)


async def test_a_node_that_ends_by_itself_is_told_with_its_last_log_lines(tmp_path: Path) -> None:
    async with cluster(tmp_path) as subject:
        pid = subject.pid("node-3")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        ended = await asyncio.wait_for(subject.unexpected_exit(), 10)
        assert str(ended) == (
            'node-3 was killed by SIGKILL; the last lines of its log:\n  {"event": "starting", "node": "node-3"}'
        )


async def test_a_node_that_dies_at_the_start_stops_the_others_and_shows_why(tmp_path: Path) -> None:
    subject = cluster(tmp_path, node_2="dies")
    with pytest.raises(LocalClusterError, match=r"node-2 ended with exit code 3.*\n.*\n.*the disk is full"):
        await subject.start()
    assert [subject.pid(node) for node in subject.configurations] == [None] * 3


async def test_a_node_that_is_not_ready_in_time_is_told_with_its_reasons(tmp_path: Path) -> None:
    subject = cluster(tmp_path, node_1="never-ready")
    with pytest.raises(LocalClusterError, match="node-1 is not ready: group 0: waits for a majority"):
        await subject.start(ready_seconds=1.5)


async def test_a_node_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    subject = cluster(tmp_path, node_1="ignores-sigterm")
    await subject.start()
    assert await subject.stop(grace_seconds=2.0) == {"node-1": -signal.SIGKILL, "node-2": 0, "node-3": 0}


def test_nodes_die_with_their_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from tests.integration.test_local_cluster import cluster\n"
        "async def main():\n"
        "    subject = cluster(Path(sys.argv[1])); await subject.start()\n"
        "    print(*[subject.pid(node) for node in subject.configurations], flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = list(map(int, parent.stdout.readline().split()))
        assert len(pids) == 3
        parent.kill()
    wait_until(lambda: not any(map(runs, pids)))


def test_the_files_configure_one_cluster_and_name_no_path_of_this_machine(tmp_path: Path) -> None:
    plan = ClusterPlan(voters=3, readers=1, settings={"cluster": {"shard_count": 8}, "log": {"level": "debug"}})
    configurations = lay_out(tmp_path, plan)
    assert list(configurations) == ["node-1", "node-2", "node-3", "node-4"]
    one = configurations["node-1"]
    assert [(node.grpc_address, node.http_address, node.voter) for node in one.cluster_map.nodes] == [
        ("127.0.0.1:7101", "127.0.0.1:7201", True),
        ("127.0.0.1:7102", "127.0.0.1:7202", True),
        ("127.0.0.1:7103", "127.0.0.1:7203", True),
        ("127.0.0.1:7104", "127.0.0.1:7204", False),
    ]
    assert one.cluster.shard_count == 8
    assert one.log.level == "debug"
    for node_id, configuration in configurations.items():
        file = tmp_path / node_id / CONFIGURATION_FILE
        assert load(file) == configuration
        assert configuration.node.data_directory == tmp_path / node_id / "data"
        assert str(tmp_path) not in file.read_text()


def test_a_cluster_that_stands_is_used_again_with_its_settings(tmp_path: Path) -> None:
    made = lay_out(tmp_path, ClusterPlan(voters=1, base_port=0, settings={"cluster": {"acknowledgement": "local"}}))
    assert lay_out(tmp_path, ClusterPlan()) == made
    assert lay_out(tmp_path, ClusterPlan(voters=1, settings={"cluster": {"acknowledgement": "local"}})) == made


def test_a_plan_that_contradicts_the_standing_cluster_is_refused_with_every_difference(tmp_path: Path) -> None:
    lay_out(tmp_path, ClusterPlan())
    plan = ClusterPlan(voters=5, readers=1, base_port=9000, settings={"cluster": {"shard_count": 8}})
    with pytest.raises(InvalidConfiguration) as caught:
        lay_out(tmp_path, plan)
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "the number of voting nodes is 3 there, and 5 was asked for",
        "the number of readers is 0 there, and 1 was asked for",
        "the first port is 7101 there, and 9000 was asked for",
        "cluster.shard_count is 16 there, and 8 was asked for",
    ]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ClusterPlan(voters=8), "nodes is 8; allowed are 1 to 7"),
        (ClusterPlan(readers=100), "readers is 100; allowed are 0 to 61 beside 3 nodes"),
        (ClusterPlan(base_port=65_534), r"nodes\[2\].grpc is '127.0.0.1:65536'; allowed is host:port"),
        (
            ClusterPlan(settings={"limits": {"entry_byte": 1}}),
            r"limits.entry_byte is not a setting \(as asked for\)",
        ),
    ],
)
def test_an_impossible_plan_writes_nothing(tmp_path: Path, plan: ClusterPlan, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        lay_out(tmp_path / "cluster", plan)
    assert not (tmp_path / "cluster").exists()


def test_the_files_of_two_clusters_are_not_mixed(tmp_path: Path) -> None:
    lay_out(tmp_path / "a", PLAN)
    lay_out(tmp_path / "b", PLAN)
    (tmp_path / "a" / "node-2" / CONFIGURATION_FILE).write_bytes(
        (tmp_path / "b" / "node-2" / CONFIGURATION_FILE).read_bytes()
    )
    with pytest.raises(InvalidConfiguration, match=r"node-2/headwater\.toml describes another cluster"):
        lay_out(tmp_path / "a", PLAN)


UP = (
    "import ops.cli.up as module; module.NODE_COMMAND = {command!r}\n"
    "module.up(['--data', {directory!r}, '--json', '-v'])"
)


@contextmanager
def start_up(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    script = UP.format(command=STAND_IN, directory=str(directory))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # it ended, or a check failed


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_up_prints_addresses_and_stops_all_when_asked(tmp_path: Path, asked: signal.Signals) -> None:
    lay_out(tmp_path, PLAN)
    with start_up(tmp_path) as process:
        assert process.stdout is not None
        nodes = orjson.loads(process.stdout.readline())["nodes"]
        assert [node["role"] for node in nodes] == ["voter", "voter", "voter"]
        assert nodes[1]["metrics"] == f"{nodes[1]['http']}/metrics"
        process.send_signal(asked)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert not any(runs(node["pid"]) for node in nodes)


def test_up_stops_all_and_fails_when_one_node_dies(tmp_path: Path) -> None:
    lay_out(tmp_path, PLAN)
    with start_up(tmp_path) as process:
        assert process.stdout is not None
        nodes = orjson.loads(process.stdout.readline())["nodes"]
        os.kill(nodes[2]["pid"], signal.SIGKILL)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"headwater: node-3 was killed by SIGKILL; the last lines of its log:" in errors
    assert not any(runs(node["pid"]) for node in nodes)


def test_up_refuses_flags_that_contradict_the_standing_cluster(tmp_path: Path) -> None:
    lay_out(tmp_path, PLAN)
    script = f"from ops.cli.up import up; up(['--data', {str(tmp_path)!r}, '--nodes', '5'])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert ended.returncode == 2
    assert b"the number of voting nodes is 3 there, and 5 was asked for" in ended.stderr
    assert b"Traceback" not in ended.stderr
