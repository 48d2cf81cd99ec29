"""What every command that talks to a node does alike: the option, the loop, and errors as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
import grpc.aio
import uvloop
from rich.console import Console

from agent_core.client.addresses import check_address
from agent_core.errors import (
    DocumentNotFound,
    HeadwaterError,
    NotPrimary,
    OutcomeUnknown,
    Overloaded,
    QueryRefused,
    SessionNotFound,
    Unavailable,
    WorkspaceTaken,
)
from agent_core.rpc_errors import from_rpc_error
from ops.cli.plain_text import plain

EXIT_FAILED = 1
EXIT_UNREACHABLE = 3
EXIT_UNKNOWN = 4
EXIT_TAKEN = 5
DEFAULT_NODES = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103"
"""Those of a cluster that `headwater up` started."""
MESSAGE_BYTES = 64 << 20
PIPED_COLUMNS = 180

REMEDIES: dict[type[HeadwaterError], str] = {
    DocumentNotFound: "`headwater workspace documents` lists those that exist",
    NotPrimary: "try again in a moment: a new primary is being found",
    OutcomeUnknown: "repeating the command is safe; an append is repeated with the same --key",
    Overloaded: "try again in a moment",
    QueryRefused: "`SELECT name, sql FROM sqlite_schema` lists tables, views and their columns",
    SessionNotFound: "`headwater sessions` lists those that exist",
    Unavailable: "see whether the node runs, with `headwater status`, or name others",
    WorkspaceTaken: "one folder at a time is its source; --take-over makes it this one",
}
"""What to do about an error, where that is the same each time."""

Command = TypeVar("Command", bound=Callable[..., Any])


def node_option(command: Command) -> Command:
    """Add `--node`, for a command that any node serves: the argument `nodes`, the addresses to try in turn."""
    return click.option(
        "--node",
        "nodes",
        multiple=True,
        envvar="HEADWATER_NODE",
        default=(DEFAULT_NODES,),
        show_default="127.0.0.1:7101 to 7103",
        metavar="HOST:PORT,…",
        callback=_checked_any_of,
        help="gRPC addresses of nodes, with commas between or given repeatedly: the first that serves is used, the "
        "next one when it dies. Also from the environment variable HEADWATER_NODE.",
    )(command)


def one_node_option(command: Command) -> Command:
    """Add `--node`, for a command that means this very node."""
    return click.option(
        "--node",
        required=True,
        metavar="HOST:PORT",
        callback=_checked_node,
        help="gRPC address of the node.",
    )(command)


def nodes_option(command: Command) -> Command:
    """Add `--nodes`, for a command that asks each of them."""
    return click.option(
        "--nodes",
        envvar="HEADWATER_NODE",
        default=DEFAULT_NODES,
        show_default=True,
        metavar="HOST:PORT,…",
        callback=_checked_nodes,
        help="gRPC addresses of the nodes, each of which is asked. Also from the environment variable "
        "HEADWATER_NODE.",
    )(command)


def console() -> Console:
    """Where tables go: as wide as the terminal, and wide enough to read where there is none."""
    found = Console()
    return found if found.is_terminal else Console(width=PIPED_COLUMNS)


def addresses(nodes: str) -> list[str]:
    """The addresses of a `--nodes` option."""
    return [address.strip() for address in nodes.split(",") if address.strip()]


def _checked_node(_context: click.Context, _parameter: click.Parameter, node: str) -> str:
    try:
        return check_address(node)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _checked_any_of(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    listed = ",".join(given)
    _checked_nodes(context, parameter, listed)
    return tuple(dict.fromkeys(addresses(listed)))


def _checked_nodes(context: click.Context, parameter: click.Parameter, nodes: str) -> str:
    if not addresses(nodes):
        raise click.BadParameter("name at least one node")
    for address in addresses(nodes):
        _checked_node(context, parameter, address)
    return nodes


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel that takes answers as large as a node may give."""
    return grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", MESSAGE_BYTES)])


def run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command to its end and exit with its code; an error becomes one line."""
    try:
        code = uvloop.run(work)
    except grpc.aio.AioRpcError as error:
        code = _tell(from_rpc_error(error, unanswered=Unavailable))
    except HeadwaterError as error:
        code = _tell(error)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _tell(error: HeadwaterError) -> int:
    told = " ".join(plain(str(error)).split()) or error.code
    remedy = REMEDIES.get(type(error))
    click.echo(f"headwater: {told}; {remedy}" if remedy else f"headwater: {told}", err=True)
    if isinstance(error, OutcomeUnknown):
        return EXIT_UNKNOWN
    if isinstance(error, WorkspaceTaken):
        return EXIT_TAKEN
    return EXIT_UNREACHABLE if isinstance(error, Unavailable) else EXIT_FAILED
