"""`headwater health`: whether a node is alive or ready, for whoever watches its container."""

from __future__ import annotations

import http.client
from http import HTTPStatus
from pathlib import Path

import click

from agent_core.cluster import HostPort
from ops.cli.plain_text import plain
from ops.config import load
from ops.config_problems import InvalidConfiguration

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
ANSWER_BYTES = 16 * 1024


@click.command(
    epilog="Exit codes: 0 it is; 1 it is not; 2 the configuration cannot be used; 3 the node cannot be reached."
)
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The node's TOML file.")
@click.option("--ready", is_flag=True, help="Ask whether it should get requests, not only whether it is alive.")
@click.option(
    "--timeout", "seconds", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="In seconds."
)
@click.pass_context
def health(context: click.Context, *, path: Path, ready: bool, seconds: float) -> None:
    """Ask the node that this file and this environment configure how it is, and print its answer.

    It is asked at the address that the configuration names, where it listens and nowhere else.

    \b
    Example:
      headwater health --config /etc/headwater/headwater.toml --ready
    """  # noqa: D301 - click wants the character itself
    try:
        address = load(path).own_address.http_address
    except InvalidConfiguration as error:
        click.echo(f"headwater: {error}", err=True)
        context.exit(EXIT_USAGE)
    try:
        status, answer = _ask(address, "/readyz" if ready else "/healthz", seconds)
    except (OSError, http.client.HTTPException) as error:
        click.echo(f"headwater: {address} cannot be reached: {plain(str(error)) or type(error).__name__}", err=True)
        context.exit(EXIT_UNREACHABLE)
    click.echo(plain(answer))
    if status != HTTPStatus.OK:
        context.exit(EXIT_FAILED)


def _ask(address: str, route: str, seconds: float) -> tuple[int, str]:
    host, port = HostPort.parse(address)
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", route)
        response = connection.getresponse()
        return response.status, response.read(ANSWER_BYTES).decode("utf-8", "replace")
    finally:
        connection.close()
