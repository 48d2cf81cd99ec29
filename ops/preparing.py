"""A hand-over is prepared: its successor reads the sessions in use while the old primary still serves them.

An actor holds its whole transcript, so bringing up those of a busy group takes longer than everything else in a
change of primary. What the successor has read is committed and stays true; when it leads, it reads what came since.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

import grpc.aio
import structlog

from agent_core.errors import HeadwaterError
from agent_core.routing import check_session_id
from agent_core.rpc import replication_pb2 as pb
from ops.group_context import GroupContext
from primary.electing.supervisor import PREPARING_SECONDS
from primary.loader import read_session
from primary.registry import SessionRegistry

log = structlog.get_logger(__name__)

MAX_SESSIONS = 1000
ANSWER_SECONDS = 0.25
"""How much sooner the successor ends; what is not read by then is read when it is asked for."""
VISIBLE_SECONDS = 0.1
"""How long a session that was read waits until all of it is known to be committed."""


async def ask_to_prepare(context: GroupContext, registry: SessionRegistry, successor: str) -> None:
    """Let the successor read the sessions in use; a successor that does not answer in time is not waited for."""
    request = pb.PrepareRequest(
        cluster_id=context.cluster.cluster_id,
        group=context.group,
        session_ids=registry.residency.in_use(context.group, MAX_SESSIONS),
    )
    try:
        response = await context.peers.stub(successor).Prepare(request, timeout=PREPARING_SECONDS)
    except grpc.aio.AioRpcError as error:
        log.info("successor is not prepared", group=context.group, node=successor, reason=error.details())
    else:
        log.info("successor is prepared", group=context.group, node=successor, sessions=response.prepared)


async def prepare(context: GroupContext, registry: SessionRegistry, session_ids: Sequence[str]) -> int:
    """Read sessions of a group that this node follows; how many were read in time.

    Raises:
        InvalidRequest: One of them has no session's name.
    """
    prepared = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PREPARING_SECONDS - ANSWER_SECONDS):
            for session_id in map(check_session_id, session_ids[:MAX_SESSIONS]):
                if not await _prepare_one(context, registry, session_id):
                    break
                prepared += 1
    return prepared


async def _prepare_one(context: GroupContext, registry: SessionRegistry, session_id: str) -> bool:
    layout, group = context.cluster.layout, context.group
    shard = layout.shard_of(session_id)
    if layout.group_of(shard) != group:
        return False
    read = partial(read_session, session_id=session_id, shard=shard, group=group)
    try:
        actor, read_at = await context.pool.read(shard, read)
        await context.positions.until_visible(group, read_at, VISIBLE_SECONDS)
    except HeadwaterError:
        return False
    return actor is None or registry.residency.prepare(actor, asyncio.get_running_loop().time())
