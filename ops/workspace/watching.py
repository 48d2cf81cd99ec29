"""Passes of a sync whenever the folder changes, for as long as someone wants them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from watchfiles import awatch

from agent_core.backoff import Backoff
from agent_core.errors import HeadwaterError
from ops.workspace.folder import Folder
from ops.workspace.sync import SyncSummary, WorkspaceSync

DEBOUNCE_MS = 400
"""What changes within so long of each other is one pass."""
STEP_MS = 50
TICK_MS = 1_000
RESCAN_SECONDS = 60.0
"""The folder is looked at so often even without news: a watch may lose some, and network disks send none."""


async def passes(sync: WorkspaceSync, folder: Folder) -> AsyncGenerator[SyncSummary | HeadwaterError]:
    """One pass now, then one for each change of the folder, without end.

    An error of the cluster that may pass is told and the pass made again, with longer and longer pauses in between.

    Raises:
        HeadwaterError: One that will not pass.
        OSError: The folder itself is gone.
    """
    loop = asyncio.get_running_loop()
    async for told in _until_it_works(sync):
        yield told
    scanned_at: float | None = None
    async for changes in awatch(
        folder.root,
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        rust_timeout=TICK_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    ):
        # The first time, what came after the first pass and before the watch is looked for.
        if changes or scanned_at is None or loop.time() - scanned_at >= RESCAN_SECONDS:
            async for told in _until_it_works(sync):
                yield told
            scanned_at = loop.time()


async def _until_it_works(sync: WorkspaceSync) -> AsyncIterator[SyncSummary | HeadwaterError]:
    backoff = Backoff(first_seconds=0.5, longest_seconds=10.0)
    while True:
        try:
            summary = await sync.run()
        except HeadwaterError as error:
            if not error.retry:
                raise
            sync.forget()
            yield error
            await asyncio.sleep(backoff.next_delay())
        else:
            yield summary
            return
