"""One heartbeat for all streams between two nodes that have nothing else to tell.

A node that leads many groups would else wake for each stream of each of them, and so would its standbys, for as
long as nobody asks for anything. A stream beats by itself whenever no shared heartbeat speaks for it: while it has
something to tell, while its standby does not listen, and while what was shared is not answered.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from agent_core.errors import InvalidRequest, WrongCluster
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import HEARTBEAT_SECONDS
from agent_core.ticks import next_tick

UNANSWERED = 2
"""After so many shared heartbeats without an answer each stream beats by itself: its connection may be another."""


@dataclass(frozen=True, slots=True)
class SpokenFor:
    """A stream as a shared heartbeat sees it.

    Attributes:
        led: The shard group, and the epoch in which it is led.
        rests: Whether the stream has nothing to tell; it then leaves its own next heartbeat to the shared one.
        on_heard: Told the moment, on the loop's clock, at which a heartbeat was sent that the standby has heard.
    """

    led: pb.LedGroup
    rests: Callable[[], bool]
    on_heard: Callable[[float], None]


class Heartbeats:
    """The shared heartbeats of a node to all standbys of all groups that it leads. Runs on the event loop."""

    def __init__(self, cluster_id: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        """Serve listeners of one cluster, each once in `heartbeat_seconds`."""
        self._cluster_id = cluster_id
        self._heartbeat_seconds = heartbeat_seconds
        self._streams: defaultdict[str, dict[int, SpokenFor]] = defaultdict(dict)

    @contextmanager
    def speak_for(self, node: str, stream: SpokenFor) -> Iterator[None]:
        """Let shared heartbeats to `node` speak for a stream to it as long as it stands."""
        streams, group = self._streams[node], stream.led.group
        streams[group] = stream
        try:
            yield
        finally:
            if streams.get(group) is stream:
                del streams[group]

    async def serve(
        self, listen: pb.Listen, requests: AsyncIterator[pb.FromListener]
    ) -> AsyncGenerator[pb.Heartbeat, None]:
        """Serve one listener until it leaves.

        Args:
            listen: Who listens.
            requests: What it sends after that.

        Raises:
            WrongCluster: It is of another cluster.
            InvalidRequest: It names no node, or sends something else than echoes.
        """
        if listen.cluster_id != self._cluster_id:
            raise WrongCluster(f"cluster_id is {listen.cluster_id!r}; this node is of cluster {self._cluster_id!r}")
        if not listen.node_id:
            raise InvalidRequest("node_id is empty; allowed is the name of a node")
        listener = Listener(self._streams[listen.node_id])
        hearing = asyncio.create_task(_hear(listener, requests), name=f"echoes of {listen.node_id}")
        try:
            while not hearing.done():
                heartbeat = listener.heartbeat(asyncio.get_running_loop().time())
                if heartbeat is not None:
                    yield heartbeat
                await next_tick(self._heartbeat_seconds)
            hearing.result()
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)


async def _hear(listener: Listener, requests: AsyncIterator[pb.FromListener]) -> None:
    async for message in requests:
        if not message.HasField("echo"):
            raise InvalidRequest("after it said who listens a standby sends nothing but echoes")
        listener.echoed(message.echo)


class Listener:
    """A standby that listens. Pure."""

    def __init__(self, streams: Mapping[int, SpokenFor]) -> None:
        """Speak for `streams`, by group: those that stand at each moment."""
        self._streams = streams
        self._unanswered = 0

    def heartbeat(self, now: float) -> pb.Heartbeat | None:
        """What to send; None when every stream speaks for itself."""
        if self._unanswered >= UNANSWERED:
            return None
        groups = [stream.led for stream in self._streams.values() if stream.rests()]
        if not groups:
            return None
        self._unanswered += 1
        return pb.Heartbeat(sent_at_us=int(now * 1e6), groups=groups)

    def echoed(self, echo: pb.Echo) -> None:
        """The standby heard a heartbeat, for the groups that it names."""
        self._unanswered = 0
        for led in echo.groups:
            stream = self._streams.get(led.group)
            # In another epoch the voter may have been released since: no lease can rest on that.
            if stream is not None and stream.led.epoch == led.epoch:
                stream.on_heard(echo.heard_us / 1e6)
