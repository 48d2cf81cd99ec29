"""The command line without a node: help, usage, lazy loading."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from agent_core.errors import (
    HeadwaterError,
    NotPrimary,
    OutcomeUnknown,
    SessionNotFound,
    Unavailable,
    WriteFailed,
)
from ops.cli.calls import node_option, run
from ops.cli.main import COMMANDS, main
from ops.cli.sessions import payload_of


def every_command(command: click.Command = main, *path: str) -> Iterator[tuple[str, ...]]:
    """How each command is called, those of nested groups and the groups themselves included."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from every_command(below, *path, name)


def test_the_help_lists_every_command_and_the_exit_codes_without_importing_any() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from ops.cli.main import main;"
        "print(CliRunner().invoke(main, ['--help']).output);"
        "loaded = {name for name in sys.modules if name.startswith(('grpc', 'rich', 'primary', 'ops.cli.'))};"
        "assert loaded == {'ops.cli.main'}, loaded"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for command in COMMANDS:
        assert f"\n  {command}" in shown
    assert "Exit codes:" in shown


def test_every_command_is_reached() -> None:
    reached = set(every_command())
    assert reached >= {(name,) for name in COMMANDS}
    assert reached >= {(), ("bench", "failover"), ("workspace", "sync")}


@pytest.mark.parametrize("command", list(every_command()), ids=" ".join)
def test_every_commands_help_teaches_with_an_example(command: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*command, "--help"])
    assert shown.exit_code == 0
    assert re.search(rf"Example:\s+{' '.join(('headwater', *command))}\b", shown.output), shown.output
    assert "\b" not in shown.output


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["florp"]).exit_code == 2


@pytest.mark.parametrize("command", [["sessions"], ["show", "s"], ["append", "s", "t"], ["query", "SELECT 1"]])
def test_an_address_that_is_none_is_a_usage_error(command: list[str]) -> None:
    outcome = CliRunner().invoke(main, [*command, "--node", "nowhere"])
    assert outcome.exit_code == 2
    assert "host:port" in outcome.output


@pytest.mark.parametrize("nodes", ["", " , ", "a:1,b"])
@pytest.mark.parametrize("command", [["status", "--nodes"], ["verify", "--nodes"], ["sessions", "--node"]])
def test_a_list_of_addresses_is_checked(command: list[str], nodes: str) -> None:
    assert CliRunner().invoke(main, [*command, nodes]).exit_code == 2


@click.command()
@node_option
def echo(nodes: tuple[str, ...]) -> None:
    """Print the addresses that a command would try."""
    click.echo(" ".join(nodes))


@pytest.mark.parametrize(
    ("arguments", "environment", "tried"),
    [
        ([], None, "127.0.0.1:7101 127.0.0.1:7102 127.0.0.1:7103"),
        (["--node", "a:1"], None, "a:1"),
        (["--node", "a:1, b:2", "--node", "c:3", "--node", "a:1"], None, "a:1 b:2 c:3"),
        ([], "a:1,b:2", "a:1 b:2"),
        ([], "a:1, b:2", "a:1 b:2"),
        (["--node", "c:3"], "a:1,b:2", "c:3"),
    ],
)
def test_several_nodes_are_named_with_commas_repeatedly_or_by_the_environment(
    arguments: list[str], environment: str | None, tried: str
) -> None:
    assert CliRunner().invoke(echo, arguments, env={"HEADWATER_NODE": environment}).output == f"{tried}\n"


@pytest.mark.parametrize("command", ["status", "top", "verify"])
def test_commands_that_ask_each_node_take_them_from_the_environment_too(command: str) -> None:
    refused = CliRunner().invoke(main, [command], env={"HEADWATER_NODE": "no-port"})
    assert (refused.exit_code, "no-port" in refused.output) == (2, True)


def test_a_resync_is_of_the_one_node_that_is_named() -> None:
    unnamed = CliRunner().invoke(main, ["resync", "--shard", "3"], env={"HEADWATER_NODE": "127.0.0.1:7101"})
    assert (unnamed.exit_code, "Missing option '--node'" in unnamed.output) == (2, True)
    assert CliRunner().invoke(main, ["resync", "--shard", "3", "--node", "a:1,b:2"]).exit_code == 2


def test_the_outputs_of_a_query_exclude_each_other() -> None:
    assert CliRunner().invoke(main, ["query", "SELECT 1", "--json", "--csv"]).exit_code == 2
    assert CliRunner().invoke(main, ["query", "SELECT 1", "--session", "s", "--workspace"]).exit_code == 2


def test_a_message_is_a_role_and_a_text() -> None:
    assert payload_of("message", "user", "Hello") == {
        "role": "user",
        "content": [{"type": "text", "text": "Hello"}],
    }


def test_an_entry_of_another_kind_is_the_object_that_was_given() -> None:
    assert payload_of("compaction", "user", '{"summary": "short"}') == {"summary": "short"}


@pytest.mark.parametrize("text", ["", "Hello", "[1]", "3"])
def test_an_entry_of_another_kind_that_is_no_object_is_a_usage_error(text: str) -> None:
    outcome = CliRunner().invoke(main, ["append", "s", text, "--kind", "compaction"])
    assert outcome.exit_code == 2
    assert "JSON object" in outcome.output


def test_standard_input_that_is_no_text_is_a_usage_error() -> None:
    outcome = CliRunner().invoke(main, ["append", "s"], input=b"\xff\xfe")
    assert outcome.exit_code == 2
    assert "UTF-8" in outcome.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WriteFailed("disk full"), 1),
        (SessionNotFound("no session"), 1),
        (NotPrimary("led by b"), 1),
        (Unavailable("refuses\nconnections \x1b[2J"), 3),
        (OutcomeUnknown("no quorum in time"), 4),
        (HeadwaterError(), 1),
    ],
)
def test_an_error_is_one_harmless_line_and_its_exit_code(
    error: HeadwaterError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run(fail())
    told = capsys.readouterr().err
    assert ended.value.code == code
    assert told.startswith("headwater: ")
    assert told.count("\n") == 1
    assert "\x1b" not in told
