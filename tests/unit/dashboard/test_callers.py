"""By which names the dashboard may be asked, and by which pages."""

from __future__ import annotations

import pytest

from ops.dashboard.callers import FORBIDDEN, MISDIRECTED, KnownNames

NAMES = KnownNames("dashboard", ["Looks.Example"])


def status(host: str, origin: str | None = None) -> int | None:
    headers = {b"host": host.encode()} | ({} if origin is None else {b"origin": origin.encode()})
    refusal = NAMES.refusal(headers)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:7180", "[::1]:7180", "192.0.2.7", "localhost:7180", "LOCALHOST", "dashboard:8080", "looks.example"],
)
def test_addresses_loopback_and_the_names_of_the_operator_are_answered(host: str) -> None:
    assert status(host) is None
    assert status(host, f"http://{host}") is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "", "[", "a/b",
     "localhost@127.0.0.1", "127.0.0.1/x", "evil.example:7180"],
)  # fmt: skip
def test_a_name_that_somebody_else_made_lead_here_is_not_answered(host: str) -> None:
    assert status(host) == MISDIRECTED
    assert status(host, f"http://{host}") == MISDIRECTED


def test_the_refusal_says_what_an_operator_does_about_it() -> None:
    refusal = NAMES.refusal({b"host": b"my-name:8080"})
    assert refusal is not None
    assert "'my-name:8080'" in refusal.reason
    assert "--allowed-host" in refusal.reason


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:7180", "http://[", "", "file://",
     "http://127.0.0.1:7180.evil.example"],
)  # fmt: skip
def test_a_page_of_another_origin_gets_nothing(origin: str) -> None:
    assert status("127.0.0.1:7180", origin) == FORBIDDEN


def test_what_else_is_served_on_the_host_that_it_listens_on_is_another_origin() -> None:
    headers = {b"host": b"127.0.0.1:7180", b"origin": b"http://127.0.0.1:3000"}
    refusal = KnownNames("127.0.0.1").refusal(headers)
    assert refusal is not None
    assert refusal.status == FORBIDDEN
    assert status("dashboard:8080", "http://dashboard:3000") == FORBIDDEN


def test_a_page_that_a_proxy_serves_under_a_name_of_the_operator_is_the_dashboards_own() -> None:
    assert status("127.0.0.1:7180", "https://looks.example") is None
