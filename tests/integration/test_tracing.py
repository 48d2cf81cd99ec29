"""The trace of one append across the processes that it passes; and that nothing is there when nobody asks."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

from agent_core.client import Client, Reader
from agent_core.errors import SessionNotFound
from agent_core.open_telemetry import OpenTelemetryTracer
from agent_core.tracing import is_sampled
from ops.cli.main import main
from ops.cluster_files import ClusterPlan
from ops.local_cluster import LocalCluster
from tests.exported import exported, roles
from tests.integration.collector import Collected, Collector, collector
from tests.steady import steady_plan

STAGES = 8
"""Spans of one append: four, and two more for each of two standbys."""
MESSAGE = {"role": "user", "content": "hello"}


@contextmanager
def tracer_of(endpoint: str, sampler: Sampler | None = None) -> Iterator[OpenTelemetryTracer]:
    tracer = OpenTelemetryTracer(endpoint, service="agents", instance="test", sampler=sampler)
    try:
        yield tracer
    finally:
        tracer.close()


def plan(found: Collector) -> ClusterPlan:
    return steady_plan(tracing={"endpoint": found.endpoint})


@pytest.fixture(autouse=True)
def spans_are_sent_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after five seconds; nodes inherit it."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")


async def collected(found: Collector, count: int) -> None:
    """Wait until so many spans came."""
    async with asyncio.timeout(20):
        while len(found.spans) < count:
            await asyncio.sleep(0.02)


async def applied_everywhere(cluster: LocalCluster, session_id: str, entries: int) -> None:
    """Wait until each node shows the session's entries."""
    async with asyncio.timeout(20):
        for node in cluster.addresses:
            async with Reader(node.grpc_address) as reader:
                while not await shows(reader, session_id, entries):
                    await asyncio.sleep(0.02)


async def shows(reader: Reader, session_id: str, entries: int) -> bool:
    try:
        return (await reader.get_session(session_id)).entry_count >= entries
    except SessionNotFound:
        return False


async def test_one_append_shows_as_one_trace_across_client_primary_and_standbys(tmp_path: Path) -> None:
    with collector() as found:
        async with LocalCluster(tmp_path, plan(found)) as cluster:
            primary, standbys = await roles(cluster)
            with tracer_of(found.endpoint) as tracer:
                async with Client(cluster.address("node-1").grpc_address, tracer=tracer) as client:
                    session = await client.create_session()
                    appended = await client.append(session.session_id, "message", MESSAGE)
            await collected(found, STAGES)
        # Stopped nodes have sent whatever else they held.
        spans = {
            (each.instance, each.span.name, each.attributes.get("headwater.standby")): each for each in found.spans
        }

    assert set(spans) == {
        ("test", "append", None),
        (primary, "actor", None),
        (primary, "writer", None),
        (primary, "acknowledgement", None),
        *((primary, "stream", standby) for standby in standbys),
        *((standby, "apply", None) for standby in standbys),
    }
    assert len(found.spans) == len(spans)
    root = spans["test", "append", None].span
    assert {each.span.trace_id for each in found.spans} == {root.trace_id}
    for name in ("actor", "writer", "acknowledgement"):
        assert spans[primary, name, None].span.parent_span_id == root.span_id
    for standby in standbys:
        stream = spans[primary, "stream", standby].span
        assert stream.parent_span_id == root.span_id
        assert spans[standby, "apply", None].span.parent_span_id == stream.span_id
    follow_each_other([spans[primary, name, None] for name in ("actor", "writer", "acknowledgement")])
    held = [each for each in found.spans if each.span.name in ("append", "writer", "stream", "apply")]
    assert {each.attributes["headwater.lsn"] for each in held} == {appended.position.lsn}
    assert all(each.span.end_time_unix_nano >= each.span.start_time_unix_nano for each in found.spans)


def follow_each_other(stages: list[Collected]) -> None:
    for earlier, later in itertools.pairwise(stages):
        assert earlier.span.end_time_unix_nano <= later.span.start_time_unix_nano


async def test_appends_that_share_a_batch_each_get_their_own_trace(tmp_path: Path) -> None:
    with collector() as found:
        async with LocalCluster(tmp_path, plan(found)) as cluster:
            with tracer_of(found.endpoint) as tracer:
                async with Client(cluster.address("node-1").grpc_address, tracer=tracer) as client:
                    session = await client.create_session()
                    await asyncio.gather(
                        *(client.append(session.session_id, "message", MESSAGE) for _ in range(20))
                    )
            await collected(found, 20 * STAGES)
    traces: dict[bytes, list[str]] = {}
    for each in found.spans:
        traces.setdefault(each.span.trace_id, []).append(each.span.name)
    assert len(traces) == 20
    assert {tuple(sorted(names)) for names in traces.values()} == {
        ("acknowledgement", "actor", "append", "apply", "apply", "stream", "stream", "writer")
    }


