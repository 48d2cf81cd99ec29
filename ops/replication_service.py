"""The Replication service: finds the group that a call is about and hands it over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from grpc.aio import ServicerContext

from agent_core.errors import HeadwaterError, InvalidRequest, NotPrimary, Unavailable, WrongCluster
from agent_core.rpc import replication_pb2 as pb
from agent_core.rpc.replication_pb2_grpc import ReplicationServicer
from agent_core.rpc_errors import abort
from ops.leading import LeadingGroup
from primary.heartbeats import Heartbeats

if TYPE_CHECKING:
    from ops.membership import GroupMember


class ReplicationService(ReplicationServicer):
    """Serves standbys of the groups that this node leads, and candidates of all groups."""

    def __init__(self, members: Mapping[int, GroupMember], heartbeats: Heartbeats) -> None:
        self._members = members
        self._heartbeats = heartbeats

    async def Stream(  # type: ignore[override] # noqa: N802 - it writes to the context instead of yielding
        self, request_iterator: AsyncIterator[pb.FromStandby], context: ServicerContext[Any, Any]
    ) -> None:
        """One standby's stream; always ends with an error's status."""
        try:
            first = await anext(request_iterator, None)
            if first is None or not first.HasField("hello"):
                raise InvalidRequest("a stream begins with a hello")
            await self._member(first.hello.group).settled()
            streams = self._group(first.hello.group).streams
            if streams is None:
                raise Unavailable(f"group {first.hello.group} is not led from here yet")
        except HeadwaterError as error:
            await abort(context, error)
        await streams.serve(first.hello, request_iterator, context)

    async def Heartbeats(  # noqa: N802 - the name in the proto
        self, request_iterator: AsyncIterator[pb.FromListener], context: ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.Heartbeat]:
        """A standby listens for all its streams at once."""
        try:
            first = await anext(request_iterator, None)
            if first is None or not first.HasField("listen"):
                raise InvalidRequest("a stream of heartbeats begins with who listens")
            async with aclosing(self._heartbeats.serve(first.listen, request_iterator)) as heartbeats:
                async for heartbeat in heartbeats:
                    yield heartbeat
        except HeadwaterError as error:
            await abort(context, error)

    async def Resync(  # type: ignore[override] # noqa: N802 - as above
        self, request_iterator: AsyncIterator[pb.ResyncRequest], context: ServicerContext[Any, Any]
    ) -> None:
        """One shard's resync."""
        try:
            first = await anext(request_iterator, None)
            if first is None or not first.HasField("start"):
                raise InvalidRequest("a resync begins with a start")
            source = self._group(first.start.group).source
            if source is None:
                raise Unavailable(f"group {first.start.group} is not led from here yet")
            await source.answer(_with_first(first, request_iterator), context.write)
        except HeadwaterError as error:
            await abort(context, error)

    async def Seal(  # noqa: N802 - the name in the proto
        self, request: pb.SealRequest, context: ServicerContext[Any, Any]
    ) -> pb.SealResponse:
        """A candidate asks for this node's promise."""
        try:
            return await self._member(request.group).context.voter.seal(request)
        except HeadwaterError as error:
            await abort(context, error)
        except OSError as error:
            await abort(context, Unavailable(f"the promise could not be made durable: {error}"))

    async def Prepare(  # noqa: N802 - the name in the proto
        self, request: pb.PrepareRequest, context: ServicerContext[Any, Any]
    ) -> pb.PrepareResponse:
        """The group's primary will hand over to this node."""
        try:
            member = self._member(request.group)
            if request.cluster_id != member.context.cluster.cluster_id:
                raise WrongCluster(
                    f"cluster_id is {request.cluster_id!r}; this node is of cluster "
                    f"{member.context.cluster.cluster_id!r}"
                )
            return pb.PrepareResponse(prepared=await member.prepare(request.session_ids))
        except HeadwaterError as error:
            await abort(context, error)

    def _group(self, group: int) -> LeadingGroup:
        leading = self._member(group).leading
        if leading is None:
            raise NotPrimary(f"group {group} is not led by this node")
        return leading

    def _member(self, group: int) -> GroupMember:
        member = self._members.get(group)
        if member is None:
            known = f"the groups 0 to {len(self._members) - 1}" if self._members else "no group yet"
            raise InvalidRequest(f"group is {group}; this node knows {known}")
        return member


async def _with_first(
    first: pb.ResyncRequest, rest: AsyncIterator[pb.ResyncRequest]
) -> AsyncIterator[pb.ResyncRequest]:
    yield first
    async for request in rest:
        yield request
