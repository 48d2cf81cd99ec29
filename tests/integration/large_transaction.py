"""One side of a stream as a process of its own, which tells how much memory one large transaction took there.

`large_transaction primary DIRECTORY MEGABYTES` or `large_transaction standby DIRECTORY PORT`. Out, one JSON object
a line. The primary: `{"port": …}`, then `{"ready": true}` once its standby has the empty shards, and at the end
`{"streams": …, "transaction_bytes": …, "peak_bytes": …, "held_bytes": …}`. The standby: `{"peak_bytes": …}`. A line
on the standard input ends it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import structlog

from agent_core.database.thread import DatabaseThread
from agent_core.errors import Unavailable
from agent_core.log.log import ReplicationLog
from agent_core.quorum import Acknowledgement, CommitTracker
from agent_core.routing import ShardLayout
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc.replication_pb2_grpc import ReplicationStub, add_ReplicationServicer_to_server
from agent_core.rpc.session_pb2 import Session
from agent_core.transport import NODE_CHANNEL_OPTIONS, close_channel, server_options, stop_server
from primary.actor import SessionActor
from primary.greeting import Identity
from primary.group_database import GroupDatabase
from primary.mutation import Append, Creation, Transaction, Waiter
from primary.streaming import StandbyStreams
from replica.following import Follower
from replica.incoming import FollowerSettings
from replica.promises import PromiseFile
from replica.standby_group import StandbyGroup
from replica.voter import Voter
from tests.integration.stream_harness import CLUSTER, StreamOnly
from tests.waiting import until

LAYOUT = ShardLayout(shard_count=1, shard_group_count=1)
SHARD = 0
ENTRY_BYTES = 1 << 20
DEADLINE_SECONDS = 120.0
"""Of each step: the machine may be busy."""


class MemoryUse:
    """This process's resident memory, above what it was when this was made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
        self._before = self._status("VmRSS")

    @property
    def peak_bytes(self) -> int:
        """The most it was."""
        return self._status("VmHWM") - self._before

    @property
    def held_bytes(self) -> int:
        """What it is now."""
        return self._status("VmRSS") - self._before

    @staticmethod
    def _status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        (kib,) = (line.split()[1] for line in lines if line.startswith(name))
        return int(kib) << 10


class Nobody:
    """Whoever wrote does not wait for the answer."""

    def appended(self, *_position: object, duplicate: bool) -> None:
        """Not told."""

    def failed(self, *_error: object) -> None:
        """Likewise."""


class Streams(StreamOnly):
    """Serves a primary's streams."""

    def __init__(self, streams: StandbyStreams) -> None:
        self._streams = streams

    async def Stream(  # type: ignore[override]  # noqa: N802 - gRPC's name; the asynchronous form of it
        self, request_iterator: AsyncIterator[pb.FromStandby], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        first = await anext(aiter(request_iterator))
        await self._streams.serve(first.hello, request_iterator, context)


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def large_transaction(size: int) -> Transaction:
    """A session with entries of `size` bytes in all that hardly compress."""
    actor = SessionActor(Session(session_id="large", metadata_json=b"{}"), SHARD, 0)
    mutations: list[Creation | Append] = [Creation(actor, 0, Waiter(Acknowledgement.QUORUM, Nobody(), 0))]
    for seq in range(1, size // ENTRY_BYTES + 1):
        payload = b'"%s"' % base64.b64encode(os.urandom(ENTRY_BYTES // 4 * 3))
        append = Append(
            actor, Waiter(Acknowledgement.QUORUM, Nobody(), seq), kind="message", payload=payload,
            created_at_ms=0, idempotency_key="",
        )  # fmt: skip
        append.seq = seq
        mutations.append(append)
    return Transaction(SHARD, mutations)


async def lead(directory: Path, size: int) -> None:
    """Commit, log and stream one large transaction; tell once the standby has applied it."""
    log = ReplicationLog.open(directory / "log", cluster_id=CLUSTER, group=0)
    thread = await DatabaseThread.start(
        lambda: GroupDatabase.open(directory, LAYOUT, group=0, epoch=1, log=log, checkpoint_bytes=16 << 20),
        name="group 0",
    )
    beginning = await thread.run(thread.owned.begin_epoch, CLUSTER)
    tracker = CommitTracker("primary", frozenset({"primary", "standby"}), beginning.opening_lsn)
    loop = asyncio.get_running_loop()

    def durable(node: str, lsn: int) -> None:
        if tracker.durable(node, lsn):
            streams.doorbell.ring()

    streams = StandbyStreams(
        Identity(CLUSTER, LAYOUT, 0, "primary", 1),
        log,
        voters=tracker.voters,
        committed=lambda: tracker.committed_lsn,
        on_durable=durable,
        on_hello=tracker.goes_on_from,
        on_fenced=lambda _epoch: None,
    )
    server = grpc.aio.server(options=server_options())
    add_ReplicationServicer_to_server(Streams(streams), server)
    say(port=server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    durable("primary", log.durable_lsn)
    standby = streams.progress["standby"]
    await until(lambda: standby.applied_lsn == log.last.lsn, seconds=DEADLINE_SECONDS)
    transactions = [large_transaction(size)]
    memory = MemoryUse()
    say(ready=True)
    written = await thread.run(
        thread.owned.write, transactions, lambda: loop.call_soon_threadsafe(streams.doorbell.ring)
    )
    assert transactions[0].error is None, transactions[0].error
    durable("primary", written.durable_lsn)
    await until(lambda: standby.applied_lsn == log.last.lsn, seconds=DEADLINE_SECONDS)
    say(
        streams=streams.counters.streams,
        transaction_bytes=written.wal_bytes,
        peak_bytes=memory.peak_bytes,
        held_bytes=memory.held_bytes,
    )
    await told_to_end()
    await streams.close(Unavailable("the test ends"))
    await stop_server(server)
    await thread.close()
    log.close()


async def follow(directory: Path, port: int) -> None:
    """Follow until the large transaction, the first that a client asked for, is applied."""
    log = ReplicationLog.open(directory / "log", cluster_id=CLUSTER, group=0)
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=NODE_CHANNEL_OPTIONS)
    stub = ReplicationStub(channel)
    shards = await StandbyGroup.open(
        directory, cluster_id=CLUSTER, node_id="standby", layout=LAYOUT, group=0, log=log, exchange=stub.Resync
    )
    promises = PromiseFile(directory / "promise", cluster_id=CLUSTER, group=0)
    voter = Voter(promises, node_id="standby", cluster_id=CLUSTER, group=0, last=lambda: log.last)
    follower = Follower(
        node_id="standby",
        cluster_id=CLUSTER,
        layout=LAYOUT,
        group=0,
        replication_log=log,
        voter=voter,
        shards=shards,
        presume=lambda _misled: "primary",
        connect=lambda _node: stub,
        settings=FollowerSettings(silence_seconds=DEADLINE_SECONDS),
    )
    following = asyncio.create_task(follower.run())
    await until(lambda: shards.applied.lsn and shards.applied == log.last, seconds=DEADLINE_SECONDS)
    memory, before = MemoryUse(), shards.applied
    await until(lambda: shards.applied > before, seconds=DEADLINE_SECONDS)
    say(peak_bytes=memory.peak_bytes)
    await told_to_end()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await shards.close()
    await close_channel(channel)
    log.close()


async def told_to_end() -> None:
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    role, path, number = sys.argv[1:]
    asyncio.run(lead(Path(path), int(number) << 20) if role == "primary" else follow(Path(path), int(number)))
