"""A simulated node: its process comes and goes, its disk stays. The order of steps of `ops/membership.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent_core.control.cluster_map import Placement
from agent_core.position import START, Position
from agent_core.rpc import replication_pb2 as pb
from primary.electing.exchange import GroupReport
from primary.opening import Vote
from primary.succession import PATIENCE_SECONDS
from replica.voting import SealQuestion, presumed_primary
from tests.simulation.checkers import Checkers
from tests.simulation.decisions import Decisions
from tests.simulation.following import SimulatedFollowing
from tests.simulation.leading import SimulatedLeading
from tests.simulation.network import Endpoint, Network, Stream
from tests.simulation.storage import GROUP, Entry, RecordMint, SimulatedDisk
from tests.simulation.voter import SimulatedVoter

if TYPE_CHECKING:
    from tests.simulation.attending import SimulatedAttending
    from tests.simulation.control import SimulatedRaft, SimulatedSupervising

START_AGAIN_SECONDS = 1.0
TIDY_SECONDS = 1.0
READ_WAIT_SECONDS = 0.5
BEGIN_SECONDS = 1.0


class SimulatedNode:
    """One node.

    Attributes:
        up: Whether its process runs; one that is paused runs.
        disk: Outlives the process.
        peers: All nodes by name.
        placement: Who leads the group, as this node heard last.
        sealed_epoch: The epoch that it leads, from its seal on.
        supervising: While it believes that it is the Raft leader.
    """

    attending: SimulatedAttending
    voter: SimulatedVoter

    def __init__(
        self,
        name: str,
        network: Network,
        raft: SimulatedRaft,
        checkers: Checkers,
        decisions: Decisions,
        *,
        mint: RecordMint,
        voters: frozenset[str],
        peers: Mapping[str, SimulatedNode],
    ) -> None:
        world = network.world
        self.name, self.network, self.raft = name, network, raft
        self.world, self.checkers, self.decisions, self.mint = world, checkers, decisions, mint
        self.voters, self.peers = voters, peers
        self.up = False
        self.disk = SimulatedDisk()
        self.paused_until = 0.0
        self.incarnation = 0
        self.streams: list[Stream] = []
        self.supervising: SimulatedSupervising | None = None
        self.message_records = world.random.choice((1, 1, 4, 64))
        self.window_bytes = world.random.choice((150, 400, 100_000))
        self.keep_records: int | None = world.random.choice((None, 5, 40))
        self.on_serving: Callable[[SimulatedNode], None] = lambda _node: None
        self.on_sealing: Callable[[SimulatedNode], None] = lambda _node: None
        self._rate = world.between(0.98, 1.02)
        self._offset = world.between(0.0, 1000.0)

    # The process

    def start(self) -> None:
        """Start the process."""
        from tests.simulation.attending import SimulatedAttending

        self.note("starts")
        self.up = True
        self.incarnation += 1
        self.paused_until = 0.0
        self.placement = Placement()
        self.sealed_epoch = 0
        self.applied = START
        self.following: SimulatedFollowing | None = None
        self.leading: SimulatedLeading | None = None
        self._answered = 0
        self._presumed = ""
        self._succession_until = 0.0
        self.checkers.restarts(self.name)
        self.voter = SimulatedVoter(self)
        self.attending = SimulatedAttending(self)
        self.raft.node_started(self)
        self.follow()
        if self.keep_records is not None:
            self.after(TIDY_SECONDS, self._tidy)

    def crash(self, *, power_cut: bool) -> None:
        """End the process at once."""
        self.note("loses power" if power_cut else "is killed")
        self.up = False
        self.incarnation += 1
        self.disk.crash(self.world.random, power_cut=power_cut)
        self.supervising = None
        for stream in self.streams:
            if stream.open:
                stream.reset(self)
        self.streams.clear()

    def pause(self, seconds: float) -> None:
        """Stop the process for a while, as SIGSTOP does."""
        self.note("is stopped for", f"{seconds:.3f} s")
        self.paused_until = self.world.now + seconds

    @property
    def paused(self) -> bool:
        """Whether its process stands still."""
        return self.world.now < self.paused_until

    def clock(self) -> float:
        """Its own clock, which runs a little faster or slower than others."""
        return self._offset + self.world.now * self._rate

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let this process do something later, by its own clock."""
        self.world.after(seconds / self._rate, self._do, self.incarnation, action, arguments)

    def _do(self, incarnation: int, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if incarnation != self.incarnation:
            return
        if self.paused:
            # What has gathered meanwhile is taken up in any order: timers and messages are due at once.
            wait = self.paused_until - self.world.now + self.world.between(0.0, 0.003)
            self.world.after(wait, self._do, incarnation, action, arguments)
            return
        action(*arguments)

    def deliver(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A message has come."""
        if self.up:
            self._do(self.incarnation, getattr(self, method), arguments)

    def sync_seconds(self) -> float:
        """How long the next sync takes."""
        return self.world.between(0.0003, 0.002) * self.disk.slowness

    def open_stream(self, server: Endpoint) -> Stream:
        """Begin a call to another node."""
        stream = Stream(self.network, self, server)
        self.streams.append(stream)
        if isinstance(server, SimulatedNode):
            server.streams.append(stream)
        if len(self.streams) > 50:
            self.streams = [each for each in self.streams if each.open]
        return stream

    def note(self, what: str, *details: object) -> None:
        """Put a line into the trace."""
        self.world.note(self.name, what, *details)

    # The group's life

    def follow(self) -> None:
        """Follow the group's primary."""
        self.leading = None
        self.sealed_epoch = 0
        self.following = SimulatedFollowing(self)
        self.publish(self.following.standby.visible)
        self.attending.news()

    def lead(self, epoch: int, *, unlogged: bool) -> None:
        """Lead an epoch that a majority has sealed."""
        assert self.following is not None, "it stood for election"
        self.following.stop()
        self.following = None
        self.leading = SimulatedLeading(self, epoch, unlogged=unlogged)

    def fail_group(self) -> None:
        """Take no part for a moment, then follow again."""
        if self.following is not None:
            self.following.stop()
        self.following = None
        self.sealed_epoch = 0
        self.after(START_AGAIN_SECONDS, self.follow)

    def presumed_primary(self, *, misled: bool = False) -> str | None:
        """The node to follow."""
        misled_by = self._presumed if misled else ""
        name = presumed_primary(self.voter.promise, self.placement, node_id=self.name, misled_by=misled_by)
        self._presumed = name or ""
        return name

    def probe_primary(self, then: Callable[..., None]) -> None:
        """Find out whether the process of the node to follow has ended for certain."""
        heard = self.voter.watch.primary or self.voter.promise.candidate
        gone = heard == self.name or (heard in self.peers and self.network.refuses(self.name, self.peers[heard]))
        self.after(self.world.between(0.0005, 0.01 if gone else 0.3), then, gone)

    def publish(self, position: Position) -> None:
        """The shards contain everything up to `position`, or, at a primary, a quorum holds it."""
        if position > self.applied:
            self.applied = position
            self.checkers.publishes(self.name, position)

    def succession_begins(self) -> None:
        """Its group's primary changes from this node or to it: callers wait a moment instead of being refused."""
        self._succession_until = self.clock() + PATIENCE_SECONDS

    def succession_ends(self) -> None:
        """It is known who leads."""
        self._succession_until = 0.0

    def primary_changed(self) -> None:
        """Another node may lead, by the map or by this node's own promise."""
        if self.following is not None:
            primary = presumed_primary(self.voter.promise, self.placement, node_id=self.name)
            self.following.try_now(elsewhere=primary != self._presumed)

    def learn(self, placement: Placement) -> None:
        """The map shows another primary."""
        if placement.epoch <= self.placement.epoch:
            return
        self.placement = placement
        if placement.epoch > self.sealed_epoch and placement.primary != self.name:
            self.succession_ends()
        self.primary_changed()
        if self.leading is not None:
            self.leading.placed(placement.epoch)

    def answer(self, number: int) -> None:
        """The supervisor shall know that this node is done with a nomination, or a request to hand over."""
        self._answered = number
        self.attending.news()

    def report(self) -> GroupReport:
        """What the supervisor shall know."""
        following = self.following
        hears, silent_seconds = "", 0.0
        if following is not None and (following.resyncing or following.heard_at is not None):
            hears = following.primary
            silent_seconds = 0.0 if following.resyncing else self.clock() - (following.heard_at or 0.0)
        return GroupReport(
            group=GROUP,
            leads_epoch=self.sealed_epoch,
            last=self.disk.log.last,
            hears=hears,
            silent_seconds=silent_seconds,
            answered=self._answered,
            able=following is not None and following.able,
        )

    def nominate(self, number: int) -> None:
        """The supervisor wants this node to lead."""
        if self.following is None:
            self.answer(number)
        else:
            self.following.nominate(number)

    def hand_over(self, to: str, number: int) -> None:
        """The supervisor wants this primary to step down in favour of `to`."""
        if self.leading is None:
            self.answer(number)
        else:
            self.leading.hand_over(to, number)

    def _tidy(self) -> None:
        assert self.keep_records is not None, "this node bounds its log"
        if self.leading is not None:
            self.leading.tidy(self.keep_records)
        elif self.following is not None:
            reached = min(self.following.standby.applied.lsn, self.following.standby.committed_lsn)
            self.disk.shard.checkpoint()
            self.disk.log.drop_through(reached - self.keep_records)
        self.after(TIDY_SECONDS, self._tidy)

    # Messages

    def seal(self, question: SealQuestion, candidate: SimulatedNode, number: int) -> None:
        """A candidate wants this node's seal."""

        def answer(vote: Vote) -> None:
            self.network.send(self, candidate, "sealed", self.name, question.epoch, number, vote)

        self.voter.seal(question, answer)

    def sealed(self, voter: str, epoch: int, number: int, vote: Vote) -> None:
        """A voter answered."""
        if self.following is not None:
            self.following.answered(voter, epoch, number, vote)

    def hello(self, stream: Stream, hello: pb.Hello, waited: float = 0.0) -> None:
        """A standby wants to follow this node; on its way to lead it lets the standby wait."""
        following, leading = self.following, self.leading
        begins = (leading is not None and leading.begins) or (following is not None and following.asks)
        if begins and waited < BEGIN_SECONDS:
            self.after(0.01, self.hello, stream, hello, waited + 0.01)
            return
        if not stream.open:
            return
        if self.leading is None:
            stream.end(self, "not primary")
        else:
            self.leading.hello(stream, hello)

    def welcome(self, stream: Stream, message: pb.Welcome) -> None:
        """The primary answers."""
        if self.following is not None:
            self.following.welcome(stream, message)

    def records(self, stream: Stream, message: pb.Records) -> None:
        """The primary sends records."""
        if self.following is not None:
            self.following.records(stream, message)

    def heartbeat(self, primary: SimulatedNode, message: pb.Heartbeat) -> None:
        """A primary's streams to this node have nothing to tell but that it lives."""
        heard = self.following.heartbeat(message) if self.following is not None else []
        echo = pb.Echo(heard_us=message.sent_at_us, groups=heard)
        self.network.send(self, primary, "echoed", self.name, echo)

    def echoed(self, name: str, echo: pb.Echo) -> None:
        """A standby heard a heartbeat."""
        if self.leading is not None:
            self.leading.echoed(name, echo)

    def progress(self, stream: Stream, durable_lsn: int, applied_lsn: int, heard_us: int) -> None:
        """A standby reports."""
        if self.leading is not None:
            self.leading.progress(stream, durable_lsn, applied_lsn, heard_us)

    def resync(self, stream: Stream, number: int) -> None:
        """A standby wants the shard."""
        if self.leading is None:
            stream.end(self, "not primary")
        else:
            self.leading.resync(stream, number)

    def resynced(
        self,
        _stream: Stream,
        number: int,
        position: Position | None,
        entries: tuple[Entry, ...],
        committed: bool,
    ) -> None:
        """The shard of the primary."""
        if self.following is not None:
            self.following.standby.resynced(number, position, entries, committed=committed)

    def stream_ended(self, stream: Stream, reason: str) -> None:
        """A stream is over, whatever it was for."""
        stream.open = False
        self.attending.stream_ended(stream)
        if self.supervising is not None:
            self.supervising.stream_ended(stream)
        if self.following is not None:
            self.following.stream_ended(stream, reason)
        if self.leading is not None:
            self.leading.stream_ended(stream, reason)

    def attend(self, stream: Stream) -> None:
        """A node attends this one as the Raft leader."""
        if self.supervising is None:
            stream.end(self, "not the leader")
        else:
            self.supervising.attend(stream)

    def reports(self, stream: Stream, report: GroupReport) -> None:
        """An attending node reports."""
        if self.supervising is not None:
            self.supervising.report(stream, report)

    def told(self, stream: Stream, what: str, *details: Any) -> None:
        """The Raft leader tells this node something."""
        self.attending.told(stream, what, *details)

    def append(self, client: Endpoint, number: int, entry: Entry) -> None:
        """A client wants to append."""

        def answer(outcome: str, seq: int, position: Position) -> None:
            self.network.send(self, client, "answered", number, outcome, seq, position, self.name)

        if self.clock() < self._succession_until:
            self.after(0.01, self.append, client, number, entry)
        elif self.leading is None:
            answer("not primary", 0, START)
        else:
            self.leading.append(entry, answer)

    def read(self, client: Endpoint, number: int, session: str) -> None:
        """A client wants to read what is newest."""
        keys = self.leading.read(session) if self.leading is not None else None
        self.network.send(self, client, "was_shown", number, keys, self.name)

    def read_at(self, client: Endpoint, number: int, session: str, position: Position, waited: float = 0.0) -> None:
        """A client wants to read from this node's shards once they contain `position`."""
        if self.applied < position and waited < READ_WAIT_SECONDS:
            self.after(0.05, self.read_at, client, number, session, position, waited + 0.05)
            return
        keys = None
        # No reader sees a row that lies past what is known to be committed.
        following = self.following
        committed = following is not None and self.disk.shard.lsn <= following.standby.committed_lsn
        if self.applied >= position and committed:
            keys = tuple(entry.key for entry in self.disk.shard.entries() if entry.session == session)
        self.network.send(self, client, "was_shown", number, keys, self.name)
