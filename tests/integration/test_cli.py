"""The command line against a node in real gRPC."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
from click.testing import CliRunner, Result

from agent_core.errors import InvalidRequest, QueryRefused, ShardDamaged
from agent_core.rpc import administration_pb2, read_pb2, session_pb2
from agent_core.rpc.administration_pb2_grpc import (
    AdministrationServicer,
    add_AdministrationServicer_to_server,
)
from agent_core.rpc.read_pb2_grpc import ReadingServicer, add_ReadingServicer_to_server
from agent_core.rpc_errors import abort
from ops.cli.main import main
from tests.integration.fake_primary import Context, FakePrimary, serving


class FakeReading(ReadingServicer):
    """Reads what a primary holds, and answers one query."""

    def __init__(self, primary: FakePrimary) -> None:
        self._primary = primary
        self.queries: list[read_pb2.QueryRequest] = []

    async def ListSessions(  # noqa: N802 - gRPC's name
        self, request: session_pb2.ListSessionsRequest, context: Context
    ) -> session_pb2.ListSessionsResponse:
        return await self._primary.ListSessions(request, context)

    async def GetSession(  # noqa: N802 - gRPC's name
        self, request: session_pb2.GetSessionRequest, context: Context
    ) -> session_pb2.GetSessionResponse:
        return await self._primary.GetSession(request, context)

    async def GetTranscript(  # noqa: N802 - gRPC's name
        self, request: session_pb2.GetTranscriptRequest, context: Context
    ) -> session_pb2.GetTranscriptResponse:
        return await self._primary.GetTranscript(request, context)

    async def GetToolCalls(  # noqa: N802 - gRPC's name
        self, request: read_pb2.GetToolCallsRequest, context: Context
    ) -> read_pb2.GetToolCallsResponse:
        return read_pb2.GetToolCallsResponse()

    async def Follow(  # noqa: N802 - gRPC's name
        self, request: read_pb2.FollowRequest, context: Context
    ) -> AsyncIterator[read_pb2.FollowEvent]:
        yield read_pb2.FollowEvent()

    async def Query(  # noqa: N802 - gRPC's name
        self, request: read_pb2.QueryRequest, context: Context
    ) -> read_pb2.QueryResponse:
        self.queries.append(request)
        if not request.sql.startswith("SELECT"):
            await abort(context, QueryRefused("only reading is allowed"))
        return read_pb2.QueryResponse(
            columns=["kind", "n"], rows_json=b'[["mess\\u001bage",2],[null,0]]', row_count=2
        )


class FakeAdministration(AdministrationServicer):
    """A node with one shard and the workspace shard."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.role = "primary"
        self.pages = b"x" * 16
        self.not_ready: list[str] = []
        self.promised_epoch = 4
        self.map_version = 1
        self.raft_leader = "node-a"
        self.draining: list[str] = []
        self.resynced: list[list[int]] = []
        self.resync_hangs = False
        self.damaged = self.digest_hangs = False

    async def Status(  # noqa: N802 - gRPC's name
        self, request: administration_pb2.StatusRequest, context: Context
    ) -> administration_pb2.StatusResponse:
        return administration_pb2.StatusResponse(
            node_id=self.node_id,
            shard_count=1,
            shard_group_count=1,
            acknowledgement="quorum",
            groups=[administration_pb2.GroupStatus(role=self.role, epoch=4, state="leading")],
            not_ready=self.not_ready,
            elections=[
                administration_pb2.GroupElection(primary="node-a", epoch=4, promised_epoch=self.promised_epoch)
            ],
            raft_leader=self.raft_leader,
            map_version=self.map_version,
            draining=self.draining,
        )

    async def ResyncShards(  # noqa: N802 - gRPC's name
        self, request: administration_pb2.ResyncShardsRequest, context: Context
    ) -> administration_pb2.ResyncShardsResponse:
        self.resynced.append(list(request.shards))
        while self.resync_hangs:
            await asyncio.sleep(0.01)
        self.pages = b"x" * 16
        resynced = [administration_pb2.ResyncedShard(shard=shard, pages=1) for shard in request.shards]
        return administration_pb2.ResyncShardsResponse(shards=resynced)

    async def ShardDigest(  # noqa: N802 - gRPC's name
        self, request: administration_pb2.ShardDigestRequest, context: Context
    ) -> administration_pb2.ShardDigestResponse:
        while self.digest_hangs:
            await asyncio.sleep(0.01)
        if self.damaged:
            await abort(context, ShardDamaged("shard.db cannot be read: database disk image is malformed"))
        return administration_pb2.ShardDigestResponse(
            shard=request.shard, page_count=len(self.pages) // 16, digest=self.pages, page_hashes=self.pages
        )


