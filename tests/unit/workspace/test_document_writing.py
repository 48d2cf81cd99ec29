"""Changes of documents through a primary's writer: one transaction, answered like any other write."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent_core.database.build import open_for_reading, open_for_writing
from agent_core.database.schema import MIGRATIONS, SCHEMA_VERSION, migrate, schema_version, set_position
from agent_core.errors import HeadwaterError, NotPrimary, OutcomeUnknown, WorkspaceTaken, WriteFailed
from agent_core.position import Position
from agent_core.quorum import Acknowledgement
from agent_core.routing import ShardLayout
from agent_core.rpc import workspace_pb2 as pb
from agent_core.workspace.document import DocumentChange
from agent_core.workspace.parsing import read_document
from agent_core.workspace.wire import change_to_wire
from primary.workspace.service import WorkspaceService
from primary.writer import WriterSettings
from tests.unit.primary_harness import Primary, primary

LAYOUT = ShardLayout(shard_count=4)
WORKSPACE_FILE = LAYOUT.shard_file_name(LAYOUT.workspace_shard)


def request(*paths: str, text: str = "text", claim: pb.SourceClaim | None = None) -> pb.ChangeDocumentsRequest:
    changes = [DocumentChange(path, "", read_document(path, text.encode())) for path in paths]
    return pb.ChangeDocumentsRequest(workspace="w", changes=map(change_to_wire, changes), claim=claim)


def service(node: Primary) -> WorkspaceService:
    return WorkspaceService(node.registry, LAYOUT, Acknowledgement.QUORUM)


def stored(directory: Path) -> list[str]:
    connection = open_for_reading(directory / "shards" / WORKSPACE_FILE)
    try:
        return [path for (path,) in connection.execute("SELECT path FROM documents ORDER BY path")]
    finally:
        connection.close()


async def test_changes_are_one_transaction_and_one_record(tmp_path: Path) -> None:
    async with primary(tmp_path, layout=LAYOUT) as node:
        before = node.log.last
        answer = await service(node)._change(request("a.md", "b.md"))
        assert list(answer.outcomes) == [pb.CHANGE_OUTCOME_APPLIED] * 2
        assert (answer.position.group, answer.position.position.lsn) == (0, before.lsn + 1)
        assert node.log.last.lsn == before.lsn + 1
    assert stored(tmp_path) == ["a.md", "b.md"]


async def test_no_changes_tell_a_position_past_everything_before(tmp_path: Path) -> None:
    async with primary(tmp_path, layout=LAYOUT) as node:
        await node.create("s")
        before = node.log.last
        answer = await service(node)._change(request())
        assert answer.position.position.lsn == before.lsn + 1
        assert list(answer.outcomes) == []


async def test_changes_and_appends_share_a_batch(tmp_path: Path) -> None:
    async with primary(tmp_path, layout=LAYOUT) as node:
        await node.create("s")
        appended, changed = await asyncio.gather(node.append("s", "hello"), service(node)._change(request("a.md")))
        assert appended.error is None
        assert list(changed.outcomes) == [pb.CHANGE_OUTCOME_APPLIED]
        assert await node.texts("s") == [b'{"text":"hello"}']


async def test_changes_without_a_quorum_end_as_unknown_and_may_be_repeated(tmp_path: Path) -> None:
    settings = WriterSettings(acknowledgement_timeout_seconds=0.1)
    async with primary(tmp_path, layout=LAYOUT, voters=("node-1", "node-2"), settings=settings) as node:
        with pytest.raises(OutcomeUnknown):
            await service(node)._change(request("a.md"))
        repeated = asyncio.create_task(service(node)._change(request("a.md")))
        async with asyncio.timeout(10):
            while not repeated.done():
                node.writer.durable("node-2", node.log.last.lsn)
                await asyncio.sleep(0.001)
        assert list(repeated.result().outcomes) == [pb.CHANGE_OUTCOME_UNCHANGED]


async def test_changes_that_the_shard_refuses_leave_no_trace(tmp_path: Path) -> None:
    async with primary(tmp_path, layout=LAYOUT) as node:
        connection = node.database.shards[LAYOUT.workspace_shard].connection
        connection.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON links BEGIN SELECT raise(FAIL, 'full'); END")
        with pytest.raises(WriteFailed, match="full"):
            await service(node)._change(request("a.md", text="[x](y.md)"))
        connection.execute("DROP TRIGGER full")
        assert list((await service(node)._change(request("a.md"))).outcomes) == [pb.CHANGE_OUTCOME_APPLIED]


async def test_a_node_that_does_not_lead_says_who_does(tmp_path: Path) -> None:
    async with primary(tmp_path, layout=LAYOUT) as node:
        node.registry.step_down(0)
        with pytest.raises(NotPrimary, match=r"group 0 is led by node-1 at 127\.0\.0\.1:7101"):
            await service(node)._change(request("a.md"))


async def test_a_second_source_is_refused_and_told_the_first_until_it_takes_over(tmp_path: Path) -> None:
    first, second = pb.SourceClaim(source="a" * 32, label="one:/n"), pb.SourceClaim(source="b" * 32, label="two:/n")
    async with primary(tmp_path, layout=LAYOUT) as node:
        assert (await service(node)._change(request("a.md"))).source_epoch == 0
        assert (await service(node)._change(request("b.md", claim=first))).source_epoch == 1
        for other in (second, None):
            with pytest.raises(
                WorkspaceTaken, match=r"workspace 'w' is kept by 'one:/n', last heard 20\d\d-.* UTC$"
            ):
                await service(node)._change(request("c.md", claim=other))
        second.take_over = True
        assert (await service(node)._change(request("d.md", claim=second))).source_epoch == 2
        first.epoch = 1
        with pytest.raises(WorkspaceTaken, match="workspace 'w' was taken over by 'two:/n', last heard"):
            await service(node)._change(request("e.md", claim=first))
    assert stored(tmp_path) == ["a.md", "b.md", "d.md"]


async def test_of_changes_in_one_batch_those_after_a_take_over_are_refused(tmp_path: Path) -> None:
    former = pb.SourceClaim(source="a" * 32, label="one:/n", epoch=1)
    taking = pb.SourceClaim(source="b" * 32, label="two:/n", take_over=True)
    async with primary(tmp_path, layout=LAYOUT) as node:
        await service(node)._change(request("a.md", claim=former))
        before = node.log.last.lsn
        outcomes = await asyncio.gather(
            *(service(node)._change(one) for one in (request("b.md", claim=taking), request("c.md", claim=former))),
            return_exceptions=True,
        )
        assert node.log.last.lsn == before + 1
    assert isinstance(outcomes[1], WorkspaceTaken)
    assert stored(tmp_path) == ["a.md", "b.md"]


async def test_many_callers_at_once_are_each_answered(tmp_path: Path) -> None:
    async with primary(tmp_path, layout=LAYOUT) as node:
        answers: list[Any] = await asyncio.gather(
            *(service(node)._change(request(f"{number}.md")) for number in range(50))
        )
        assert not [answer for answer in answers if isinstance(answer, HeadwaterError)]
    assert len(stored(tmp_path)) == 50


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
async def test_a_cluster_from_before_some_table_of_workspaces_gets_it_with_its_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    with monkeypatch.context() as before:
        before.setattr("agent_core.database.schema.MIGRATIONS", MIGRATIONS[:version])
        before.setattr("agent_core.database.schema.SCHEMA_VERSION", version)
        before.setattr("primary.group_database.SCHEMA_VERSION", version)
        async with primary(tmp_path, layout=LAYOUT) as node:
            await node.create("s")
            assert (await node.append("s", "kept")).error is None
    async with primary(tmp_path, layout=LAYOUT, epoch=2) as node:
        versions = {schema_version(state.connection) for state in node.database.shards.values()}
        assert versions == {SCHEMA_VERSION}
        assert await node.texts("s") == [b'{"text":"kept"}']
        assert list((await service(node)._change(request("a.md"))).outcomes) == [pb.CHANGE_OUTCOME_APPLIED]


def test_only_the_workspace_shard_has_the_tables_of_documents(tmp_path: Path) -> None:
    tables = {}
    for is_workspace in (False, True):
        connection = open_for_writing(tmp_path / f"{is_workspace}.db")
        connection.execute("BEGIN")
        migrate(connection, cluster_id="test", shard=4, is_workspace=is_workspace)
        set_position(connection, Position(1, 1), 0)
        connection.execute("COMMIT")
        tables[is_workspace] = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        connection.close()
    assert "documents" not in tables[False]
    assert {"documents", "properties", "links", "documents_text"} <= tables[True] - tables[False]
