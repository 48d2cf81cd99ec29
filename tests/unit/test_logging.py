"""One line for each event, whoever speaks."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from ops.logging import configure_logging


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_event_is_one_json_line_with_its_fields() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream, node="node-1")
    structlog.get_logger("primary.writer").warning("disk full", shard=3, path=logging)
    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["level"] == "warning"
    assert line["event"] == "disk full"
    assert line["node"] == "node-1"
    assert line["shard"] == 3
    assert line["logger"] == "primary.writer"
    assert line["timestamp"].endswith("Z")


def test_loggers_that_were_made_before_the_set_up_follow_it() -> None:
    early = structlog.get_logger("early")
    stream = io.StringIO()
    configure_logging(stream=stream)
    early.info("hello")
    assert lines(stream)[0]["event"] == "hello"


def test_libraries_take_the_same_way_out() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream, node="node-1")
    logging.getLogger("grpc").error("channel %s failed", "a", extra={"target": "b:1"})
    logging.getLogger("uvicorn.error").warning("odd request")
    first, second = lines(stream)
    assert first["event"] == "channel a failed"
    assert first["target"] == "b:1"
    assert first["node"] == second["node"] == "node-1"


def test_uvicorn_does_not_tell_of_every_start_and_request() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream, level="debug")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.access").info("GET /metrics")
    assert stream.getvalue() == ""


def test_what_is_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream, level="error")
    structlog.get_logger().warning("quiet")
    logging.getLogger("asyncio").warning("quiet")
    structlog.get_logger().error("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_a_traceback_stays_within_its_line_and_shows_no_values_of_variables() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    try:
        int("bad page")
    except ValueError:
        structlog.get_logger().exception("apply failed")
    (line,) = lines(stream)
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert "locals" not in line["exception"][0]["frames"][0]


def test_a_terminal_gets_text_and_auto_tells_them_apart() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    configure_logging(stream=terminal)
    structlog.get_logger().info("hello", shard=3)
    configure_logging(stream=pipe)
    structlog.get_logger().info("hello", shard=3)
    assert not terminal.getvalue().startswith("{")
    assert "hello" in terminal.getvalue()
    assert pipe.getvalue().startswith("{")


def test_warnings_reach_the_log() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        configure_logging(stream=stream)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "old thing" in lines(stream)[0]["event"]
