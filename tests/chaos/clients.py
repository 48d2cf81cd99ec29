"""Clients that append to sessions and read them all through the faults, and note what they were told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from random import Random

import grpc.aio

from agent_core.client import Client
from agent_core.client.endpoints import open_channel
from agent_core.client.model import position_from_wire
from agent_core.client.reads import position_to_wire
from agent_core.errors import HeadwaterError, OutcomeUnknown, SessionNotFound
from agent_core.position import START, Position
from agent_core.rpc.read_pb2_grpc import ReadingStub
from agent_core.rpc.session_pb2 import GetTranscriptRequest
from agent_core.rpc_errors import from_rpc_error
from tests.chaos.history import Attempt, Outcome, ReaderView, SessionHistory, SubscriberView

THINK_SECONDS = (0.0, 0.08)
IMPATIENT_SECONDS = 1.5
PATIENT_SECONDS = 60.0
READ_SECONDS = 2.0
READ_EVERY_SECONDS = (0.02, 0.2)
SUBSCRIBED_ENTRIES = (5, 200)
"""After so many entries a subscriber goes away, and comes back with its cursor."""
FOLLOW_SECONDS = 20.0
"""How long a subscriber may take to bring what was acknowledged, once all is mended."""
MOST_ENTRIES = 10_000
"""A transcript is read in one page, so a session must not grow longer."""


class Writer:
    """The only one who appends to its session.

    Attributes:
        history: What it was told.
        longest_seconds: The longest append that was acknowledged.
    """

    def __init__(self, session_id: str, chance: Random, *, patient: bool) -> None:
        """Append to a session of this id.

        Args:
            session_id: The session; nobody else has it.
            chance: For its pauses.
            patient: It waits for each outcome; else it gives up soon, and leaves entries of unknown fate behind.
        """
        self.history = SessionHistory(session_id)
        self.longest_seconds = 0.0
        self.position = START
        self._chance = chance
        self._timeout_seconds = PATIENT_SECONDS if patient else IMPATIENT_SECONDS
        self._stopping = False

    def stop(self) -> None:
        """End with the present append."""
        self._stopping = True

    async def run(self, addresses: list[str], created: asyncio.Event) -> None:
        """Append until told to stop.

        Args:
            addresses: Of all nodes.
            created: Set once the session exists.
        """
        session = self.history.session_id
        async with Client(addresses, timeout_seconds=PATIENT_SECONDS) as client:
            self.position = (await client.create_session(session_id=session)).position
        created.set()
        async with Client(addresses, timeout_seconds=self._timeout_seconds) as client:
            number = 0
            while not self._stopping and number < MOST_ENTRIES:
                number += 1
                payload = b'{"number":%d}' % number
                self.history.attempts.append(await self._append(client, payload))
                await asyncio.sleep(self._chance.uniform(*THINK_SECONDS))

    async def _append(self, client: Client, payload: bytes) -> Attempt:
        started = time.monotonic()
        try:
            appended = await client.append(self.history.session_id, "message", payload)
        except OutcomeUnknown:
            return Attempt(payload, Outcome.UNKNOWN)
        except HeadwaterError:
            return Attempt(payload, Outcome.REFUSED)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)
        self.position = max(self.position, appended.position)
        return Attempt(payload, Outcome.ACKNOWLEDGED, appended.seq)


class ShardReader:
    """Reads a session on any node, passing on the position that its last answer told."""

    def __init__(self, writer: Writer, chance: Random) -> None:
        self._writer = writer
        self._chance = chance
        self._view = ReaderView(writer.history, "a reader with its position")
        self._position = START

    async def run(self, channels: Mapping[str, grpc.aio.Channel], created: asyncio.Event) -> None:
        """Read until cancelled."""
        await created.wait()
        self._position = self._writer.position
        while True:
            await asyncio.sleep(self._chance.uniform(*READ_EVERY_SECONDS))
            await self._read(*self._chance.choice(list(channels.items())))

    async def _read(self, node: str, channel: grpc.aio.Channel) -> None:
        history = self._writer.history
        at_least = 0
        if self._chance.random() < 0.3:  # Its writer's own last write must be there as well.
            at_least, self._position = history.last_acknowledged_seq, max(self._position, self._writer.position)
        try:
            transcript, position = await read_transcript(channel, history.session_id, self._position)
        except SessionNotFound:
            history.violations.append(f"{history.session_id}: {node} does not know it at {self._position}")
        except HeadwaterError:
            return  # It may say that it cannot, as long as it shows nothing that is wrong.
        else:
            if position < self._position:
                history.violations.append(f"{history.session_id}: {node} read {position}, not {self._position}")
            self._position = max(self._position, position)
            self._view.read(transcript, at_least=at_least, where=node)


class PrimaryReader:
    """Reads a session at its primary: it must show what was acknowledged before, without being told a position."""

    def __init__(self, writer: Writer, chance: Random) -> None:
        self._writer = writer
        self._chance = chance
        self._view = ReaderView(writer.history, "a reader at the primary")

    async def run(self, addresses: list[str], created: asyncio.Event) -> None:
        """Read until cancelled."""
        await created.wait()
        history = self._writer.history
        async with Client(self._chance.sample(addresses, len(addresses)), timeout_seconds=READ_SECONDS) as client:
            while True:
                await asyncio.sleep(self._chance.uniform(*READ_EVERY_SECONDS))
                at_least = history.last_acknowledged_seq
                try:
                    transcript = [entry.payload async for entry in client.transcript(history.session_id)]
                except SessionNotFound:
                    history.violations.append(f"{history.session_id}: the primary {client.address} has no such")
                except HeadwaterError:
                    continue
                else:
                    self._view.read(transcript, at_least=at_least, where=client.address)


class SubscribingReader:
    """Follows a session, goes away now and then, and comes back with the cursor that it had.

    Attributes:
        view: What it was brought.
    """

    def __init__(self, writer: Writer, chance: Random) -> None:
        self.view = SubscriberView(writer.history)
        self._chance = chance

    async def run(self, addresses: list[str], created: asyncio.Event) -> None:
        """Follow until cancelled."""
        await created.wait()
        session = self.view.history.session_id
        given = self._chance.sample(addresses, len(addresses))
        async with Client(given, timeout_seconds=PATIENT_SECONDS) as client:
            while True:
                left = self._chance.randint(*SUBSCRIBED_ENTRIES)
                entries = client.subscribe(session, self.view.cursor)
                assert isinstance(entries, AsyncGenerator), "it can be closed"
                try:
                    async with aclosing(entries):
                        async for entry in entries:
                            self.view.brought(entry.seq, entry.payload)
                            left -= 1
                            if not left:
                                break
                except SessionNotFound:
                    self.view.history.violations.append(f"{session}: {client.address} has none to subscribe to")
                    return


class Load:
    """Writers and readers at work.

    Attributes:
        writers: The writers.
        subscribers: One for each of them.
    """

    def __init__(self, name: str, addresses: Mapping[str, str], chance: Random, *, writers: int) -> None:
        """Make sessions `NAME-1` and so on; each second writer is impatient."""
        self.writers = [
            Writer(f"{name}-{number}", Random(chance.random()), patient=number % 2 == 1)
            for number in range(1, writers + 1)
        ]
        self.subscribers = [SubscribingReader(writer, Random(chance.random())) for writer in self.writers]
        self._addresses = addresses
        self._chance = chance
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def histories(self) -> list[SessionHistory]:
        """What was seen of each session."""
        return [writer.history for writer in self.writers]

    async def progress(self, within_seconds: float) -> None:
        """Wait until every session has one more acknowledged entry.

        Raises:
            TimeoutError: It has not in time.
        """
        before = [history.acknowledged for history in self.histories]
        async with asyncio.timeout(within_seconds):
            while any(history.acknowledged <= count for history, count in zip(self.histories, before, strict=True)):
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    async def _followed(self) -> None:
        """Give the subscribers time; whether that was enough is judged later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_SECONDS):
                while not all(subscriber.view.caught_up for subscriber in self.subscribers):
                    await asyncio.sleep(0.02)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At work within; at the end each writer has its last outcome, and each subscriber time to follow."""
        async with AsyncExitStack() as stack:
            channels = {
                node: await stack.enter_async_context(open_channel(address))
                for node, address in self._addresses.items()
            }
            addresses = list(self._addresses.values())
            readers, writing = [], []
            for writer, subscriber in zip(self.writers, self.subscribers, strict=True):
                created = asyncio.Event()
                near = ShardReader(writer, Random(self._chance.random()))
                strict = PrimaryReader(writer, Random(self._chance.random()))
                given = self._chance.sample(addresses, len(addresses))
                writing.append(asyncio.create_task(writer.run(given, created)))
                readers += [
                    asyncio.create_task(near.run(channels, created)),
                    asyncio.create_task(strict.run(addresses, created)),
                    asyncio.create_task(subscriber.run(addresses, created)),
                ]
            self._tasks = [*readers, *writing]
            try:
                yield
                for writer in self.writers:
                    writer.stop()
                await asyncio.gather(*writing)
                await self._followed()
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)


async def read_transcript(
    channel: grpc.aio.Channel, session_id: str, position: Position, *, wait_ms: int = 1000
) -> tuple[list[bytes], Position]:
    """A session's payloads from a node's shard file once it has reached a position, and the position they show.

    Raises:
        HeadwaterError: The node cannot tell.
    """
    request = GetTranscriptRequest(
        session_id=session_id, limit=MOST_ENTRIES, min_position=position_to_wire(position), wait_ms=wait_ms
    )
    try:
        answer = await ReadingStub(channel).GetTranscript(
            request, timeout=READ_SECONDS + wait_ms / 1000, wait_for_ready=True
        )
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, unanswered=OutcomeUnknown) from error
    return [entry.payload_json for entry in answer.entries], position_from_wire(answer.position.position)