@dataclass
class Node:
    address: str
    primary: FakePrimary
    reading: FakeReading
    administration: FakeAdministration


async def start(node_id: str) -> AsyncIterator[Node]:
    primary, administration = FakePrimary(), FakeAdministration(node_id)
    reading = FakeReading(primary)

    def add_reading(server: grpc.aio.Server) -> None:
        add_ReadingServicer_to_server(reading, server)

    def add_administration(server: grpc.aio.Server) -> None:
        add_AdministrationServicer_to_server(administration, server)

    async with serving(primary, "127.0.0.1:0", add_reading, add_administration) as address:
        yield Node(address, primary, reading, administration)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async for started in start("node-a"):
        yield started


@pytest.fixture
async def other() -> AsyncIterator[Node]:
    async for started in start("node-b"):
        yield started


async def headwater(*arguments: str, text: str | None = None) -> Result:
    """Run a command in a thread of its own, as the node runs on this one's event loop."""
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, input=text)


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_an_entry_is_appended_and_shown(node: Node) -> None:
    appended = await headwater("append", "s1", "Hello", "--create", "--key", "k", "--node", node.address)
    assert (appended.exit_code, appended.stdout) == (0, "entry 1 of s1 at 1:1\n")
    again = await headwater("append", "s1", "Hello", "--key", "k", "--json", "--node", node.address)
    assert json.loads(again.stdout) == {"seq": 1, "position": "1:1", "duplicate": True}
    shown = await headwater("show", "s1", "--node", node.address)
    assert shown.stdout.startswith("#1 message user 2023-11-14 22:13:20\nHello\n")


async def test_standard_input_is_the_text_of_an_entry(node: Node) -> None:
    node.primary.add_session("s1")
    await headwater("append", "s1", "--node", node.address, text="from a pipe")
    assert json.loads(node.primary.texts("s1")[0])["content"] == [{"type": "text", "text": "from a pipe"}]


async def test_a_transcript_for_a_machine_is_one_object_a_line(node: Node) -> None:
    node.primary.add_session("s1", entries=12)
    shown = await headwater("show", "s1", "--after", "10", "--json", "--node", node.address)
    assert [json.loads(line)["payload"] for line in shown.stdout.splitlines()] == [{"n": 11}, {"n": 12}]


async def test_following_ends_at_the_present_end_when_asked_to(node: Node) -> None:
    node.primary.add_session("s1", entries=3)
    followed = await headwater("tail", "s1", "--until-caught-up", "--json", "--node", node.address)
    assert followed.exit_code == 0
    assert [json.loads(line)["seq"] for line in followed.stdout.splitlines()] == [1, 2, 3]


async def test_sessions_are_listed_up_to_a_limit(node: Node) -> None:
    for number in range(60):
        node.primary.add_session(f"session-{number:02d}")
    listed = await headwater("sessions", "--limit", "55", "--json", "--node", node.address)
    assert [json.loads(line)["session_id"] for line in listed.stdout.splitlines()] == [
        f"session-{number:02d}" for number in range(55)
    ]
    table = await headwater("sessions", "--limit", "2", "--node", node.address)
    assert "session-01" in table.stdout
    assert "session-02" not in table.stdout


async def test_a_title_cannot_steer_the_terminal_or_the_table(node: Node) -> None:
    node.primary.add_session("s1").session.title = "\x1b[31mred [bold]x[/nothing]"
    table = await headwater("sessions", "--node", node.address)
    assert table.exit_code == 0
    assert "\x1b" not in table.stdout
    assert "[bold]x[/nothing]" in table.stdout


async def test_a_query_is_printed_as_a_table_as_json_and_as_csv(node: Node) -> None:
    where = ("--node", node.address)
    table = await headwater("query", "SELECT 1", *where)
    assert "mess\\u001bage" in table.stdout
    assert "2 rows, all shards" in table.stderr
    as_json = await headwater("query", "SELECT 1", "--json", *where)
    assert json.loads(as_json.stdout)["rows"] == [["mess\x1bage", 2], [None, 0]]
    as_csv = await headwater("query", "SELECT 1", "--csv", *where)
    assert as_csv.stdout.splitlines() == ["kind,n", "mess\x1bage,2", ",0"]


async def test_a_query_names_its_shard_by_number_session_or_workspace(node: Node) -> None:
    for target in (("--shard", "5"), ("--session", "s1"), ("--workspace",)):
        await headwater("query", "SELECT 1", *target, "--node", node.address)
    assert [(q.WhichOneof("target"), q.shard, q.session_id) for q in node.reading.queries] == [
        ("shard", 5, ""),
        ("session_id", 0, "s1"),
        ("workspace", 0, ""),
    ]