async def test_appends_are_traced_through_whoever_leads_after_a_fail_over(tmp_path: Path) -> None:
    with collector() as found:
        async with LocalCluster(tmp_path, plan(found)) as cluster:
            killed, names = await roles(cluster)
            await cluster.kill(killed)
            left = [cluster.address(name).grpc_address for name in names]
            with tracer_of(found.endpoint) as tracer:
                async with Client(left, tracer=tracer, timeout_seconds=30) as client:
                    session = await client.create_session()
                    await client.append(session.session_id, "message", MESSAGE)
            await collected(found, STAGES - 2)
            metrics = [await exported(cluster, name) for name in names]
    serving = [metric['headwater_group_serving{group="0"}'] for metric in metrics]
    assert sorted(serving) == [0, 1]
    assert all(metric['headwater_voters{group="0"}'] == 3 for metric in metrics)
    leads, follows = names if serving[0] else reversed(names)
    stages = {(each.instance, each.span.name) for each in found.spans}
    assert {(leads, "actor"), (leads, "writer"), (leads, "stream"), (follows, "apply")} <= stages


async def test_an_append_that_its_client_does_not_sample_leaves_no_span_anywhere(tmp_path: Path) -> None:
    with collector() as found:
        async with LocalCluster(tmp_path, plan(found)) as cluster:
            with tracer_of(found.endpoint, ALWAYS_OFF) as tracer:
                async with Client(cluster.address("node-1").grpc_address, tracer=tracer) as client:
                    session = await client.create_session()
                    await client.append(session.session_id, "message", MESSAGE)
            await applied_everywhere(cluster, session.session_id, 1)
        assert found.spans == []


@pytest.mark.parametrize("by", ["option", "environment"])
async def test_the_command_that_appends_has_sent_its_trace_when_it_ends(tmp_path: Path, by: str) -> None:
    with collector() as found:
        async with LocalCluster(tmp_path, plan(found)) as cluster:
            primary, standbys = await roles(cluster)
            # What is not sent at the end is not sent before either.
            environment = {**os.environ, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
            arguments = ["s", "hello", "--create", "--node", cluster.address(standbys[0]).grpc_address]
            if by == "option":
                arguments += ["--trace-endpoint", found.endpoint]
            else:
                environment["HEADWATER_TRACING__ENDPOINT"] = found.endpoint
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ops.cli.main", "append", *arguments),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            async with asyncio.timeout(60):
                said, complaints = await process.communicate()
            assert (process.returncode, complaints) == (0, b"")
            assert said.startswith(b"entry 1 of s at ")
            (root,) = [each.span for each in found.spans if each.service == "headwater-command"]
            await collected(found, STAGES)
    assert root.name == "append"
    assert {each.span.trace_id for each in found.spans} == {root.trace_id}
    assert {(each.service, each.instance) for each in found.spans} == {
        ("headwater-command", ""),
        *(("headwater", node) for node in (primary, *standbys)),
    }


async def test_a_command_succeeds_also_where_its_collector_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as silent:
        # Bound, and it does not listen: whoever connects is refused.
        silent.bind(("127.0.0.1", 0))
        nowhere = silent.getsockname()[1]
        async with LocalCluster(tmp_path, steady_plan()) as cluster:
            to = ("--node", cluster.address("node-1").grpc_address)
            ended = await asyncio.to_thread(
                CliRunner().invoke,
                main,
                ["append", "s", "hello", "--create", *to, "--trace-endpoint", f"http://127.0.0.1:{nowhere}"],
            )
    assert ended.exit_code == 0
    assert ended.stdout.startswith("entry 1 of s at ")


def test_an_endpoint_that_is_none_is_refused() -> None:
    wrong = CliRunner().invoke(main, ["append", "s", "hello", "--trace-endpoint", "localhost:4317"])
    assert wrong.exit_code == 2
    assert "allowed are http://HOST:PORT" in " ".join(wrong.stderr.split())


@pytest.mark.parametrize(
    ("module", "prefix"),
    # FastAPI itself brings in OpenTelemetry's interface where that is installed, so a node is asked for the rest.
    [
        ("agent_core.client", "opentelemetry"),
        ("ops.cli.sessions", "opentelemetry"),
        ("ops.node", "opentelemetry.sdk"),
        ("ops.node", "opentelemetry.exporter"),
    ],
)
def test_nothing_of_opentelemetry_is_imported_without_an_endpoint(module: str, prefix: str) -> None:
    script = f"import sys, {module}; print([name for name in sys.modules if name.startswith({prefix!r})])"
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert outcome.stdout == "[]\n"


@pytest.mark.parametrize(
    ("traceparent", "sampled"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n", False),
        ("", False),
    ],
)
def test_only_a_well_formed_and_sampled_context_is_followed(traceparent: str, sampled: bool) -> None:
    assert is_sampled(traceparent) is sampled
