"""The replicated map: what was agreed on stays agreed on, whoever is killed."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path

import psutil
import pytest
from pysyncobj.node import TCPNode
from pysyncobj.transport import TCPTransport

from agent_core.control import commands
from agent_core.control.cluster_map import EMPTY, ClusterMap, Member
from agent_core.control.commands import Form, RecordPrimary, SetDraining
from agent_core.errors import ChangeRefused, LogDamaged, OutcomeUnknown, Unavailable
from ops.control import raft_member
from ops.control.raft import ReplicatedMap
from ops.control.raft_journal import JournalEntry, check_journal
from ops.control.raft_member import DUMP_FILE, JOURNAL_FILE, RaftTiming

MEMBER_PROGRAM = Path(__file__).with_name("raft_member.py")
PASSWORD = "a long enough password"
COMPACT_OFTEN = RaftTiming(compaction_entries=5)


def free_addresses(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


@pytest.fixture
def members() -> dict[str, str]:
    return dict(zip(("node-1", "node-2", "node-3"), free_addresses(3), strict=True))


def form(members: dict[str, str], *, voters: int = 3) -> Form:
    return Form(
        "example",
        shard_count=4,
        shard_group_count=2,
        members=tuple(
            Member(name, f"{name}:1", f"{name}:2", voter=index < voters, raft_address=address)
            for index, (name, address) in enumerate(members.items())
        ),
    )


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


class MemberProcess:
    """A Raft member in a process of its own, and what it said last."""

    def __init__(self, node: str, members: dict[str, str], directory: Path, **timing: int) -> None:
        self.node, self.members, self.directory, self.timing = node, members, directory, timing
        self.leader: str | None = None
        self.map: dict[str, object] = {}
        self._answers: asyncio.Queue[object] = asyncio.Queue()

    async def start(self) -> None:
        asked = {
            "node": self.node,
            "members": self.members,
            "directory": str(self.directory / self.node),
            "password": PASSWORD,
            "timing": self.timing,
        }
        self.leader = None
        self.map = {}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(MEMBER_PROGRAM),
            json.dumps(asked),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            self.leader = said.get("leader", self.leader)
            self.map = said.get("map", self.map)
            if "answer" in said:
                self._answers.put_nowait(said["answer"])

    async def propose(self, command: commands.Command) -> object:
        assert self._process.stdin is not None
        self._process.stdin.write(commands.to_json(command).encode() + b"\n")
        return await asyncio.wait_for(self._answers.get(), 20)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
        await self._reading


@pytest.fixture
async def processes(members: dict[str, str], tmp_path: Path) -> AsyncIterator[dict[str, MemberProcess]]:
    started = {name: MemberProcess(name, members, tmp_path) for name in members}
    async with AsyncExitStack() as stack:
        for process in started.values():
            await process.start()
            stack.push_async_callback(process.kill)
        yield started


async def agreed_leader(processes: list[MemberProcess], *, other_than: str | None = None) -> str:
    await until(
        lambda: (
            len({process.leader for process in processes}) == 1 and processes[0].leader not in {None, other_than}
        )
    )
    leader = processes[0].leader
    assert leader is not None
    return leader


async def propose_until_done(process: MemberProcess, command: commands.Command) -> None:
    """Repeat what may be repeated: an election may be going on."""
    while not isinstance(answer := await process.propose(command), int):
        assert answer in {"unavailable", "outcome_unknown"}
        await asyncio.sleep(0.05)


async def all_hear(processes: list[MemberProcess], version: int) -> None:
    await until(lambda: all(process.map.get("version") == version for process in processes))
    assert all(process.map == processes[0].map for process in processes)


async def test_a_command_proposed_at_any_member_reaches_all(
    processes: dict[str, MemberProcess], members: dict[str, str]
) -> None:
    everyone = list(processes.values())
    await agreed_leader(everyone)
    await propose_until_done(everyone[0], form(members))
    for group, process in enumerate(everyone[1:]):
        await propose_until_done(process, RecordPrimary(group, 0, 1, process.node))
    await all_hear(everyone, 3)


async def test_after_kill_nine_of_the_leader_a_new_one_stands_and_the_killed_one_catches_up(
    processes: dict[str, MemberProcess], members: dict[str, str]
) -> None:
    everyone = list(processes.values())
    first = await agreed_leader(everyone)
    await propose_until_done(everyone[0], form(members))
    await processes[first].kill()
    rest = [process for process in everyone if process.node != first]
    second = await agreed_leader(rest, other_than=first)
    await propose_until_done(rest[0], RecordPrimary(0, 0, 1, second))
    await all_hear(rest, 2)
    await processes[first].start()
    await all_hear(everyone, 2)


async def test_a_cluster_that_is_killed_at_once_keeps_its_map(
    processes: dict[str, MemberProcess], members: dict[str, str]
) -> None:
    everyone = list(processes.values())
    await agreed_leader(everyone)
    await propose_until_done(everyone[0], form(members))
    await propose_until_done(everyone[1], RecordPrimary(0, 0, 7, "node-2"))
    await all_hear(everyone, 2)
    before = everyone[0].map
    for process in everyone:
        await process.kill()
    for process in everyone:
        await process.start()
    await all_hear(everyone, 2)
    assert everyone[0].map == before
    await agreed_leader(everyone)
    assert await everyone[2].propose(RecordPrimary(0, 0, 8, "node-3")) == "change_refused"


@asynccontextmanager
async def running(
    members: dict[str, str],
    directory: Path,
    *,
    passwords: dict[str, str] | None = None,
    timing: RaftTiming = COMPACT_OFTEN,
    only: tuple[str, ...] | None = None,
) -> AsyncIterator[dict[str, ReplicatedMap]]:
    """Members in this process."""
    async with AsyncExitStack() as stack:
        started = {}
        for name in only or tuple(members):
            password = (passwords or {}).get(name, PASSWORD)
            started[name] = await ReplicatedMap.start(name, members, directory / name, password, timing)
            stack.push_async_callback(started[name].stop)
        yield started


async def the_leader(started: dict[str, ReplicatedMap]) -> ReplicatedMap:
    await until(lambda: sum(one.is_leader for one in started.values()) == 1)
    return next(one for one in started.values() if one.is_leader)


async def test_members_restarted_from_their_dumps_keep_the_map(members: dict[str, str], tmp_path: Path) -> None:
    async with running(members, tmp_path) as started:
        leader = await the_leader(started)
        await leader.propose(form(members))
        for epoch in range(1, 30):
            await leader.propose(RecordPrimary(0, epoch - 1, epoch, "node-1"))
        await until(lambda: all((tmp_path / name / DUMP_FILE).exists() for name in members))
        before = leader.map
        await until(lambda: all(one.map == before for one in started.values()))
    async with running(members, tmp_path) as started:
        await the_leader(started)
        await until(lambda: all(one.map == before for one in started.values()))


async def test_a_member_that_lost_its_disk_gets_the_map_as_a_dump(members: dict[str, str], tmp_path: Path) -> None:
    async with running(members, tmp_path, only=("node-1", "node-2")) as started:
        leader = await the_leader(started)
        await leader.propose(form(members))
        for epoch in range(1, 30):
            await leader.propose(RecordPrimary(0, epoch - 1, epoch, "node-1"))
        await until(lambda: all((tmp_path / name / DUMP_FILE).exists() for name in started))
        async with running(members, tmp_path, only=("node-3",)) as late:
            await until(lambda: late["node-3"].map == leader.map)


async def test_what_is_refused_is_refused_alike_everywhere(members: dict[str, str], tmp_path: Path) -> None:
    async with running(members, tmp_path) as started:
        leader = await the_leader(started)
        await leader.propose(form(members))
        reasons = set()
        for one in started.values():
            with pytest.raises(ChangeRefused) as refusal:
                await one.propose(form(members, voters=2))
            reasons.add(str(refusal.value))
        assert len(reasons) == 1
        assert "the voters are node-1, node-2, node-3 in the cluster and node-1, node-2 in" in reasons.pop()
        # What a later version might send, or somebody who got hold of the password.
        for foreign in ('{"retire": {"node_id": "node-1"}}', "nonsense", 7, None):
            leader._member._replica.run(foreign)
        agreed = await leader.propose(SetDraining("node-1", True))
        assert agreed.version == 2
        await until(lambda: all(one.map == agreed for one in started.values()))


async def test_a_member_with_another_password_is_not_heard_and_hears_nothing(
    members: dict[str, str], tmp_path: Path
) -> None:
    async with running(members, tmp_path, passwords={"node-2": "not the password"}) as started:
        heard: dict[str, ReplicatedMap] = {name: started[name] for name in ("node-1", "node-3")}
        leader = await the_leader(heard)
        agreed = await leader.propose(form(members))
        await until(lambda: all(one.map == agreed for one in heard.values()))
        assert heard["node-1"].reached == {"node-3"}
        stranger = started["node-2"]
        assert stranger.map == EMPTY
        assert stranger.reached == frozenset()
        with pytest.raises(Unavailable, match="no leader"):
            await stranger.propose(form(members))


async def test_without_a_majority_a_change_ends_in_bounded_time_and_the_leader_steps_down(
    members: dict[str, str], tmp_path: Path
) -> None:
    async with running(members, tmp_path) as started:
        leader = await the_leader(started)
        agreed = await leader.propose(form(members))
        for one in started.values():
            if one is not leader:
                await one.stop()
        with pytest.raises((OutcomeUnknown, Unavailable)):
            await leader.propose(RecordPrimary(0, 0, 1, "node-1"), timeout_seconds=0.3)
        await until(lambda: leader.leader is None)
        assert leader.map == agreed
        with pytest.raises(Unavailable, match="no leader"):
            await leader.propose(RecordPrimary(0, 0, 1, "node-1"))


async def test_who_waits_when_a_member_stops_is_told_that_the_outcome_is_unknown(
    members: dict[str, str], tmp_path: Path
) -> None:
    async with running(members, tmp_path) as started:
        leader = await the_leader(started)
        for one in started.values():
            if one is not leader:
                await one.stop()
        waiting = asyncio.create_task(leader.propose(form(members), timeout_seconds=60))
        await until(lambda: len(leader._proposals) == 1)
        await leader.stop()
        with pytest.raises((OutcomeUnknown, Unavailable)):
            await waiting
        with pytest.raises(Unavailable, match="stopping"):
            await leader.propose(form(members))


async def test_a_single_member_leads_itself_and_tells_its_listeners_on_the_loop(
    members: dict[str, str], tmp_path: Path
) -> None:
    alone = {"node-1": members["node-1"]}
    async with running(alone, tmp_path) as started:
        only = started["node-1"]
        seen: list[ClusterMap] = []
        leaders: list[str | None] = []
        only.on_change(lambda: seen.append(only.map))
        only.on_leader_change(lambda: leaders.append(only.leader))
        await until(lambda: only.is_leader)
        agreed = await only.propose(form(alone))
        assert only.map == agreed
        assert seen == [agreed]
        assert leaders in ([], ["node-1"])


async def test_an_address_that_is_taken_is_refused_at_once(members: dict[str, str], tmp_path: Path) -> None:
    host, port = members["node-1"].split(":")
    with socket.create_server((host, int(port))), pytest.raises(Unavailable, match="cannot be listened on"):
        await ReplicatedMap.start("node-1", members, tmp_path / "node-1", PASSWORD)


@pytest.mark.parametrize("name", [JOURNAL_FILE, DUMP_FILE])
async def test_files_that_cannot_be_read_are_refused_with_what_to_do(
    name: str, members: dict[str, str], tmp_path: Path
) -> None:
    alone = {"node-1": members["node-1"]}
    async with running(alone, tmp_path) as started:
        leader = await the_leader(started)
        await leader.propose(form(alone))
        for epoch in range(1, 30):
            await leader.propose(RecordPrimary(0, epoch - 1, epoch, "node-1"))
        await until((tmp_path / "node-1" / DUMP_FILE).exists)
    path = tmp_path / "node-1" / name
    path.write_bytes(path.read_bytes()[:40] + b"\xff" * 400)
    with pytest.raises(LogDamaged, match=f"the Raft {name} .* remove the directory"):
        await ReplicatedMap.start("node-1", alone, tmp_path / "node-1", PASSWORD)


async def test_the_journal_never_grows_by_a_hole_that_a_full_disk_could_not_fill(
    members: dict[str, str], tmp_path: Path
) -> None:
    """Writing to such a hole through a memory map ends a process with SIGBUS."""
    alone = {"node-1": members["node-1"]}
    async with running(alone, tmp_path, timing=RaftTiming()) as started:
        leader = await the_leader(started)
        before = (tmp_path / "node-1" / JOURNAL_FILE).stat()
        await leader.propose(form(alone))
        for epoch in range(1, 100):
            await leader.propose(RecordPrimary(0, epoch - 1, epoch, "node-1"))
        after = (tmp_path / "node-1" / JOURNAL_FILE).stat()
    assert after.st_size == before.st_size <= before.st_blocks * 512


def test_one_module_alone_knows_pysyncobj() -> None:
    knows = re.compile(r"^\s*(import|from) pysyncobj\b", re.MULTILINE)
    product = [
        path for folder in ("agent_core", "primary", "replica", "ops") for path in Path(folder).rglob("*.py")
    ]
    assert [str(path) for path in product if knows.search(path.read_text())] == ["ops/control/raft_member.py"]


@pytest.mark.parametrize(
    ("entries", "term", "problem"),
    [
        ([], 0, None),
        ([(5, 1), (6, 1), (7, 4)], 4, None),
        ([(5, 1), (7, 1)], 4, "entry 7 of term 1 follows 5 of 1"),
        ([(5, 3), (6, 2)], 4, "entry 6 of term 2 follows 5 of 3"),
        ([(5, 5)], 4, "a term that never began"),
    ],
)
def test_a_journal_that_no_run_of_raft_wrote_is_told_from_others(
    entries: list[tuple[int, int]], term: int, problem: str | None
) -> None:
    with pytest.raises(ValueError, match=problem) if problem else nullcontext():
        check_journal([JournalEntry(*entry) for entry in entries], term)


def test_looking_at_addresses_works_still_with_pysyncobj_imported() -> None:
    assert socket.inet_ntop(socket.AF_INET, b"\x7f\x00\x00\x01") == "127.0.0.1"


async def test_members_that_have_nothing_to_say_hear_each_other_before_their_connection_counts_as_dead(
    members: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: set[tuple[str, str]] = set()
    received = raft_member._Transport._onMessageReceived

    def hear(transport: TCPTransport, node: TCPNode, message: object) -> None:
        heard.add((transport._selfNode.address, node.address))
        received(transport, node, message)

    monkeypatch.setattr(raft_member._Transport, "_onMessageReceived", hear)
    async with running(members, tmp_path) as maps:
        await until(lambda: all(one.leader is not None and len(one.reached) == 2 for one in maps.values()))
        one, other = (members[name] for name in maps if name != maps["node-1"].leader)
        # The votes are counted: from now on the two that do not lead have no news for each other.
        heard.clear()
        await until(lambda: {(one, other), (other, one)} <= heard, seconds=raft_member.CONNECTION_SECONDS)


async def test_a_connection_attempt_that_nobody_answers_is_begun_anew(tmp_path: Path) -> None:
    # The kernel drops what comes to a full queue, as a partition would: the silent one never accepts.
    async with AsyncExitStack() as stack:
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(("127.0.0.1", port))
        # The member whose address sorts last connects to the other.
        members = {"silent": f"127.0.0.1:{port}", "own": f"localhost:{free_addresses(1)[0].split(':')[1]}"}

        def from_ports() -> set[int]:
            return {
                end.laddr[1] for end in psutil.Process().net_connections() if end.raddr and end.raddr[1] == port
            }

        fillers, attempts = from_ports(), set[int]()

        def two_attempts() -> bool:
            attempts.update(from_ports() - fillers)
            return len(attempts) >= 2

        own = await ReplicatedMap.start("own", members, tmp_path, PASSWORD)
        stack.push_async_callback(own.stop)
        await until(two_attempts)
