"""`headwater switchover`, `drain` and `undrain`: who leads, by an operator's will."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import click
import orjson

from agent_core.errors import InvalidRequest
from ops.cli.calls import EXIT_FAILED, node_option, run
from ops.cli.plain_text import plain
from ops.operating import Operator

DRAIN_SECONDS = 60.0


@click.command()
@node_option
@click.option("--group", type=click.IntRange(0), required=True, help="The shard group.")
@click.option("--to", metavar="NODE", required=True, help="The node that shall lead it: a voter that is up.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def switchover(nodes: Sequence[str], group: int, to: str, as_json: bool) -> None:
    """Let another node lead a shard group; writers see a pause and no error.

    The primary takes no more appends, lets those that it has be acknowledged, waits until the other node holds them
    all, and steps down. Any node may be asked; `headwater status` shows who leads what.

    Example: headwater switchover --group 0 --to node-2
    """
    run(_switchover(nodes, group, to, as_json=as_json))


@click.command()
@click.argument("name", metavar="NODE")
@node_option
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(0, min_open=True),
    default=DRAIN_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait; the node goes on draining afterwards.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def drain(name: str, nodes: Sequence[str], seconds: float, as_json: bool) -> None:
    """Move every group off a node and keep it from leading again; wait until it leads nothing.

    It goes on following and voting, so stop it only once the others are up. Any node may be asked, also while the
    drained one is stopped. `headwater undrain NODE` ends it.

    Example: headwater drain node-2 && systemctl stop headwater
    """
    run(_drain(nodes, name, seconds, as_json=as_json))


@click.command()
@click.argument("name", metavar="NODE")
@node_option
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def undrain(name: str, nodes: Sequence[str], as_json: bool) -> None:
    """Let a drained node lead again. It gets groups back by `headwater switchover`, or when others fail.

    Example: headwater undrain node-2
    """
    run(_undrain(nodes, name, as_json=as_json))


async def _switchover(nodes: Sequence[str], group: int, to: str, *, as_json: bool) -> int:
    async with Operator(nodes) as operator:
        before = (await operator.ask()).map
        if group >= len(before.placements):
            raise InvalidRequest(f"group is {group}; this cluster has the groups 0 to {len(before.placements) - 1}")
        began = time.monotonic()
        after = (await operator.switch_over(group, to)).placements[group]
        seconds = time.monotonic() - began
    source = before.placements[group].primary
    moved = after != before.placements[group]
    if as_json:
        outcome = {"group": group, "from": source, "to": to, "epoch": after.epoch, "moved": moved}
        click.echo(orjson.dumps({**outcome, "seconds": round(seconds, 3)}))
    elif moved:
        click.echo(plain(f"group {group}: {source or 'nobody'} → {to} in epoch {after.epoch}, {seconds:.2f} s"))
    else:
        click.echo(plain(f"group {group}: {to} leads it already, in epoch {after.epoch}"))
    return 0


async def _drain(nodes: Sequence[str], name: str, seconds: float, *, as_json: bool) -> int:
    async with Operator(nodes) as operator:
        began = time.monotonic()
        before = (await operator.ask()).map
        version = (await operator.set_draining(name, draining=True)).version
        left = before.led_by(name)
        try:
            async with asyncio.timeout(seconds):
                async for left in operator.drained(name, version):
                    if left:
                        click.echo(plain(f"{name} still leads {_groups(left)} …"), err=True)
        except TimeoutError:
            click.echo(
                plain(
                    f"headwater: {name} still leads {_groups(left)} after {seconds:g} s: no other voter follows "
                    "well enough to take over; `headwater status` shows why. It goes on draining; "
                    f"`headwater undrain {name}` calls it off"
                ),
                err=True,
            )
            return EXIT_FAILED
        after = (await operator.ask()).map
    taken = {group: after.placements[group].primary for group in before.led_by(name)}
    if as_json:
        moved = [{"group": group, "to": primary} for group, primary in taken.items()]
        waited = round(time.monotonic() - began, 3)
        click.echo(orjson.dumps({"node": name, "draining": True, "moved": moved, "seconds": waited}))
        return 0
    for group, primary in taken.items():
        click.echo(plain(f"group {group}: {name} → {primary}"))
    click.echo(plain(f"{name} leads nothing and is draining; `headwater undrain {name}` ends that"))
    return 0


async def _undrain(nodes: Sequence[str], name: str, *, as_json: bool) -> int:
    async with Operator(nodes) as operator:
        await operator.set_draining(name, draining=False)
    if as_json:
        click.echo(orjson.dumps({"node": name, "draining": False}))
    else:
        click.echo(plain(f"{name} may lead again; `headwater switchover --group G --to {name}` gives it a group"))
    return 0


def _groups(groups: tuple[int, ...]) -> str:
    return f"group{'s' if len(groups) > 1 else ''} {', '.join(map(str, groups))}"
