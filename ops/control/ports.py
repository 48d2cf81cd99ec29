"""Whether a process is gone for certain: its port refuses connections."""

from __future__ import annotations

import asyncio

from agent_core.cluster import HostPort

CONNECT_SECONDS = 0.2


async def refuses(address: str) -> bool:
    """Whether nothing listens on `host:port`, told by the host itself; False when it does not say.

    A firewall that resets connections says it too: the caller may rest reads on this, never writes.
    """
    host, port = HostPort.parse(address)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return False
