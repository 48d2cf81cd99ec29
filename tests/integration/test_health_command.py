"""`headwater health` against something that answers as a node does."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ops.cli.health import health
from ops.cluster_files import free_ports

ANSWERS = {
    "/healthz": (200, '{"status":"ok","reasons":[]}'),
    "/readyz": (503, '{"status":"not ready","reasons":["the node \x1b[2J starts"]}'),
}


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, text = ANSWERS[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(port: int) -> Iterator[None]:
    with http.server.HTTPServer(("127.0.0.1", port), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def port() -> int:
    (found,) = free_ports(1)
    return found


@pytest.fixture
def configuration(port: int, tmp_path: Path) -> str:
    path = tmp_path / "headwater.toml"
    node = f'[[nodes]]\nid = "a"\ngrpc = "127.0.0.1:1"\nhttp = "127.0.0.1:{port}"\nraft = "127.0.0.1:2"\n'
    path.write_text(f'[cluster]\nid = "c"\n[node]\nid = "a"\n{node}')
    return str(path)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(health, arguments)


def test_a_node_that_is_alive_is_exit_code_0_and_one_that_is_not_ready_1_with_its_reasons(
    port: int, configuration: str
) -> None:
    with answering(port):
        alive = ask("--config", configuration)
        ready = ask("--config", configuration, "--ready")
    assert (alive.exit_code, alive.output) == (0, '{"status":"ok","reasons":[]}\n')
    assert ready.exit_code == 1
    assert "the node \\u001b[2J starts" in ready.output


def test_a_node_that_does_not_answer_is_exit_code_3_with_its_address(port: int, configuration: str) -> None:
    outcome = ask("--config", configuration)
    assert outcome.exit_code == 3
    assert f"127.0.0.1:{port} cannot be reached" in outcome.output


def test_which_node_it_is_may_stand_in_the_environment(configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_NODE__ID", "b")
    outcome = ask("--config", configuration)
    assert outcome.exit_code == 2
    assert "node.id is 'b'" in outcome.output
