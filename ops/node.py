"""The daemon: composes a node from its parts, runs it until SIGTERM or SIGINT, and stops it in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc.aio
import structlog
import uvloop
from fastapi import APIRouter, FastAPI

from agent_core.cluster import NodeAddress
from agent_core.database.build import check_build
from agent_core.database.thread import DatabaseThread
from agent_core.rpc.administration_pb2_grpc import add_AdministrationServicer_to_server
from agent_core.rpc.cluster_pb2_grpc import add_ClusterReadingServicer_to_server
from agent_core.rpc.control_pb2_grpc import add_ControlServicer_to_server
from agent_core.rpc.read_pb2_grpc import add_ReadingServicer_to_server
from agent_core.rpc.replication_pb2_grpc import add_ReplicationServicer_to_server
from agent_core.rpc.session_pb2_grpc import add_SessionsServicer_to_server
from agent_core.rpc.workspace_pb2_grpc import (
    add_WorkspaceReadingServicer_to_server,
    add_WorkspaceWritingServicer_to_server,
)
from agent_core.transport import server_options, stop_server
from ops.administration import AdministrationService
from ops.cluster_routes import cluster_routes
from ops.cluster_service import ClusterReadingService
from ops.cluster_view import ClusterView
from ops.control.control_plane import ControlPlane
from ops.control.view import MapView
from ops.data_directory import DataDirectory, Identity
from ops.group_context import GroupContext, Peers, SharedHeartbeats
from ops.http import HttpServer, build_app
from ops.lasting_tasks import LastingTasks
from ops.membership import GroupMember
from ops.node_state import NodeState
from ops.replication_service import ReplicationService
from ops.settings import MIB, NodeConfiguration
from ops.tracing import open_tracer
from primary.checks import WriteChecks
from primary.forwarding import ForwardingSessions
from primary.loader import SessionLoader
from primary.registry import SessionRegistry
from primary.residency import ResidencySettings
from primary.service import SessionsService
from primary.unlogged import log_unlogged
from primary.workspace.forwarding import ForwardingWorkspaces
from primary.workspace.service import WorkspaceService
from replica.reading.http import reading_routes
from replica.reading.positions import AppliedPositions
from replica.reading.reading import Reading
from replica.reading.service import ReadingService
from replica.reading.sql.limits import SqlLimits
from replica.reading.workspace.http import document_routes
from replica.reading.workspace.reading import DocumentReading
from replica.reading.workspace.service import WorkspaceReadingService

log = structlog.get_logger(__name__)

STOP_SECONDS = 1.0
SWITCH_INTERVAL_SECONDS = 0.0005
"""The database threads give up the interpreter at each SQLite call; the default 5 ms would be their wait."""


def run(configuration: NodeConfiguration) -> int:
    """Run a node until it is told to stop; the process's exit code.

    Raises:
        HeadwaterError: The data directory is another node's, or damaged.
        OSError: An address cannot be listened on, or the disk failed.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    version = check_build()
    log.info("node starts", sqlite=version, data=str(configuration.node.data_directory))
    with DataDirectory.claim(configuration.node.data_directory, Identity.of(configuration)):
        # What start-up made lives as long as the process: the collector need not look at it again and again.
        gc.freeze()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Node(configuration).run())


