"""Addresses by name: the last one known at once, a newer one soon."""

from __future__ import annotations

import threading

import pytest

from ops.control.host_names import KEPT_SECONDS, HostNames, look_up
from tests.waiting import until


class NameServer:
    """Answers as it is told to, and counts."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.questions = 0
        self.answers = threading.Event()
        self.answers.set()

    def __call__(self, host: str) -> str:
        self.questions += 1
        self.answers.wait()
        try:
            return self.addresses[host]
        except KeyError:
            raise OSError("no such host") from None


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> NameServer:
    return NameServer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def names(server: NameServer, clock: Clock) -> HostNames:
    return HostNames(server, clock)


@pytest.mark.parametrize("address", ["10.0.0.7", "::1"])
def test_an_address_is_its_own_and_nobody_is_asked(names: HostNames, server: NameServer, address: str) -> None:
    assert names.address(address) == address
    assert server.questions == 0


async def test_a_name_is_looked_up_while_nobody_waits(names: HostNames, server: NameServer) -> None:
    server.addresses["node-1"] = "10.0.0.1"
    server.answers.clear()
    assert names.address("node-1") is None
    server.answers.set()
    await until(lambda: names.address("node-1") == "10.0.0.1")
    assert server.questions == 1


async def test_a_host_that_moved_is_found_at_its_new_address(
    names: HostNames, server: NameServer, clock: Clock
) -> None:
    server.addresses["node-1"] = "10.0.0.1"
    await until(lambda: names.address("node-1") == "10.0.0.1")
    server.addresses["node-1"] = "10.0.0.2"
    clock.now += KEPT_SECONDS
    await until(lambda: names.address("node-1") == "10.0.0.2")
    assert server.questions == 2


async def test_the_last_address_is_kept_while_the_name_server_is_gone(
    names: HostNames, server: NameServer, clock: Clock
) -> None:
    server.addresses["node-1"] = "10.0.0.1"
    await until(lambda: names.address("node-1") == "10.0.0.1")
    server.addresses.clear()
    clock.now += KEPT_SECONDS
    assert names.address("node-1") == "10.0.0.1"
    await until(lambda: server.questions == 2)
    clock.now += KEPT_SECONDS
    assert names.address("node-1") == "10.0.0.1"


async def test_a_look_up_that_hangs_is_the_only_one_for_its_host(
    names: HostNames, server: NameServer, clock: Clock
) -> None:
    server.answers.clear()
    for _ in range(5):
        assert names.address("node-1") is None
        clock.now += KEPT_SECONDS
    assert server.questions == 1
    server.answers.set()


def test_the_system_knows_the_local_host() -> None:
    assert look_up("localhost") == "127.0.0.1"
