"""The dashboard as a process: whom it answers, over HTTP and at its socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ops.cluster_files import free_ports
from ops.dashboard.process import running_dashboard

SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport="
NO_NODE = ["127.0.0.1:1"]


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    (port,) = free_ports(1)
    listen = f"127.0.0.1:{port}"
    async with running_dashboard(NO_NODE, listen, tmp_path / "dashboard.log", allowed_hosts=["looks.example"]):
        yield listen


async def first_line(address: str, path: str, **headers: str) -> str:
    """The status line that answers an upgrade to a web socket."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    upgrade = {
        "Host": address,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    } | headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in upgrade.items())
    writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
    line = (await asyncio.wait_for(reader.readline(), 10)).decode().strip()
    writer.close()
    return line


async def test_only_names_of_its_own_and_pages_of_its_own_are_answered(address: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as http:
        for host in (address, "localhost", "looks.example"):
            assert (await http.get("/sessions", headers={"host": host})).status_code == 200
        rebound = await http.get("/sessions", headers={"host": "evil.example"})
        assert rebound.status_code == 421
        assert "--allowed-host" in rebound.text
        for path in ("/sessions", "/raw/s/1", "/static/dashboard.css", f"{SOCKET}polling"):
            answer = await http.get(path, headers={"origin": "http://evil.example"})
            assert (path, answer.status_code) == (path, 403)
            assert "access-control-allow-origin" not in answer.headers
        own = await http.get(f"{SOCKET}polling", headers={"origin": f"http://{address}"})
        assert own.status_code == 200
    socket = f"{SOCKET}websocket"
    assert " 101 " in await first_line(address, socket, Origin=f"http://{address}")
    assert " 403 " in await first_line(address, socket, Origin="http://evil.example")
    assert " 403 " in await first_line(address, socket, Host="evil.example", Origin="http://evil.example")
