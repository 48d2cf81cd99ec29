"""The cluster's picture as HTML. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from markupsafe import Markup

from ops.dashboard.cluster.picture import Group, Member, Node, Picture
from ops.dashboard.cluster.watch import SeenChange
from ops.dashboard.freshness import duration
from ops.dashboard.node_client.choice import STALE_SECONDS
from ops.dashboard.transcript.rendering import clock

SHOWN_CHANGES = 50
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def facts(picture: Picture) -> Markup:
    """The cluster's name and sizes."""
    said = (
        ("Cluster", picture.cluster_id),
        ("Nodes", str(len(picture.nodes))),
        ("Shards", f"{picture.shard_count} in {_count(len(picture.groups), 'group')}"),
        ("Raft leader", picture.raft_leader or "none"),
        ("Version", picture.version),
    )
    rows = Markup("").join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*fact) for fact in said)
    return Markup('<dl class="facts">{}</dl>').format(rows)


def groups(picture: Picture, failures: Mapping[str, str]) -> Markup:
    """A row for each node's part in each group; `failures` says why nodes do not answer now."""
    rows = Markup("").join(
        _member(group, member, first=number == 0, failures=failures)
        for group in picture.groups
        for number, member in enumerate(group.members)
    )
    return Markup(
        '<div class="scrolled"><table class="table stacked"><thead><tr><th>Group</th><th class="number">Epoch</th>'
        '<th>Node</th><th>Role</th><th class="number">Durable LSN</th><th class="number">Applied LSN</th>'
        '<th class="number">Lag</th><th>State</th></tr></thead><tbody>{}</tbody></table></div>'
    ).format(rows)


def nodes(picture: Picture, failures: Mapping[str, str]) -> Markup:
    """A row for each node."""
    rows = Markup("").join(_node(node, failures) for node in picture.nodes)
    return Markup(
        '<div class="scrolled"><table class="table stacked"><thead><tr><th>Node</th><th>State</th><th>Leads</th>'
        '<th>Takes part as</th><th>HTTP</th><th>gRPC</th><th class="number">Shard files</th></tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(rows)


def changes(seen: Iterable[SeenChange]) -> Markup:
    """What happened, the newest first."""
    shown = list(seen)[:SHOWN_CHANGES]
    if not shown:
        return Markup(
            '<p class="muted">Nothing since the dashboard began to watch. Fail-overs, switch-overs, and nodes that '
            "go or come back are noted here.</p>"
        )
    rows = Markup("").join(
        Markup('<li class="change change-{}">{}<span>{}</span></li>').format(
            change.level, clock(round(1000 * at)), change.sentence
        )
        for at, change in shown
    )
    return Markup('<ol class="changes">{}</ol>').format(rows)


def size(count: int | None) -> str:
    """Bytes in the unit that fits."""
    if count is None:
        return "–"
    shown = float(count)
    for unit in UNITS:
        if shown < 1024 or unit == UNITS[-1]:
            return f"{shown:.0f} {unit}" if unit == "B" or shown >= 10 else f"{shown:.1f} {unit}"
        shown /= 1024
    raise AssertionError("the last unit takes everything")


def _member(group: Group, member: Member, *, first: bool, failures: Mapping[str, str]) -> Markup:
    level, state = _state(group, member, failures)
    lag = "" if member.role == "primary" else "–"
    if member.lag_seconds is not None:
        lag = duration(member.lag_seconds)
        if member.lag_transactions:
            lag += f" · {_count(member.lag_transactions, 'transaction')}"
    durable = member.durable_lsn
    if durable is None and member.role == "primary":
        # Nobody asks it; at least what is committed it holds.
        durable_text = f"≥ {group.committed_lsn:,}"
    else:
        durable_text = "–" if durable is None else f"{durable:,}"
    return Markup(
        '<tr{}><td class="above" data-label="Group">{}</td><td class="number above" data-label="Epoch">{}</td>'
        '<td><b>{}</b></td><td><span class="chip chip-{}">{}</span></td>'
        '<td class="number below" data-label="Durable LSN">{}</td>'
        '<td class="number below" data-label="Applied LSN">{}</td>'
        '<td class="number below" data-label="Lag">{}</td>'
        '<td><span class="status status-{}">{}</span></td></tr>'
    ).format(
        Markup(' class="first"') if first else "",
        group.group if first else "",
        group.epoch if first else "",
        member.node_id,
        member.role,
        member.role,
        durable_text,
        "–" if member.applied_lsn is None else f"{member.applied_lsn:,}",
        lag,
        level,
        state,
    )


def _state(group: Group, member: Member, failures: Mapping[str, str]) -> tuple[str, str]:
    if member.failure is not None:
        return "bad", member.failure
    if member.node_id in failures:
        return "bad", "does not answer"
    return _leading(group) if member.role == "primary" else _following(member)


def _leading(group: Group) -> tuple[str, str]:
    heard = [member.connected for member in group.members if member.connected is not None]
    if heard and not any(heard):
        return "bad", "no standby hears it"
    return "good", f"leads, heard by {sum(heard)}" if heard else "leads"


def _following(member: Member) -> tuple[str, str]:
    if member.connected is None:
        return "neutral", "not asked"
    if member.connected is False:
        return "bad", "has no stream from the primary"
    if member.lag_seconds is not None and member.lag_seconds > STALE_SECONDS:
        return "warning", "behind"
    return "good", "follows"


def _node(node: Node, failures: Mapping[str, str]) -> Markup:
    if node.node_id in failures:
        level, state = "bad", f"does not answer: {failures[node.node_id]}"
    elif node.problems:
        level, state = "warning", f"not ready: {'; '.join(node.problems)}"
    elif node.answers is None:
        level, state = "neutral", "leads, so it is not asked"
    else:
        level, state = "good", "ready"
    parts = ["voter" if node.voter else "reader"]
    if node.raft_member:
        parts.append("Raft member")
    if node.draining:
        parts.append("draining")
    leads = ", ".join(map(str, node.leads))
    return Markup(
        '<tr><td><b>{}</b></td><td><span class="status status-{}">{}</span></td>'
        '<td class="below" data-label="Leads">{}</td><td class="below" data-label="Takes part as">{}</td>'
        '<td class="mono below" data-label="HTTP">{}</td><td class="mono below" data-label="gRPC">{}</td>'
        '<td class="number below" data-label="Shard files">{}</td></tr>'
    ).format(
        node.node_id,
        level,
        state,
        f"group {leads}" if len(node.leads) == 1 else f"groups {leads}" if leads else "–",
        ", ".join(parts),
        node.http_address,
        node.grpc_address,
        size(node.database_bytes),
    )


def _count(number: int, thing: str) -> str:
    return f"1 {thing}" if number == 1 else f"{number:,} {thing}s"