async def test_an_error_is_one_line_that_says_what_to_do(node: Node) -> None:
    missing = await headwater("show", "nobody", "--node", node.address)
    assert missing.exit_code == 1
    assert missing.stderr == "headwater: no session 'nobody'; `headwater sessions` lists those that exist\n"
    refused = await headwater("query", "DROP TABLE entries", "--node", node.address)
    assert (refused.exit_code, refused.stderr) == (
        1,
        "headwater: only reading is allowed; "
        "`SELECT name, sql FROM sqlite_schema` lists tables, views and their columns\n",
    )


async def test_a_node_that_is_not_there_is_exit_code_3() -> None:
    nowhere = closed_port()
    for command in (("status", "--nodes", nowhere), ("verify", "--nodes", nowhere)):
        assert (await headwater(*command)).exit_code == 3


async def test_the_status_shows_who_is_not_reached_and_who_is_not_ready(node: Node) -> None:
    where = ("--nodes", f"{node.address},{closed_port()}")
    table = await headwater("status", *where)
    assert table.exit_code == 1
    assert "not reached" in table.stdout
    assert "acknowledgement quorum" in table.stdout
    assert "leading" in table.stdout
    ready = await headwater("status", "--nodes", node.address, "--json")
    assert (ready.exit_code, json.loads(ready.stdout)[node.address]["node_id"]) == (0, "node-a")
    node.administration.not_ready = ["shard 3 [/is] damaged"]
    unready = await headwater("status", "--nodes", node.address)
    assert unready.exit_code == 1
    assert "shard 3 [/is] damaged" in unready.stdout


async def test_the_status_shows_who_leads_each_group_and_which_epochs_the_nodes_sealed(
    node: Node, other: Node
) -> None:
    other.administration.role = "standby"
    other.administration.promised_epoch = 5
    where = ("--nodes", f"{node.address},{other.address}")
    told = (await headwater("status", *where)).stdout.splitlines()
    assert told[1] == "Raft leader node-a"
    assert told[4].split(maxsplit=4) == ["0", "4", "node-a", "node-b", "5 by node-b; 4 by node-a"]


async def test_a_raft_leader_that_is_named_but_not_reached_is_told_as_such(node: Node) -> None:
    node.administration.raft_leader = "node-b"
    told = (await headwater("status", "--nodes", node.address)).stdout.splitlines()
    assert told[1] == "Raft leader node-b (not reached)"


async def test_a_primary_that_the_map_still_names_after_it_stepped_down_is_told_as_such(node: Node) -> None:
    node.administration.role = "standby"
    told = (await headwater("status", "--nodes", node.address)).stdout.splitlines()
    assert told[4].split(maxsplit=2)[2] == "node-a (stepped down)            4 by node-a"


async def test_of_several_maps_the_status_shows_the_newest(node: Node, other: Node) -> None:
    other.administration.map_version = 2
    other.administration.draining = ["node-b"]
    told = await headwater("status", "--nodes", f"{node.address},{other.address}")
    assert told.stdout.splitlines()[1] == "Raft leader node-a, draining: node-b"


async def test_shards_are_compared_page_by_page(node: Node, other: Node) -> None:
    where = ("--nodes", f"{node.address},{other.address}")
    same = await headwater("verify", *where)
    assert (same.exit_code, same.stdout) == (0, "shards identical: yes\n")
    other.administration.pages = b"y" * 16
    different = await headwater("verify", *where)
    assert different.exit_code == 1
    assert different.stdout.splitlines() == [
        "shard 0: 1 of 1 pages differ [1]",
        "shard 1: 1 of 1 pages differ [1]",
        "shards identical: no",
    ]
    as_json = await headwater("verify", *where, "--json")
    assert json.loads(as_json.stdout)["identical"] is False


async def test_verify_repairs_what_differs_from_the_primary_and_compares_again(node: Node, other: Node) -> None:
    other.administration.role = "standby"
    other.administration.pages = b"y" * 16
    where = ("--nodes", f"{node.address},{other.address}")
    repaired = await headwater("verify", *where, "--repair")
    assert repaired.exit_code == 0
    assert repaired.stdout.splitlines()[2:] == [
        f"resynced on {other.address}: shards 0, 1",
        "shards identical: yes",
    ]
    assert (node.administration.resynced, other.administration.resynced) == ([], [[0, 1]])


