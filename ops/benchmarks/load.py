"""Sessions that append: the load under which everything is measured."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from agent_core.client import Client

WORDS = 4000
CREATED_AT_ONCE = 64
WRITERS = 64
"""Appends in flight while sessions are filled."""


def payloads(entry_bytes: int, count: int = 256) -> list[bytes]:
    """JSON texts of about `entry_bytes` bytes that compress like prose, not like zeros; the same every time."""
    chance = random.Random(7)  # noqa: S311 - a benchmark repeats itself
    words = [f"{chance.getrandbits(chance.randrange(12, 40)):x}" for _ in range(WORDS)]
    texts = []
    for _ in range(count):
        text = " ".join(chance.choice(words) for _ in range(entry_bytes // 4))
        texts.append(b'{"role":"user","content":"' + text[: max(0, entry_bytes - 28)].encode() + b'"}')
    return texts


async def create_sessions(client: Client, count: int) -> list[str]:
    """Create sessions; returns their ids."""
    sessions: list[str] = []
    while len(sessions) < count:
        wanted = min(CREATED_AT_ONCE, count - len(sessions))
        created = await asyncio.gather(*(client.create_session() for _ in range(wanted)))
        sessions += [session.session_id for session in created]
    return sessions


async def append_while(
    client: Client, sessions: Sequence[str], texts: Sequence[bytes], going_on: Callable[[], bool]
) -> list[float]:
    """Append to all sessions at once, each waiting for its own acknowledgement; returns each append's seconds."""
    latencies: list[float] = []

    async def write(session: str, number: int) -> None:
        while going_on():
            number += 1
            started = time.perf_counter()
            await client.append(session, "message", texts[number % len(texts)])
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(write(session, number * 37) for number, session in enumerate(sessions)))
    return latencies


async def append_for(
    client: Client, sessions: Sequence[str], texts: Sequence[bytes], seconds: float
) -> list[float]:
    """`append_while` for some seconds."""
    ends_at = time.perf_counter() + seconds
    return await append_while(client, sessions, texts, lambda: time.perf_counter() < ends_at)


async def fill(
    client: Client,
    sessions: Sequence[str],
    texts: Sequence[bytes],
    entries: int,
    on_share: Callable[[float], None] = lambda _share: None,
) -> None:
    """Append `entries` entries to each session, some sessions at once; tells the share that is done."""
    left = iter(sessions)
    done = 0

    async def write() -> None:
        nonlocal done
        for session in left:
            for number in range(entries):
                await client.append(session, "message", texts[number % len(texts)])
            done += 1
            on_share(done / len(sessions))

    await asyncio.gather(*(write() for _ in range(min(WRITERS, len(sessions)))))


async def until(condition: Callable[[], Awaitable[bool]], *, every_seconds: float, within_seconds: float) -> None:
    """Ask again and again until the answer is yes.

    Raises:
        TimeoutError: It did not become yes in time.
    """
    async with asyncio.timeout(within_seconds):
        while not await condition():  # noqa: ASYNC110 - another process is asked; it sets no event here
            await asyncio.sleep(every_seconds)
