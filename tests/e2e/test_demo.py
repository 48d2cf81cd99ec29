"""The demonstration opens with the address of a dashboard that answers, and ends it too."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

from ops.cluster_files import ClusterPlan, lay_out


async def test_the_demo_begins_with_the_address_of_a_dashboard_that_lives_as_long_as_it(tmp_path: Path) -> None:
    lay_out(tmp_path, ClusterPlan(base_port=0))
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "ops.cli.main", "demo", "--seconds", "2", "--data", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert demo.stdout is not None
    try:
        async with asyncio.timeout(120), httpx.AsyncClient() as http:
            first = (await demo.stdout.readline()).decode()
            assert first.startswith("dashboard: http://127.0.0.1:")
            address = first.removeprefix("dashboard: ").strip()
            answer = await http.get(address)
            assert "Headwater" in answer.text
            rest = (await demo.stdout.read()).decode()
            assert await demo.wait() == 0, rest
            assert rest.splitlines()[-1].startswith("demo: ")
            with pytest.raises(httpx.ConnectError):
                await http.get(address)
    finally:
        if demo.returncode is None:
            demo.kill()
            await demo.wait()
