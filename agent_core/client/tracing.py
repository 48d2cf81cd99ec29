"""The first stage of a traced append: from its call to its outcome, all attempts together."""

from __future__ import annotations

from agent_core.client.append_stream import AppendStream
from agent_core.client.model import Appended
from agent_core.rpc.session_pb2 import AppendRequest
from agent_core.tracing import Tracer


async def traced_append(tracer: Tracer, appends: AppendStream, request: AppendRequest) -> Appended:
    """Append with a span around it; the context goes along, so that the nodes add their stages.

    Raises:
        HeadwaterError: As `AppendStream.append`.
    """
    span = tracer.begin("append", "client")
    if span is None:
        return await appends.append(request)
    request.traceparent = span.traceparent
    span.note(session=request.session_id, kind=request.kind, bytes=len(request.payload_json))
    try:
        appended = await appends.append(request)
    except BaseException as error:
        span.end(f"{type(error).__name__}: {error}")
        raise
    span.note(seq=appended.seq, epoch=appended.position.epoch, lsn=appended.position.lsn)
    span.end()
    return appended