class Node:
    """One daemon: every group of the cluster, led or followed, and the services around them."""

    def __init__(self, configuration: NodeConfiguration) -> None:
        self._configuration = configuration
        self._cluster = configuration.cluster_map
        self._address = configuration.own_address
        self._members: dict[int, GroupMember] = {}

    async def run(self) -> int:
        """Start everything, wait for a signal, stop everything: 0 unless a group failed."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._state.starting = False
            log.info("node serves", grpc=self._address.grpc_address, http=self._address.http_address)
            await stop.wait()
            log.info("node stops")
            self._state.stopping = True
        log.info("node stopped")
        return 0

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        configuration, layout = self._configuration, self._cluster.layout
        executor = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="promises"))
        positions = AppliedPositions(layout.shard_group_count)
        peers = Peers(self._cluster)
        stack.push_async_callback(peers.close)
        heartbeats = SharedHeartbeats.of(configuration, peers)
        tracer = open_tracer(configuration.tracing.endpoint, service="headwater", instance=configuration.node.id)
        if tracer is not None:
            stack.push_async_callback(asyncio.to_thread, tracer.close)
        directory = configuration.node.data_directory
        view = MapView()
        tasks = LastingTasks()
        loader = await DatabaseThread.start(lambda: SessionLoader(directory, layout), name="session loader")
        stack.push_async_callback(loader.close)
        registry = SessionRegistry(
            layout,
            lambda group: self._primary_of(view, group),
            loader,
            ResidencySettings(configuration.sessions.idle_seconds, configuration.sessions.memory_budget_mib * MIB),
            configuration.cluster.acknowledgement,
        )
        limits = configuration.limits
        reading = Reading.open(
            directory,
            layout,
            positions,
            sql_workers=limits.sql_workers,
            sql_limits=SqlLimits(
                limits.sql_seconds, limits.sql_rows, limits.sql_result_bytes, limits.sql_memory_mib * MIB
            ),
            age_of=self._age_of,
        )
        stack.push_async_callback(reading.close)
        control = await ControlPlane.open(configuration, view, peers, self._members, tasks)
        stack.push_async_callback(control.stop)
        self._state = NodeState(
            configuration, registry, reading, self._members, view=view, control=control, tasks=tasks
        )
        for group in range(layout.shard_group_count):
            context = GroupContext.open(
                configuration,
                group,
                peers=peers,
                heartbeats=heartbeats,
                positions=positions,
                view=view,
                pool=reading.pool,
                executor=executor,
                tracer=tracer,
            )
            stack.callback(context.log.close)
            led_epoch = context.voter.promise.given_to(configuration.node.id)
            await asyncio.to_thread(log_unlogged, directory, layout, group, context.log, led_epoch=led_epoch)
            self._members[group] = GroupMember(context, registry, tasks, on_news=control.attending.news)
        server = grpc.aio.server(options=server_options())
        reading_service = ReadingService(reading)
        add_ReadingServicer_to_server(reading_service, server)
        sessions = SessionsService(
            registry,
            layout,
            WriteChecks(configuration.limits.entry_bytes),
            reading_service.list_sessions,
            tracer,
        )
        forwarding = ForwardingSessions(
            sessions,
            layout,
            elsewhere=lambda group: self._primary_of(view, group),
            moved=view.changed,
            stub_of=peers.sessions,
        )
        add_SessionsServicer_to_server(forwarding, server)
        self._serve_workspaces(server, registry, reading, view, peers)
        add_ReplicationServicer_to_server(ReplicationService(self._members, heartbeats.given), server)
        add_ControlServicer_to_server(control.service, server)
        administration = AdministrationService(configuration, view, self._state.snapshot, self._members)
        add_AdministrationServicer_to_server(administration, server)
        cluster_view = self._serve_cluster_view(server, view)
        _listen(server, self._address.grpc_address)
        http = await HttpServer.start(self._app(reading, cluster_view), self._address.http_address)
        stack.push_async_callback(http.stop)
        await server.start()
        stack.push_async_callback(stop_server, server, STOP_SECONDS)
        stack.push_async_callback(control.leave)
        for member in self._members.values():
            member.start()
            stack.push_async_callback(member.stop, configuration.replication.acknowledgement_timeout_seconds)
        await control.start()
        stack.push_async_callback(tasks.start("the sweep of idle sessions", registry.sweep).stop)

    def _serve_workspaces(
        self, server: grpc.aio.Server, registry: SessionRegistry, reading: Reading, view: MapView, peers: Peers
    ) -> None:
        layout = self._cluster.layout
        group = layout.group_of(layout.workspace_shard)
        writing = ForwardingWorkspaces(
            WorkspaceService(registry, layout, self._configuration.cluster.acknowledgement),
            lambda: self._primary_of(view, group),
            peers.workspaces,
        )
        add_WorkspaceWritingServicer_to_server(writing, server)
        add_WorkspaceReadingServicer_to_server(WorkspaceReadingService(DocumentReading(reading)), server)

    def _serve_cluster_view(self, server: grpc.aio.Server, view: MapView) -> ClusterView:
        cluster_view = ClusterView(
            self._state.snapshot,
            self._cluster,
            placement_of=view.placement,
            age_of=self._age_of,
        )
        add_ClusterReadingServicer_to_server(ClusterReadingService(cluster_view), server)
        return cluster_view

    def _app(self, reading: Reading, cluster_view: ClusterView) -> FastAPI:
        routes = APIRouter()
        for of_part in (
            reading_routes(reading),
            document_routes(DocumentReading(reading)),
            cluster_routes(cluster_view),
        ):
            routes.include_router(of_part)
        return build_app(
            self._state.snapshot, routes=routes, max_request_bytes=self._configuration.limits.request_bytes
        )

    def _primary_of(self, view: MapView, group: int) -> NodeAddress | None:
        """The other node that leads a group; None while this one does, or nobody."""
        placement = view.placement(group)
        if placement.primary is None or placement.primary == self._configuration.node.id:
            return None
        if self._members[group].sealed_epoch > placement.epoch:
            return None
        return self._cluster.node(placement.primary)

    def _age_of(self, group: int) -> float:
        return self._members[group].age_seconds


def _listen(server: grpc.aio.Server, address: str) -> None:
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        # gRPC's own words name only an environment variable of its own.
        raise OSError(
            f"cannot listen for gRPC on {address}: it is in use, or no address of this machine; "
            "stop what uses it, or give this node another grpc address in [[nodes]]"
        ) from error
