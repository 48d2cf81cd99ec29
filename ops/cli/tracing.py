"""Traces of what a command appends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from agent_core.errors import HeadwaterError
from agent_core.tracing import Tracer
from ops.tracing import endpoint_problem, open_tracer

SENDING_SECONDS = 2
"""A command has said what it did, and waits no longer than so for a collector that does not answer."""

Command = TypeVar("Command", bound=Callable[..., Any])


def trace_option(command: Command) -> Command:
    """Add `--trace-endpoint`: the argument `trace_endpoint`, empty where nothing is traced."""
    return click.option(
        "--trace-endpoint",
        default="",
        metavar="http://HOST:PORT",
        # As for nodes, which take their settings from the environment too.
        envvar="HEADWATER_TRACING__ENDPOINT",
        callback=_checked_endpoint,
        help="An OpenTelemetry collector, to which a trace of the append goes. Also from the environment variable "
        "HEADWATER_TRACING__ENDPOINT.",
    )(command)


@contextmanager
def traced(endpoint: str) -> Iterator[Tracer | None]:
    """The command's tracer, if it has one; at the end it has sent what it can.

    Raises:
        click.UsageError: OpenTelemetry is not installed.
    """
    try:
        tracer = open_tracer(endpoint, service="headwater-command", timeout_seconds=SENDING_SECONDS)
    except HeadwaterError as error:
        raise click.UsageError(str(error)) from None
    try:
        yield tracer
    finally:
        if tracer is not None:
            tracer.close()


def _checked_endpoint(_context: click.Context, _parameter: click.Parameter, endpoint: str) -> str:
    problem = endpoint_problem(endpoint)
    if problem is not None:
        raise click.BadParameter(f"it {problem}")
    return endpoint