async def test_a_shard_that_a_node_cannot_read_differs_and_says_why(node: Node, other: Node) -> None:
    other.administration.damaged = True
    found = await headwater("verify", "--nodes", f"{node.address},{other.address}")
    assert found.exit_code == 1
    assert found.stdout.splitlines()[0] == (
        f"shard 0: it could not be read everywhere: {other.address}: shard.db cannot be read: "
        "database disk image is malformed"
    )


async def test_a_node_that_does_not_hash_in_time_is_named(node: Node, other: Node) -> None:
    other.administration.digest_hangs = True
    found = await headwater("verify", "--nodes", f"{node.address},{other.address}", "--timeout", "0.2")
    other.administration.digest_hangs = False
    assert found.exit_code == 1
    assert f"{other.address}: its pages were not hashed within 0.2 s; allow more with --timeout" in found.stdout


async def test_a_resync_is_ordered_and_told(node: Node) -> None:
    done = await headwater("resync", "--node", node.address, "--shard", "1")
    assert (done.exit_code, done.stdout) == (0, "shard 1: 1 pages differed; it contains 0:0\n")
    as_json = await headwater("resync", "--node", node.address, "--shard", "1", "--json")
    assert json.loads(as_json.stdout) == {"shards": [{"shard": 1, "position": "0:0", "pages": 1}]}
    nothing = await headwater("resync", "--node", node.address)
    assert nothing.exit_code == 2
    assert "--shard N or --group N" in nothing.stderr


async def test_a_resync_that_takes_longer_than_one_waits_goes_on_and_says_so(node: Node) -> None:
    node.administration.resync_hangs = True
    given_up = await headwater("resync", "--node", node.address, "--shard", "1", "--timeout", "0.2")
    node.administration.resync_hangs = False
    assert given_up.exit_code == 1
    assert "did not end within 0.2 s; the node goes on with it" in given_up.stderr


@pytest.fixture
def transcripts(tmp_path: Path) -> Path:
    lines = [json.dumps({"session_id": "s1", "role": "user", "content": f"line {n}"}) for n in range(400)]
    (tmp_path / "good.jsonl").write_text("\n".join(lines))
    return tmp_path


async def test_of_a_folder_the_files_are_imported_not_the_folders_that_are_named_like_them(
    node: Node, transcripts: Path
) -> None:
    below = transcripts / "project.jsonl" / "run.traj"
    below.mkdir(parents=True)
    (below / "more.jsonl").write_text('{"session_id":"s2","role":"user","content":"a"}\n')
    imported = await headwater("import", str(transcripts), "--json", "--node", node.address)
    assert (imported.exit_code, imported.stderr) == (0, "")
    assert json.loads(imported.stdout)["entries_added"] == 401


async def test_importing_twice_adds_nothing(node: Node, transcripts: Path) -> None:
    once = await headwater("import", str(transcripts), "--json", "--node", node.address)
    assert once.exit_code == 0
    assert json.loads(once.stdout)["entries_added"] == 400
    texts = [json.loads(payload)["content"][0]["text"] for payload in node.primary.texts("s1")]
    assert texts == [f"line {n}" for n in range(400)]
    twice = await headwater("import", str(transcripts), "--json", "--node", node.address)
    assert json.loads(twice.stdout)["entries_already_there"] == 400
    assert len(node.primary.texts("s1")) == 400


async def test_a_broken_line_is_reported_and_the_rest_goes_on(node: Node, transcripts: Path) -> None:
    broken = transcripts / "broken.jsonl"
    broken.write_text('{"session_id":"s2","role":"user","content":"a"}\n{"broken\n{"role":"user","content":"b"}\n')
    imported = await headwater("import", str(transcripts), "--json", "--node", node.address)
    assert imported.exit_code == 1
    assert f"{broken}:2: " in imported.stderr
    assert json.loads(imported.stdout)["entries_added"] == 402


async def test_an_entry_that_the_cluster_refuses_is_reported_and_the_rest_goes_on(
    node: Node, transcripts: Path
) -> None:
    def refuse(append: session_pb2.AppendRequest) -> InvalidRequest | None:
        return InvalidRequest("kind is wrong") if b"line 7" in append.payload_json else None

    node.primary.refuse = refuse
    imported = await headwater("import", str(transcripts), "--json", "--node", node.address)
    assert imported.exit_code == 1
    lines = [n + 1 for n in range(400) if "line 7" in f"line {n}"]
    good = transcripts / "good.jsonl"
    assert imported.stderr.splitlines() == [f"{good}:{line}: session s1: kind is wrong" for line in lines]
    assert json.loads(imported.stdout)["entries_added"] == 400 - len(lines)
