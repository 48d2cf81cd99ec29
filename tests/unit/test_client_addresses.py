"""Which node a client turns to, what it takes from nodes about others, and what it says of those that failed."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from agent_core.client.addresses import MAX_MET, MAX_TOLD, Addresses, Told, check_address, primary_address
from agent_core.client.attempts import MAX_NAMED, Failures
from agent_core.client.discovery import what_is_told
from agent_core.errors import NotPrimary, OutcomeUnknown, Unavailable
from agent_core.rpc.cluster_pb2 import ClusterNode, GetClusterResponse


@pytest.mark.parametrize("address", ["127.0.0.1:7101", "node-a.example:1", "[::1]:65535", "localhost:7101"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize("address", ["", "127.0.0.1", "host:0", "host:65536", "http://host:1", "a b:1", "host:1\n"])
def test_anything_else_is_refused_by_name(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        check_address(address)


def test_a_client_needs_an_address() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        Addresses([])


def test_a_failure_turns_to_the_next_address_and_around() -> None:
    addresses = Addresses(["a:1", "b:2"])
    addresses.failed("a:1")
    assert addresses.current == "b:2"
    addresses.failed("b:2")
    assert addresses.current == "a:1"


def test_a_late_failure_of_an_address_that_was_left_changes_nothing() -> None:
    addresses = Addresses(["a:1", "b:2"])
    addresses.failed("a:1")
    addresses.failed("a:1")
    assert addresses.current == "b:2"


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
    addresses = Addresses("a:1")
    addresses.redirected("a:1", NotPrimary("group 0 is led by node-b at b:2"))
    assert addresses.current == "b:2"
    addresses.failed("b:2")
    assert addresses.current == "a:1"


def test_a_refusal_without_an_address_turns_to_the_next_one() -> None:
    addresses = Addresses(["a:1", "b:2"])
    addresses.redirected("a:1", NotPrimary("no primary is known"))
    assert addresses.current == "b:2"


def test_an_address_that_was_named_and_leads_nowhere_does_not_keep_the_others_from_their_turn() -> None:
    addresses = Addresses(["a:1", "b:2", "c:3"])
    tried = []
    for _ in range(4):
        tried.append(addresses.current)
        addresses.redirected(addresses.current, NotPrimary("group 0 is led by node-b at b:2"))
        addresses.failed("b:2")
    assert tried == ["a:1", "c:3", "a:1", "c:3"]


def told(*others: str, cluster: str = "c", by: str = "node-a") -> Told:
    """What a node says of a cluster whose node `node-b` is reached at `b:2`, and so on."""
    return Told(cluster, by, {f"node-{address[0]}": address for address in others})


def knowing(*given: str) -> Addresses:
    """Of a client that was given these, and has learnt of a:1, b:2 and c:3, of which all answer."""
    addresses = Addresses(given)
    addresses.learn(given[0], told("a:1", "b:2", "c:3"))
    for address in addresses.unproven:
        addresses.prove(address, told())
    return addresses


def turns(addresses: Addresses, count: int) -> list[str]:
    """The next addresses, while none serves."""
    found = []
    for _ in range(count):
        addresses.failed(addresses.current)
        found.append(addresses.current)
    return found


def test_nodes_that_were_told_come_behind_those_that_were_given() -> None:
    assert turns(knowing("a:1"), 4) == ["b:2", "c:3", "a:1", "b:2"]
    assert turns(knowing("a:1", "c:3"), 4) == ["c:3", "b:2", "a:1", "c:3"]


def test_a_node_that_was_told_is_turned_to_once_it_has_answered() -> None:
    addresses = Addresses("a:1")
    addresses.learn("a:1", told("a:1", "b:2", "c:3"))
    assert turns(addresses, 3) == ["a:1", "a:1", "a:1"]
    addresses.prove("c:3", told(by="node-c"))
    assert addresses.unproven == ("b:2",)
    assert turns(addresses, 3) == ["c:3", "a:1", "c:3"]


def test_a_told_node_that_cannot_be_reached_waits_until_it_has_answered_again() -> None:
    addresses = knowing("a:1")
    addresses.unreachable("b:2")
    assert addresses.unproven == ("b:2",)
    assert turns(addresses, 3) == ["c:3", "a:1", "c:3"]
    addresses.prove("b:2", told(by="node-b"))
    assert turns(addresses, 3) == ["a:1", "b:2", "c:3"]


def test_a_given_node_that_cannot_be_reached_keeps_its_turn() -> None:
    addresses = knowing("a:1")
    addresses.unreachable("a:1")
    assert turns(addresses, 3) == ["b:2", "c:3", "a:1"]


def test_each_told_node_gets_its_turn_although_one_of_them_fails_and_answers_in_turns() -> None:
    addresses = knowing("a:1")
    tried = []
    for _ in range(6):
        tried += turns(addresses, 1)
        addresses.unreachable("b:2")
        addresses.prove("b:2", told(by="node-b"))
    assert tried == ["b:2", "c:3", "a:1", "b:2", "c:3", "a:1"]


def test_a_node_given_by_another_spelling_of_its_address_is_one_node() -> None:
    assert turns(knowing("localhost:1"), 3) == ["b:2", "c:3", "localhost:1"]


def test_what_a_node_tells_later_replaces_what_was_told_and_keeps_what_answered() -> None:
    addresses = knowing("a:1")
    addresses.learn("b:2", told("a:1", "b:2", "d:4", by="node-b"))
    assert addresses.unproven == ("d:4",)
    assert turns(addresses, 2) == ["b:2", "a:1"]


def test_a_node_of_another_cluster_is_never_turned_to() -> None:
    addresses = Addresses("a:1")
    addresses.learn("a:1", told("b:2", "c:3"))
    addresses.prove("b:2", told(by="node-b", cluster="another"))
    addresses.learn("c:3", told("d:4", by="node-c", cluster="another"))
    addresses.prove("d:4", told(by="node-d"))
    assert addresses.unproven == ()
    assert turns(addresses, 2) == ["a:1", "a:1"]


def test_a_given_node_that_is_of_another_cluster_now_puts_away_what_was_told_of_the_one_before() -> None:
    addresses = knowing("a:1")
    addresses.learn("a:1", told("d:4", cluster="another"))
    assert addresses.unproven == ("d:4",)
    assert turns(addresses, 2) == ["a:1", "a:1"]


def test_the_addresses_that_a_client_takes_from_nodes_are_bounded() -> None:
    addresses = Addresses("a:1")
    for start in range(0, 10 * MAX_TOLD, MAX_TOLD):
        more = {f"node-{number}": f"host-{number}:1" for number in range(start, start + 100)}
        addresses.learn("a:1", Told("c", "node-a", more))
        assert len(addresses.unproven) == (MAX_TOLD if start < MAX_MET else 0)
    assert not addresses.redirected("a:1", NotPrimary("group 0 is led by node-z at z:1"))


NODES = (("node-1", "127.0.0.1:7101"), ("node-2", "[::1]:7102"), ("reader-1", "host-3:7103"))


def answer(cluster_id: str = "c", node_id: str = "node-1", nodes: Iterable[tuple[str, str]] = NODES) -> Told | None:
    """What is taken from a node that answers so."""
    listed = [ClusterNode(node_id=name, grpc_address=address) for name, address in nodes]
    return what_is_told(GetClusterResponse(cluster_id=cluster_id, node_id=node_id, nodes=listed))


def test_voters_and_readers_are_taken_as_a_node_tells_them() -> None:
    assert answer() == Told("c", "node-1", dict(NODES))


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:0", "host:65536", "0.0.0.0:7101", "[::]:7101", "h" * 254 + ":1", "unix:/tmp/s", "a b:1"],
)
def test_an_address_that_no_node_could_have_is_left_out(address: str) -> None:
    assert answer(nodes=[*NODES, ("node-4", address)]) == Told("c", "node-1", dict(NODES))


@pytest.mark.parametrize("name", ["", "a b", "\x1b[2J", "n" * 64])
def test_a_name_that_nothing_could_have_tells_nothing(name: str) -> None:
    assert answer(cluster_id=name) is None
    assert answer(node_id=name) is None
    assert answer(nodes=[(name, "host-4:1")]) == Told("c", "node-1", {})


def test_an_endless_list_of_nodes_is_cut() -> None:
    taken = answer(nodes=[(f"node-{number}", f"host-{number}:1") for number in range(10_000)])
    assert taken is not None
    assert len(taken.addresses) == MAX_TOLD


def test_several_nodes_that_failed_are_named_with_their_reasons() -> None:
    failures, last = Failures(), Unavailable("b:2 does not answer")
    assert str(failures) == ""
    failures.note("a:1", Unavailable("no answer"))
    failures.note("a:1", Unavailable("a:1 refuses connections"))
    failures.note("b:2", last)
    assert str(failures.told(last)) == "a:1 refuses connections; b:2 does not answer"
    failures.note("a:1", NotPrimary("group 0 is led by node-b at b:2"))
    assert str(failures) == "b:2 does not answer; a:1: group 0 is led by node-b at b:2"


def test_a_node_that_failed_alone_is_told_as_it_was() -> None:
    failures, error = Failures(), Unavailable("no answer")
    failures.note("a:1", error)
    assert failures.told(error) is error


def test_an_unknown_outcome_stays_the_first_that_is_said() -> None:
    failures = Failures()
    for address in ("a:1", "b:2"):
        failures.note(address, Unavailable(f"{address} refuses connections"))
    ended = failures.told(OutcomeUnknown("no answer came"))
    assert isinstance(ended, OutcomeUnknown)
    assert str(ended) == "no answer came (a:1 refuses connections; b:2 refuses connections)"


def test_of_many_nodes_that_failed_the_latest_are_named() -> None:
    failures = Failures()
    for number in range(100):
        failures.note(f"host-{number}:1", Unavailable(f"host-{number}:1 refuses connections"))
    assert str(failures).count("refuses") == MAX_NAMED
    assert str(failures).endswith("host-99:1 refuses connections")
