"""A folder is indexed through any node of a real cluster, and read on every node: gRPC, HTTP, SQL, command line."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from agent_core.client import Reader
from agent_core.client.workspaces import Workspaces
from agent_core.errors import DocumentNotFound, InvalidRequest, PositionNotReached, QueryRefused, WorkspaceTaken
from agent_core.position import Position
from agent_core.workspace.document import ChangeOutcome, DocumentChange, Property
from agent_core.workspace.parsing import read_document
from ops.benchmarks.placement import let_lead
from ops.cli.main import main
from ops.local_cluster import LocalCluster
from ops.workspace import watching
from ops.workspace.claimed_index import ClaimedIndex
from ops.workspace.folder import Folder
from ops.workspace.source import claim_of
from ops.workspace.sync import SyncSummary, WorkspaceSync
from tests.e2e.cluster_under_load import differing
from tests.steady import steady_plan

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRIMARY, STANDBY, OTHER = "node-1", "node-2", "node-3"
FILES = {
    "adr/sqlite.md": "---\nkind: decision\ntitle: Use SQLite\nstatus: open\ntags: [db, log]\n---\n"
    "The write ahead log is streamed, see [[Checkpoints]] and [missing](nowhere.md).",
    "adr/raft.md": "---\nkind: decision\nstatus: done\n---\n# Raft keeps the map\nNot the data. [up](sqlite.md)",
    "notes/checkpoints.md": "# Checkpoints\nThe log is emptied.\n",
    "notes/broken.md": "---\nkind: [x\n---\nStill found by its words.",
}


class Indexed:
    """A cluster whose workspace `web` holds `FILES`, read at a standby."""

    def __init__(
        self, cluster: LocalCluster, index: Workspaces, http: httpx.AsyncClient, position: Position
    ) -> None:
        self.cluster = cluster
        self.index = index
        self.http = http
        self.position = position

    def grpc(self, node: str) -> str:
        return self.cluster.address(node).grpc_address

    async def paths(self, **filters: Any) -> list[str]:
        found = self.index.documents("web", **filters, page_size=1, min_position=self.position)
        return [one.path async for one in found]

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        parameters.setdefault("min_position", str(self.position))
        return await self.http.get(f"/v1/workspaces/web/documents{path}", params=parameters)


def change(path: str, text: str, replaces: str = "") -> DocumentChange:
    return DocumentChange(path, replaces, read_document(path, text.encode()))


async def headwater(*arguments: str) -> Result:
    """Run a command in a thread of its own."""
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def indexed(module_path: Path) -> AsyncIterator[Indexed]:
    async with LocalCluster(module_path, steady_plan()) as cluster:
        await let_lead(cluster, PRIMARY)
        standby = cluster.address(STANDBY)
        async with (
            Workspaces(standby.grpc_address, timeout_seconds=30) as index,
            httpx.AsyncClient(base_url=f"http://{standby.http_address}", timeout=30) as http,
        ):
            changed = await index.change("web", [change(*file) for file in FILES.items()])
            assert set(changed.outcomes) == {ChangeOutcome.APPLIED}
            indexed = Indexed(cluster, index, http, changed.position)
            assert await indexed.paths() == sorted(FILES), "what follows finds the standby so far"
            yield indexed


async def test_a_standby_takes_changes_and_repeating_them_adds_nothing(indexed: Indexed) -> None:
    again = await indexed.index.change("web", [change(*file) for file in FILES.items()])
    assert set(again.outcomes) == {ChangeOutcome.UNCHANGED}
    assert again.position > indexed.position


async def test_a_change_of_something_else_than_is_there_is_a_conflict(indexed: Indexed) -> None:
    late = change("adr/raft.md", "an older text", "0" * 32)
    assert (await indexed.index.change("web", [late])).outcomes == [ChangeOutcome.CONFLICT]
    found = await indexed.index.document("web", "adr/raft.md", min_position=indexed.position)
    assert found.summary.title == "Raft keeps the map"


async def test_a_change_larger_than_the_cache_of_a_shard_reaches_every_node_whole(indexed: Indexed) -> None:
    texts = {f"{start}.md": " ".join(f"w{start + number}x" for number in range(90_000)) for start in range(4)}
    await indexed.index.change("large", [change(*file) for file in texts.items()])
    gone = [
        DocumentChange(path, read_document(path, text.encode()).content_hash, None) for path, text in texts.items()
    ]
    changed = await indexed.index.change("large", gone[1:])
    found = indexed.index.documents("large", text="w89999x", min_position=changed.position)
    assert [one.path async for one in found] == ["0.md"]


async def test_every_filter_holds_on_a_standby(indexed: Indexed) -> None:
    assert await indexed.paths() == sorted(FILES)
    assert await indexed.paths(kind="decision") == ["adr/raft.md", "adr/sqlite.md"]
    assert await indexed.paths(properties=[Property("tags", "db"), Property("status", "open")]) == ["adr/sqlite.md"]
    assert await indexed.paths(path_prefix="notes/") == ["notes/broken.md", "notes/checkpoints.md"]
    assert await indexed.paths(links_to="notes/checkpoints.md") == ["adr/sqlite.md"]
    assert await indexed.paths(linked_from="adr/raft.md") == ["adr/sqlite.md"]
    assert set(await indexed.paths(text="the log")) == {"adr/sqlite.md", "notes/checkpoints.md"}
    assert await indexed.paths(text='"write ahead"') == ["adr/sqlite.md"]
    assert await indexed.paths(text="word*") == ["notes/broken.md"]


async def test_a_document_tells_where_its_links_lead(indexed: Indexed) -> None:
    found = await indexed.index.document("web", "adr/sqlite.md", min_position=indexed.position)
    assert [(link.target, link.target_path) for link in found.links] == [
        ("Checkpoints", "notes/checkpoints.md"),
        ("nowhere.md", None),
    ]
    assert json.loads(found.front_matter_json)["tags"] == ["db", "log"]


async def test_what_is_wrong_is_told_over_grpc(indexed: Indexed) -> None:
    with pytest.raises(DocumentNotFound, match=r"has no document at 'gone\.md'"):
        await indexed.index.document("web", "gone.md")
    with pytest.raises(InvalidRequest, match="workspace must be"):
        await indexed.index.change("a/b", [change("a.md", "")])


async def test_pages_over_http_go_through_all_documents_once_each_with_its_position(indexed: Indexed) -> None:
    seen: list[str] = []
    token = ""
    while True:
        answer = await indexed.get("", page_size=1, page_token=token)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        seen += [one["path"] for one in body["documents"]]
        assert Position.parse(body["position"]["position"]) >= indexed.position
        assert 0 <= body["position"]["age_seconds"] < 60
        assert answer.headers["Headwater-Position"] == f"0={body['position']['position']}"
        token = body["next_page_token"]
        if not token:
            break
    assert seen == sorted(FILES)


async def test_filters_over_http_hold_together(indexed: Indexed) -> None:
    answer = await indexed.get("", property=["status=open", "tags=log"], text="ahead", kind="decision")
    (found,) = answer.json()["documents"]
    assert (found["path"], found["title"]) == ("adr/sqlite.md", "Use SQLite")
    assert "write ahead log" in found["snippet"]


async def test_a_document_over_http_has_everything_in_it(indexed: Indexed) -> None:
    document = (await indexed.get("/adr/sqlite.md")).json()["document"]
    assert document["front_matter"]["tags"] == ["db", "log"]
    assert {"name": "tags", "value": "log"} in document["properties"]
    assert document["links"][1]["target_path"] is None
    broken = (await indexed.get("/notes/broken.md")).json()["document"]
    assert broken["problem"].startswith("line 3: front matter: ")
    assert broken["properties"] == []


@pytest.mark.parametrize(
    ("path", "parameters", "status", "code"),
    [
        ("/gone.md", {}, 404, "document_not_found"),
        ("", {"property": "status"}, 400, "invalid_request"),
        ("", {"text": "!"}, 400, "invalid_request"),
        ("", {"page_token": "x"}, 400, "invalid_request"),
        ("", {"page_size": 0}, 400, "invalid_request"),
        ("/a%00.md", {}, 400, "invalid_request"),
        ("", {"min_position": "9:999999", "wait_ms": 1}, PositionNotReached.http_status, PositionNotReached.code),
    ],
)
async def test_what_is_wrong_is_told_over_http(
    indexed: Indexed, path: str, parameters: dict[str, Any], status: int, code: str
) -> None:
    answer = await indexed.get(path, **parameters)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_the_documented_answers_are_in_the_open_api_description(indexed: Indexed) -> None:
    described = (await indexed.http.get("/openapi.json")).json()["paths"]
    listing = described["/v1/workspaces/{workspace}/documents"]["get"]
    assert {parameter["name"] for parameter in listing["parameters"]} >= {
        "property",
        "links_to",
        "text",
        "min_position",
    }
    assert "/v1/workspaces/{workspace}/documents/{path}" in described


async def test_sql_over_all_shards_sees_the_whole_tables(indexed: Indexed) -> None:
    async with Reader(indexed.grpc(STANDBY), timeout_seconds=60) as reader:
        kinds = await reader.query(
            "SELECT d.kind, count(*) FROM documents d JOIN properties p USING (workspace, path)"
            " WHERE p.name = 'status' AND workspace = 'web' GROUP BY ALL"
        )
        nowhere = await reader.query(
            "SELECT path, target FROM links WHERE target_path IS NULL AND workspace = 'web' AND kind <> 'external'"
        )
    assert kinds.rows == (("decision", 2),)
    assert nowhere.rows == (("adr/sqlite.md", "nowhere.md"),)


async def test_sql_over_the_workspace_shard_may_read_the_full_text_and_not_write_it(
    indexed: Indexed,
) -> None:
    async with Reader(indexed.grpc(STANDBY), timeout_seconds=60) as reader:
        found = await reader.query(
            "SELECT d.path, snippet(documents_text, 1, '[', ']', '…', 4) FROM documents_text"
            " JOIN documents d ON d.id = documents_text.rowid"
            " WHERE documents_text MATCH 'emptied' ORDER BY bm25(documents_text)",
            workspace=True,
        )
        for attack in (
            "INSERT INTO documents_text (documents_text) VALUES ('rebuild') RETURNING 1",
            "INSERT INTO documents_text (documents_text, rank) VALUES ('automerge', 8) RETURNING 1",
            "SELECT fts5(1)",
            "SELECT fts5_source_id()",
            "SELECT * FROM fts5vocab",
            "DELETE FROM documents_text RETURNING 1",
            "UPDATE documents SET body = '' RETURNING 1",
        ):
            with pytest.raises(QueryRefused):
                await reader.query(attack, workspace=True)
    assert found.rows[0][0] == "notes/checkpoints.md"
    assert "[emptied]" in found.rows[0][1]


async def test_the_workspace_shard_of_a_standby_opens_in_other_tools(indexed: Indexed) -> None:
    await indexed.get("")
    directory = indexed.cluster.configurations[STANDBY].node.data_directory
    connection = sqlite3.connect(f"file:{directory}/shards/workspace.db?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT path FROM documents WHERE workspace = 'web'"
            " AND id IN (SELECT rowid FROM documents_text('emptied'))"
        ).fetchall()
    finally:
        connection.close()
    assert rows == [("notes/checkpoints.md",)]


async def test_the_command_line_indexes_a_folder_once_and_then_changes_nothing(
    indexed: Indexed, tmp_path: Path
) -> None:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    through = ("--node", indexed.grpc(OTHER), "--workspace", "cli")
    first = await headwater("workspace", "sync", str(tmp_path), "--once", "--json", *through)
    assert first.exit_code == 1, "a broken document is told by the exit code"
    assert first.stderr.startswith("notes/broken.md: line 3: front matter: ")
    assert json.loads(first.stdout)["added"] == 4
    (tmp_path / "notes" / "broken.md").rename(tmp_path / "notes" / "mended.md")
    (tmp_path / "notes" / "mended.md").write_text("---\nkind: note\n---\nmended")
    mended = await headwater("workspace", "sync", str(tmp_path), "--once", *through)
    assert mended.exit_code == 0, mended.output
    assert mended.stdout.endswith("4 documents: 1 added, 0 changed, 1 removed, 0 problems\n")
    again = json.loads((await headwater("workspace", "sync", str(tmp_path), "--once", "--json", *through)).stdout)
    assert again == {"documents": 4, "added": 0, "changed": 0, "removed": 0, "problems": []}


async def test_a_second_folder_is_refused_until_it_takes_over_and_then_the_first_one_is(
    indexed: Indexed, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / f"{folder.name}.md").write_text(folder.name)
    through = ("--once", "--node", indexed.grpc(STANDBY), "--workspace", "kept")
    assert (await headwater("workspace", "sync", str(one), *through)).exit_code == 0
    refused = await headwater("workspace", "sync", str(two), *through)
    assert refused.exit_code == 5
    assert refused.stdout == ""
    assert re.fullmatch(
        rf"headwater: workspace 'kept' is kept by '\S+:{one}', last heard \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC; "
        r"one folder at a time is its source; --take-over makes it this one\n",
        refused.stderr,
    )
    again = await headwater("workspace", "sync", str(one), *through)
    assert again.stdout.endswith("1 documents: 0 added, 0 changed, 0 removed, 0 problems\n")
    over = await headwater("workspace", "sync", str(two), "--take-over", *through)
    assert over.stdout.endswith("1 documents: 1 added, 0 changed, 1 removed, 0 problems\n")
    assert (await headwater("workspace", "sync", str(two), *through)).exit_code == 0
    assert (await headwater("workspace", "sync", str(one), *through)).exit_code == 5
    listed = await headwater(
        "workspace", "documents", "--workspace", "kept", "--json", "--node", indexed.grpc(PRIMARY)
    )
    assert [json.loads(line)["path"] for line in listed.stdout.splitlines()] == ["two.md"]


async def test_a_folder_that_moves_goes_on_under_its_name(indexed: Indexed, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    through = ("--once", "--node", indexed.grpc(STANDBY), "--workspace", "moving")
    assert (
        await headwater("workspace", "sync", str(tmp_path / "before"), "--source", "s", *through)
    ).exit_code == 0
    (tmp_path / "before").rename(tmp_path / "after")
    assert (await headwater("workspace", "sync", str(tmp_path / "after"), "--source", "s", *through)).exit_code == 0
    unnamed = await headwater("workspace", "sync", str(tmp_path / "after"), *through)
    assert unnamed.exit_code == 5
    assert f"{tmp_path}/after (s)'" in unnamed.stderr


async def test_a_follower_whose_workspace_is_taken_over_hears_so_at_its_next_pass(
    indexed: Indexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RESCAN_SECONDS", 0.05)
    monkeypatch.setattr("ops.workspace.sync.HEARD_SECONDS", 0.0)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.md").write_text(name)
    folder = Folder(tmp_path / "one")
    index = ClaimedIndex(indexed.index, claim_of(folder.root, None, take_over=False))
    async with (
        aclosing(watching.passes(WorkspaceSync(index, "followed", folder), folder)) as told,
        asyncio.timeout(60),
    ):
        assert isinstance(await anext(told), SyncSummary)
        through = ("--once", "--node", indexed.grpc(PRIMARY), "--workspace", "followed")
        assert (await headwater("workspace", "sync", str(tmp_path / "two"), "--take-over", *through)).exit_code == 0
        with pytest.raises(WorkspaceTaken, match=r"was taken over by '\S+/two', last heard"):
            while True:
                await anext(told)
    again = (await headwater("workspace", "sync", str(tmp_path / "two"), *through)).stdout
    assert again.endswith("1 documents: 0 added, 0 changed, 0 removed, 0 problems\n"), "nothing was undone"


async def test_the_command_line_lists_searches_and_shows(indexed: Indexed) -> None:
    at = ("--workspace", "web", "--node", indexed.grpc(STANDBY))
    await indexed.get("")
    listed = await headwater("workspace", "documents", "--property", "status=open", "--json", *at)
    assert [json.loads(line)["path"] for line in listed.stdout.splitlines()] == ["adr/sqlite.md"]
    table = await headwater("workspace", "documents", "--prefix", "adr/", "--limit", "1", *at)
    assert "adr/raft.md" in table.stdout
    assert "adr/sqlite.md" not in table.stdout
    searched = await headwater("workspace", "search", '"write ahead"', "str*", *at)
    assert searched.stdout.startswith("adr/sqlite.md  Use SQLite\n  The write ahead log is streamed")
    shown = await headwater("workspace", "show", "adr/sqlite.md", *at)
    assert "→ Checkpoints (notes/checkpoints.md)\n→ nowhere.md (nowhere)\n" in shown.stdout
    as_json = json.loads((await headwater("workspace", "show", "adr/sqlite.md", "--json", *at)).stdout)
    assert as_json["front_matter"]["status"] == "open"
    gone = await headwater("workspace", "show", "gone.md", *at)
    assert gone.exit_code == 1
    assert "has no document at 'gone.md'; `headwater workspace documents` lists those that exist" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sync", "/nowhere", "--workspace", "w"), "does not exist"),
        (("documents", "--workspace", "a/b"), "workspace must be"),
        (("documents", "--workspace", "w", "--property", "status"), "is not NAME=VALUE"),
        (("search", "--workspace", "w"), "Missing argument 'WORDS...'"),
    ],
)
async def test_a_wrong_command_line_is_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    wrong = await headwater("workspace", *arguments)
    assert wrong.exit_code == 2
    assert said in " ".join(wrong.stderr.split())


async def test_all_nodes_end_with_identical_shards(indexed: Indexed) -> None:
    assert await differing(indexed.cluster) == []
