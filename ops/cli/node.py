"""`headwater node`: one daemon in the foreground."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from agent_core.errors import HeadwaterError
from agent_core.quorum import Acknowledgement
from ops.config import load
from ops.config_problems import InvalidConfiguration
from ops.logging import configure_logging
from ops.settings import LogSection, NodeConfiguration

EXIT_FAILED = 1
EXIT_USAGE = 2


def _choices(key: str) -> click.Choice[str]:
    """A flag's choices are those of its setting."""
    return click.Choice(LogSection.model_json_schema()["properties"][key]["enum"])


@click.command(epilog="Exit codes: 0 stopped cleanly, 1 failed, 2 the configuration cannot be used.")
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The node's TOML file.")
@click.option("--data-directory", type=click.Path(path_type=Path, resolve_path=True), help="node.data_directory")
@click.option(
    "--acknowledgement", type=click.Choice([mode.value for mode in Acknowledgement]), help="cluster.acknowledgement"
)
@click.option("--log-level", type=_choices("level"), help="log.level")
@click.option("--log-format", type=_choices("format"), help="log.format")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other setting; may be given several times.",
)
@click.pass_context
def node(
    context: click.Context,
    *,
    path: Path,
    data_directory: Path | None,
    acknowledgement: str | None,
    log_level: str | None,
    log_format: str | None,
    assignments: tuple[str, ...],
) -> None:
    """Run one node until SIGTERM or Ctrl-C, then let it finish its writes and stop.

    Settings come from the defaults, the file, the environment (HEADWATER_LIMITS__ENTRY_BYTES=1048576) and flags;
    later ones win. ops/headwater.sample.toml explains every key.

    \b
    Example:
      headwater node --config node-1/headwater.toml
      headwater node --config headwater.toml --log-level debug --set limits.entry_bytes=1048576
    """  # noqa: D301 - click wants the character itself
    overrides = parse_assignments(assignments)
    flags = {
        "node.data_directory": str(data_directory) if data_directory is not None else None,
        "cluster.acknowledgement": acknowledgement,
        "log.level": log_level,
        "log.format": log_format,
    }
    for key, value in flags.items():
        if value is not None:
            assign(overrides, key, value)
    try:
        configuration = load(path, overrides)
    except InvalidConfiguration as error:
        click.echo(f"headwater: {error}", err=True)
        context.exit(EXIT_USAGE)
    context.exit(_run(configuration))


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Nested settings from `section.key=value`; a value is TOML, and what is not TOML is text.

    Raises:
        click.BadParameter: One is not of that form.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or ("." not in key.strip(".") and key != "nodes"):
            raise click.BadParameter(
                f"{assignment!r} is not an assignment; allowed is section.key=value, "
                "for example limits.entry_bytes=1048576",
                param_hint="--set",
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        assign(overrides, key, value)
    return overrides


def assign(overrides: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key in nested settings."""
    *sections, last = key.split(".")
    for section in sections:
        inner = overrides.setdefault(section, {})
        if not isinstance(inner, dict):
            raise click.BadParameter(f"{key} lies within a value that is set already", param_hint="--set")
        overrides = inner
    overrides[last] = value


def _run(configuration: NodeConfiguration) -> int:
    configure_logging(level=configuration.log.level, format=configuration.log.format, node=configuration.node.id)
    # The daemon brings in gRPC, numpy and the databases; a wrong configuration is told without them.
    from ops.node import run  # noqa: PLC0415

    try:
        return run(configuration)
    except (HeadwaterError, OSError) as error:
        click.echo(f"headwater: {configuration.node.id} cannot run: {error}", err=True)
        return EXIT_FAILED
