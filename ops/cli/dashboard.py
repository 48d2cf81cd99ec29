"""`headwater dashboard`."""

from __future__ import annotations

import re

import click

from agent_core.cluster import HostPort, is_loopback
from ops.cli.calls import EXIT_FAILED, addresses
from ops.cli.plain_text import plain

DEFAULT_NODES = "127.0.0.1:7201,127.0.0.1:7202,127.0.0.1:7203"
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
DEFAULT_LISTEN = "127.0.0.1:7180"


def _checked_nodes(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    nodes = addresses(value)
    if not nodes:
        raise click.BadParameter("name at least one node as host:port")
    for node in nodes:
        _parsed(node)
    return nodes


def _checked_listen(_: click.Context, __: click.Parameter, value: str) -> HostPort:
    return _parsed(value)


def _checked_hosts(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if HOST_NAME.fullmatch(host) is None:
            raise click.BadParameter(f"{host!r} is not a host's name; write it without scheme, port and path")
    return value


def _parsed(address: str) -> HostPort:
    try:
        return HostPort.parse(address)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(epilog="Exit codes: 0 stopped by you, 1 it cannot listen there, 2 the command line is wrong.")
@click.option(
    "--nodes",
    default=DEFAULT_NODES,
    show_default=True,
    metavar="HOST:PORT,…",
    callback=_checked_nodes,
    help="HTTP addresses of nodes; one that lives is enough to learn of the others.",
)
@click.option(
    "--listen",
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    callback=_checked_listen,
    help="Where to serve. Whoever reaches it reads every session.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    callback=_checked_hosts,
    help="A name by which browsers may ask, as behind a proxy; may be repeated. "
    "The host of --listen, localhost and addresses always may.",
)
@click.pass_context
def dashboard(
    context: click.Context, *, nodes: list[str], listen: HostPort, allowed_hosts: tuple[str, ...]
) -> None:
    """Serve the dashboard until Ctrl-C: the cluster's state, sessions, and transcripts as they grow.

    It reads standbys, and moves to another node when the one that it reads stops answering.

    Example: headwater dashboard --nodes 127.0.0.1:7201,127.0.0.1:7202
    """
    try:
        from ops.dashboard.app import serve  # noqa: PLC0415 - an optional part of the installation
    except ModuleNotFoundError as error:
        click.echo(f"headwater: {error.name} is missing; install headwater[dashboard]", err=True)
        context.exit(EXIT_FAILED)
    shown = f"[{listen.host}]:{listen.port}" if ":" in listen.host else f"{listen.host}:{listen.port}"

    def say() -> None:
        click.echo(f"dashboard: http://{shown}")
        if not is_loopback(shown):
            click.echo("Anyone who reaches this address can read every session.", err=True)

    try:
        serve(nodes, listen, allowed_hosts, say)
    except OSError as error:
        click.echo(f"headwater: cannot listen on {shown}: {plain(str(error.strerror))}", err=True)
        context.exit(EXIT_FAILED)
