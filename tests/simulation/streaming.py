"""The streams of a simulated primary: the order of steps of `primary/streaming.py`.

The shared heartbeats of streams that rest go beside these, where nothing keeps them in order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from agent_core.errors import Fenced, InvalidRequest
from agent_core.rpc import replication_pb2 as pb
from agent_core.stream import to_message
from primary.greeting import Identity, check_hello, greet
from primary.heartbeats import Listener, SpokenFor
from primary.progress import StandbyProgress, StandbyState
from tests.simulation.network import Stream
from tests.simulation.storage import GROUP

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode


class SimulatedStreams:
    """Every standby of one epoch.

    Attributes:
        progress: Each standby that said hello, by node.
    """

    def __init__(
        self,
        node: SimulatedNode,
        identity: Identity,
        *,
        committed: Callable[[], int],
        on_durable: Callable[[str, int], None],
        on_hello: Callable[[str, int], None],
        on_heard: Callable[[str, float], None],
        on_fenced: Callable[[int], None],
    ) -> None:
        """Serve standbys; the callables are those of `StandbyStreams`."""
        self.node = node
        self.progress: dict[str, StandbyProgress] = {}
        self._identity = identity
        self._log = node.disk.log
        self._committed = committed
        self._on_durable = on_durable
        self._on_hello = on_hello
        self._on_heard = on_heard
        self._on_fenced = on_fenced
        self._streams: dict[str, Stream] = {}
        self._told_committed: dict[str, int] = {}
        self._told_last: dict[str, int] = {}
        self._listeners: dict[str, Listener] = {}

    def hello(self, stream: Stream, hello: pb.Hello) -> None:
        """A standby wants to follow."""
        node = self.node
        try:
            theirs = check_hello(hello, self._identity)
        except Fenced as error:
            stream.end(node, "fenced")
            self._on_fenced(error.held)
            return
        name = hello.node_id
        before = self._streams.pop(name, None)
        if before is not None:
            before.end(node, "a newer stream took its place")
        progress = self.progress.setdefault(
            name, StandbyProgress(name, node.clock(), window_bytes=node.window_bytes)
        )
        committed_lsn = self._committed()
        greeting = greet(self._log.epochs, theirs, committed_lsn)
        progress.become_probing(node.clock())
        position = to_message(greeting.position)
        welcome = pb.Welcome(
            epoch=self._identity.epoch,
            primary=node.name,
            shared=None if greeting.resync_required else position,
            resync_required=greeting.resync_required,
            base=position if greeting.resync_required else None,
            committed_lsn=committed_lsn,
        )
        self._streams[name] = stream
        self._told_committed[name] = committed_lsn
        self._told_last[name] = -1
        spoken_for = SpokenFor(
            pb.LedGroup(group=GROUP, epoch=self._identity.epoch),
            rests=partial(self._rests, name),
            on_heard=partial(self._on_heard, name),
        )
        self._listeners[name] = Listener({GROUP: spoken_for})
        if greeting.resync_required:
            progress.become_resyncing(greeting.position.lsn, node.clock())
        else:
            progress.become_streaming(greeting.position.lsn, node.clock())
        self._on_hello(name, 0 if greeting.resync_required else greeting.position.lsn)
        stream.send(node, "welcome", welcome)
        self._pump(name)

    def ended(self, stream: Stream) -> None:
        """A standby's stream ended, or it broke."""
        for name, open_stream in list(self._streams.items()):
            if open_stream is stream:
                del self._streams[name]
                if self.progress[name].state is not StandbyState.RESYNCING:
                    self.progress[name].become_gone(self.node.clock())

    def reported(self, stream: Stream, durable_lsn: int, applied_lsn: int, heard_us: int) -> None:
        """A standby told how far it is."""
        name = stream.other(self.node).name
        if self._streams.get(name) is not stream:
            return
        try:
            self.progress[name].acknowledge(durable_lsn, applied_lsn)
        except InvalidRequest as error:
            self.node.note("ends the stream of", name, error)
            del self._streams[name]
            stream.end(self.node, "invalid")
            return
        self._on_durable(name, durable_lsn)
        self._on_heard(name, heard_us / 1e6)
        if name in self._streams:
            self._pump(name)

    def echoed(self, name: str, echo: pb.Echo) -> None:
        """A standby heard a shared heartbeat."""
        if name in self._streams:
            self._listeners[name].echoed(echo)

    def beat(self) -> None:
        """A heartbeat is due."""
        for name in list(self._streams):
            self._pump(name)
            if name not in self._streams:
                continue
            node = self.node
            heartbeat = self._listeners[name].heartbeat(node.clock())
            if heartbeat is None:
                self._send(name)
            else:
                node.network.send(node, node.peers[name], "heartbeat", node, heartbeat)

    def _rests(self, name: str) -> bool:
        last_lsn = self._log.last.lsn
        return self._told_last[name] == last_lsn and self.progress[name].holds(last_lsn)

    def pump_all(self) -> None:
        """The log has grown, or more is committed."""
        for name in list(self._streams):
            self._pump(name)

    def close(self) -> None:
        """End every stream: another node may lead."""
        for stream in self._streams.values():
            stream.end(self.node, "handed over")
        self._streams.clear()

    def _pump(self, name: str) -> None:
        progress = self.progress[name]
        while progress.state is StandbyState.STREAMING and progress.sent_lsn < self._log.last.lsn:
            if progress.sent_lsn < self._log.base.lsn:
                self._streams.pop(name).end(self.node, "position compacted")
                progress.become_gone(self.node.clock())
                return
            records = self._log.after(progress.sent_lsn, self.node.message_records)
            block = b"".join(record.encoded for record in records)
            if not progress.may_send(len(block)):
                return
            progress.sent(records[-1].position.lsn, len(block))
            self._send(name, records[0].position.lsn, block)
        if self._committed() > self._told_committed[name]:
            self._send(name)

    def _send(self, name: str, first_lsn: int = 0, block: bytes = b"") -> None:
        stream = self._streams.get(name)
        if stream is None:
            return
        committed_lsn = self._told_committed[name] = self._committed()
        message = pb.Records(
            epoch=self._identity.epoch,
            first_lsn=first_lsn,
            records=block,
            committed_lsn=committed_lsn,
            last_lsn=self._log.last.lsn,
            bytes_behind=0,
            sent_at_us=int(self.node.clock() * 1e6),
        )
        self._told_last[name] = message.last_lsn
        stream.send(self.node, "records", message)
