"""The addresses of hosts by their names, looked up anew without anyone waiting for it.

A container gets another address with each start, so an answer must not be kept for long; and a name server that is
gone lets a look-up hang for seconds, in which Raft's thread has to go on.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address

KEPT_SECONDS = 1.0
"""How long an address is taken to hold before it is asked for again."""

_logger = logging.getLogger(__name__)


def look_up(host: str) -> str:
    """Ask the system for a host's address; an IPv4 address if it has one, as Raft members listen.

    Raises:
        OSError: There is no answer, or no such host.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    return str(found[0][4][0])


class HostNames:
    """What is known of each host. For one thread; each look-up runs in a short-lived one of its own."""

    def __init__(
        self, look_up: Callable[[str], str] = look_up, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look_up = look_up
        self._clock = clock
        self._known: dict[str, str] = {}
        self._asked_at: dict[str, float] = {}
        self._asking: dict[str, threading.Thread] = {}

    def address(self, host: str) -> str | None:
        """The host's address as last heard, at once; None as long as nothing was heard. An address is its own."""
        if _is_address(host):
            return host
        asking = self._asking.get(host)
        asked_at = self._asked_at.get(host)
        if (asking is None or not asking.is_alive()) and (
            asked_at is None or self._clock() - asked_at >= KEPT_SECONDS
        ):
            self._asked_at[host] = self._clock()
            self._asking[host] = threading.Thread(
                target=self._ask, args=(host,), name=f"look up {host}", daemon=True
            )
            self._asking[host].start()
        return self._known.get(host)

    def _ask(self, host: str) -> None:
        try:
            address = self._look_up(host)
        except OSError as error:
            _logger.debug("the name %s has no address: %s", host, error)
            return
        self._known[host] = address


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
