"""Keeps the cluster's map in agreement over the Raft members, for the event loop.

The member is driven by a thread of its own, which sleeps in poll() and so costs nothing between messages. What it
finds is told on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

from agent_core.control import commands
from agent_core.control.cluster_map import ClusterMap
from agent_core.control.commands import Command
from agent_core.control.machine import Outcome, Refused
from agent_core.errors import ChangeRefused, HeadwaterError, OutcomeUnknown, Unavailable
from ops.control.raft_member import DEFAULT_TIMING, RaftMember, RaftTiming, RaftView

_TURN_SECONDS = (0.03, 0.07)
"""How long one wait for messages may take: the grain of all timeouts.

Drawn anew for each: members that lost their leader in the same moment would go on looking at their timeouts in the
same moments, and stand against each other whenever both had run out since the last one.
"""
_PAUSE_SECONDS = 0.05
"""After a turn that failed."""
_PROPOSAL_SECONDS = 5.0

_logger = logging.getLogger(__name__)


class ReplicatedMap:
    """This Raft member's view of the cluster's map, and the way to change it. Made by `start`.

    Everything but `start` belongs to the event loop it was started on. Listeners are called there, without
    arguments, after what they are about has changed; several changes may come as one call.
    """

    def __init__(self, node_id: str, member: RaftMember) -> None:
        self._node_id = node_id
        self._member = member
        self._loop = asyncio.get_running_loop()
        self._map_listeners: list[Callable[[], None]] = []
        self._leader_listeners: list[Callable[[], None]] = []
        self._proposals: set[asyncio.Future[Outcome]] = set()
        self._stopping = threading.Event()
        member.on_turn(self._observe)
        self._seen = self._told = member.view()
        self._thread = threading.Thread(target=self._drive, name="raft", daemon=True)

    @classmethod
    async def start(
        cls,
        node_id: str,
        members: Mapping[str, str],
        directory: Path,
        password: str,
        timing: RaftTiming = DEFAULT_TIMING,
    ) -> Self:
        """Take part from now on. Arguments and errors are those of `RaftMember.open`."""
        member = await asyncio.to_thread(
            RaftMember.open, node_id, members, directory, password=password, timing=timing
        )
        self = cls(node_id, member)
        self._thread.start()
        return self

    @property
    def map(self) -> ClusterMap:
        """The map as last applied here; on a member that is cut off it may be old."""
        return self._told.cluster_map

    @property
    def leader(self) -> str | None:
        """The Raft leader's node as known here; None during an election. Two members may differ for a while."""
        return self._told.leader

    @property
    def is_leader(self) -> bool:
        """Whether this member leads and its map holds all that was agreed before it did."""
        return self._told.leader == self._node_id

    @property
    def reached(self) -> frozenset[str]:
        """The members that a connection stands to. A wrong password looks like one that is not there."""
        return self._told.reached

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when `map` has changed."""
        self._map_listeners.append(listener)

    def on_leader_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when `leader` has changed."""
        self._leader_listeners.append(listener)

    async def propose(self, command: Command, *, timeout_seconds: float = _PROPOSAL_SECONDS) -> ClusterMap:
        """Have a command agreed on; returns the map right after it, as applied here.

        Raises:
            ChangeRefused: The map does not allow it; the reason is the message.
            Unavailable: It was not done; there is no Raft leader, or it changed.
            OutcomeUnknown: It may have been done or may yet be; repeating a command is safe.
        """
        if self._stopping.is_set():
            raise Unavailable("this Raft member is stopping")
        proposal: asyncio.Future[Outcome] = self._loop.create_future()
        self._proposals.add(proposal)
        try:
            self._member.propose(commands.to_json(command), partial(self._answered, proposal))
            async with asyncio.timeout(timeout_seconds):
                outcome = await proposal
        except TimeoutError:
            raise OutcomeUnknown(
                f"the Raft members did not agree on a change of the cluster's map within {timeout_seconds:g} s"
            ) from None
        finally:
            self._proposals.discard(proposal)
        if isinstance(outcome, Refused):
            raise ChangeRefused(outcome.reason)
        if outcome.cluster_map.version > self.map.version:
            # Whoever changed the map finds it changed.
            self._tell(replace(self._told, cluster_map=outcome.cluster_map))
        return outcome.cluster_map

    async def stop(self) -> None:
        """Leave off taking part; who waits for a command is told that its outcome is unknown."""
        self._stopping.set()
        for proposal in self._proposals:
            if not proposal.done():
                proposal.set_exception(OutcomeUnknown("this Raft member stopped before a change was agreed on"))
        await asyncio.to_thread(self._thread.join)

    def _answered(self, proposal: asyncio.Future[Outcome], answer: Outcome | HeadwaterError) -> None:
        """Called on the member's thread, or on the loop when it refuses at once."""
        self._loop.call_soon_threadsafe(_settle, proposal, answer)

    def _drive(self) -> None:
        while not self._stopping.is_set():
            try:
                self._member.turn(random.uniform(*_TURN_SECONDS))  # noqa: S311 - nobody gains by guessing it
            except Exception:
                # One connection's trouble or a full disk: the member is of use again when it has passed.
                _logger.exception("a turn of Raft failed")
                self._stopping.wait(_PAUSE_SECONDS)
        self._member.close()

    def _observe(self) -> None:
        view = self._member.view()
        if view != self._seen:
            self._seen = view
            self._loop.call_soon_threadsafe(self._tell, view)

    def _tell(self, view: RaftView) -> None:
        before, self._told = self._told, view
        if self._stopping.is_set():
            return
        if view.cluster_map != before.cluster_map:
            for listener in tuple(self._map_listeners):
                listener()
        if view.leader != before.leader:
            for listener in tuple(self._leader_listeners):
                listener()


def _settle(proposal: asyncio.Future[Outcome], answer: Outcome | HeadwaterError) -> None:
    if proposal.done():
        return
    if isinstance(answer, HeadwaterError):
        proposal.set_exception(answer)
    else:
        proposal.set_result(answer)
