"""Which node a client turns to."""

from __future__ import annotations

import pytest

from agent_core.client.endpoints import Endpoints, check_address, primary_address
from agent_core.errors import NotPrimary


@pytest.mark.parametrize("address", ["127.0.0.1:7101", "node-a.example:1", "[::1]:65535", "localhost:7101"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize("address", ["", "127.0.0.1", "host:0", "host:65536", "http://host:1", "a b:1", "host:1\n"])
def test_anything_else_is_refused_by_name(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        check_address(address)


def test_a_client_needs_an_address() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        Endpoints([])


def test_a_failure_turns_to_the_next_address_and_around() -> None:
    endpoints = Endpoints(["a:1", "b:2"])
    endpoints.failed("a:1")
    assert endpoints.current == "b:2"
    endpoints.failed("b:2")
    assert endpoints.current == "a:1"


def test_a_late_failure_of_an_address_that_was_left_changes_nothing() -> None:
    endpoints = Endpoints(["a:1", "b:2"])
    endpoints.failed("a:1")
    endpoints.failed("a:1")
    assert endpoints.current == "b:2"


@pytest.mark.parametrize(
    ("message", "address"),
    [
        ("group 0 is led by node-b at 10.0.0.2:7101", "10.0.0.2:7101"),
        ("group 0 is led by node-b at [::1]:7101.", "[::1]:7101"),
        ("the primary is not known", None),
        ("led by node-b at node-b:99999", None),
    ],
)
def test_a_refusal_names_the_primary(message: str, address: str | None) -> None:
    assert primary_address(NotPrimary(message)) == address


def test_a_redirection_is_followed_even_to_an_address_that_was_not_configured() -> None:
    endpoints = Endpoints("a:1")
    endpoints.redirected("a:1", NotPrimary("group 0 is led by node-b at b:2"))
    assert endpoints.current == "b:2"
    endpoints.failed("b:2")
    assert endpoints.current == "a:1"


def test_a_refusal_without_an_address_turns_to_the_next_one() -> None:
    endpoints = Endpoints(["a:1", "b:2"])
    endpoints.redirected("a:1", NotPrimary("no primary is known"))
    assert endpoints.current == "b:2"
