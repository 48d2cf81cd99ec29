"""The daemon: composes a node from its parts, runs it until SIGTERM or SIGINT, and stops it in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc.aio
import structlog
import uvloop

from agent_core.database.build import check_build
from agent_core.database.thread import DatabaseThread
from agent_core.errors import HeadwaterError
from agent_core.rpc.administration_pb2_grpc import add_AdministrationServicer_to_server
from agent_core.rpc.read_pb2_grpc import add_ReadingServicer_to_server
from agent_core.rpc.replication_pb2_grpc import add_ReplicationServicer_to_server
from agent_core.rpc.session_pb2_grpc import add_SessionsServicer_to_server
from ops.administration import AdministrationService
from ops.data_directory import DataDirectory, Identity
from ops.following import FollowingGroup
from ops.group_context import GroupContext, Peers
from ops.http import HttpServer, build_app
from ops.leading import LeadingGroup
from ops.node_state import NodeState
from ops.replication_service import ReplicationService
from ops.settings import MIB, NodeConfiguration
from primary.checks import WriteChecks
from primary.loader import SessionLoader
from primary.registry import ResidencySettings, SessionRegistry
from primary.service import SessionsService
from replica.reading.http import reading_routes
from replica.reading.positions import AppliedPositions
from replica.reading.reading import Reading
from replica.reading.service import ReadingService

if TYPE_CHECKING:
    from agent_core.open_telemetry import OpenTelemetryTracer

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 64 * MIB
STOP_SECONDS = 1.0
SWITCH_INTERVAL_SECONDS = 0.0005
"""The database threads give up the interpreter at each SQLite call; the default 5 ms would be their wait."""

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two daemons on one port would otherwise share its connections in silence.
    ("grpc.so_reuseport", 0),
)


def run(configuration: NodeConfiguration) -> int:
    """Run a node until it is told to stop; the process's exit code.

    Raises:
        HeadwaterError: The data directory is another node's, or damaged.
        OSError: An address cannot be listened on, or the disk failed.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    version = check_build()
    log.info("node starts", sqlite=version, data=str(configuration.node.data_directory))
    identity = Identity(
        cluster_id=configuration.cluster.id,
        node_id=configuration.node.id,
        shard_count=configuration.cluster.shard_count,
        shard_group_count=configuration.cluster.shard_group_count,
    )
    with DataDirectory.claim(configuration.node.data_directory, identity):
        # What start-up made lives as long as the process: the collector need not look at it again and again.
        gc.freeze()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Node(configuration).run())


class Node:
    """One daemon: every group of the cluster, led or followed, and the services around them."""

    def __init__(self, configuration: NodeConfiguration) -> None:
        self._configuration = configuration
        self._cluster = configuration.cluster_map
        self._leading: dict[int, LeadingGroup] = {}
        self._following: dict[int, FollowingGroup] = {}
        self._failed = False

    async def run(self) -> int:
        """Start everything, wait for a signal, stop everything: 0 unless a group failed."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            log.info("node serves", grpc=self._address.grpc_address, http=self._address.http_address)
            await stop.wait()
            log.info("node stops")
            self._state.stopping = True
        log.info("node stopped")
        return 0

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        configuration, layout = self._configuration, self._cluster.layout
        self._address = configuration.own_address
        executor = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="promises"))
        positions = AppliedPositions(layout.shard_group_count)
        peers = Peers(self._cluster)
        stack.push_async_callback(peers.close)
        tracer = _tracer(configuration)
        if tracer is not None:
            stack.push_async_callback(asyncio.to_thread, tracer.close)
        directory = configuration.node.data_directory
        loader = await DatabaseThread.start(lambda: SessionLoader(directory, layout), name="session loader")
        stack.push_async_callback(loader.close)
        registry = SessionRegistry(
            self._cluster,
            loader,
            ResidencySettings(configuration.sessions.idle_seconds, configuration.sessions.memory_budget_mib * MIB),
            configuration.cluster.acknowledgement,
        )
        self._state = NodeState(configuration, registry, self._leading, self._following)
        reading = Reading.open(directory, layout, positions, sql_workers=configuration.limits.sql_workers)
        stack.push_async_callback(reading.close)
        contexts = {}
        for group in range(layout.shard_group_count):
            context = GroupContext.open(configuration, group, peers, positions, executor, tracer=tracer)
            stack.callback(context.log.close)
            contexts[group] = context
        for group, context in contexts.items():
            if context.primary == configuration.node.id:
                self._leading[group] = LeadingGroup(context, registry)
        server = grpc.aio.server(options=SERVER_OPTIONS)
        reading_service = ReadingService(reading)
        add_ReadingServicer_to_server(reading_service, server)
        add_SessionsServicer_to_server(
            SessionsService(
                registry,
                layout,
                WriteChecks(configuration.limits.entry_bytes),
                reading_service.list_sessions,
                tracer,
            ),
            server,
        )
        voters = {group: context.voter for group, context in contexts.items()}
        add_ReplicationServicer_to_server(ReplicationService(self._leading, voters), server)
        add_AdministrationServicer_to_server(AdministrationService(configuration, self._state.snapshot), server)
        _listen(server, self._address.grpc_address)
        app = build_app(
            self._state.snapshot,
            routes=reading_routes(reading),
            max_request_bytes=configuration.limits.request_bytes,
        )
        http = await HttpServer.start(app, self._address.http_address)
        stack.push_async_callback(http.stop)
        for group, context in contexts.items():
            if group not in self._leading:
                following = await FollowingGroup.start(context)
                self._following[group] = following
                stack.push_async_callback(following.stop)
        await server.start()
        stack.push_async_callback(server.stop, STOP_SECONDS)
        tasks = [asyncio.create_task(registry.sweep(), name="session sweep")]
        tasks += [
            asyncio.create_task(self._lead(leading), name=f"lead group {group}")
            for group, leading in self._leading.items()
        ]
        stack.push_async_callback(_cancel, tasks)
        for leading in self._leading.values():
            stack.push_async_callback(leading.stop, configuration.replication.acknowledgement_timeout_seconds)

    async def _lead(self, leading: LeadingGroup) -> None:
        try:
            await leading.run()
        except (HeadwaterError, OSError) as error:
            self._state.failures[leading.context.group] = str(error)
            log.exception("group failed", group=leading.context.group)


def _tracer(configuration: NodeConfiguration) -> OpenTelemetryTracer | None:
    """The node's tracer where a collector is configured; else the libraries are not even imported."""
    endpoint = configuration.tracing.endpoint
    if not endpoint:
        return None
    try:
        from agent_core.open_telemetry import OpenTelemetryTracer  # noqa: PLC0415
    except ImportError as error:
        raise HeadwaterError(
            f"tracing.endpoint is {endpoint!r}, and {error.name} is not installed; install headwater[tracing], "
            "or leave the endpoint empty"
        ) from error
    return OpenTelemetryTracer(endpoint, service="headwater", instance=configuration.node.id)


def _listen(server: grpc.aio.Server, address: str) -> None:
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen for gRPC on {address}: {error}") from error


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
