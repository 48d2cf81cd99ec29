"""Errors across gRPC."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from agent_core.errors import HeadwaterError, OutcomeUnknown, QueryRefused, Unavailable
from agent_core.rpc_errors import ERROR_CODE_KEY, MAX_MESSAGE_CHARACTERS, abort, from_rpc_error


class Aborted(Exception):
    """What the fake context raises instead of ending a call."""


class FakeContext:
    """Takes what `abort` says."""

    async def abort(self, status: grpc.StatusCode, details: str, trailing: tuple[tuple[str, str], ...]) -> None:
        self.status, self.details, self.trailing = status, details, trailing
        raise Aborted


def rpc_error(status: grpc.StatusCode, details: str, *trailing: tuple[str, str | bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)


async def test_an_error_comes_back_as_what_it_was() -> None:
    context = FakeContext()
    with pytest.raises(Aborted):
        await abort(context, QueryRefused("refused DELETE"))  # type: ignore[arg-type]  # stands for a real context
    error = from_rpc_error(rpc_error(context.status, context.details, *context.trailing))
    assert type(error) is QueryRefused
    assert str(error) == "refused DELETE"


async def test_a_long_message_is_cut_to_what_trailers_may_hold() -> None:
    context = FakeContext()
    with pytest.raises(Aborted):
        await abort(context, QueryRefused("x" * 100_000))  # type: ignore[arg-type]  # stands for a real context
    assert len(context.details) == MAX_MESSAGE_CHARACTERS


async def test_an_error_without_words_is_told_by_its_code() -> None:
    context = FakeContext()
    with pytest.raises(Aborted):
        await abort(context, Unavailable())  # type: ignore[arg-type]  # stands for a real context
    assert context.details == "unavailable"


def test_a_failure_of_the_transport_leaves_the_outcome_unknown() -> None:
    lost = rpc_error(grpc.StatusCode.UNAVAILABLE, "connection reset")
    assert type(from_rpc_error(lost)) is OutcomeUnknown
    assert str(from_rpc_error(lost, unanswered=Unavailable)) == "no answer (UNAVAILABLE): connection reset"
    assert type(from_rpc_error(lost, unanswered=Unavailable)) is Unavailable


@pytest.mark.parametrize(
    ("peer", "named"), [("ipv4:127.0.0.1:7101", "127.0.0.1:7101"), ("ipv6:%5B::1%5D:7101", "[::1]:7101")]
)
def test_a_port_at_which_nobody_listens_is_told_without_grpc_s_words(peer: str, named: str) -> None:
    refused = rpc_error(
        grpc.StatusCode.UNAVAILABLE,
        f"failed to connect to all addresses; last error: UNKNOWN: {peer}: Failed to connect to remote host: "
        "Connection refused",
    )
    assert str(from_rpc_error(refused, unanswered=Unavailable)) == f"{named} refuses connections"


def test_other_errors_of_grpc_keep_their_words() -> None:
    error = from_rpc_error(rpc_error(grpc.StatusCode.UNIMPLEMENTED, "no such method"))
    assert type(error) is HeadwaterError
    assert str(error) == "UNIMPLEMENTED: no such method"


def test_a_code_from_a_newer_node_keeps_its_text() -> None:
    error = from_rpc_error(rpc_error(grpc.StatusCode.INTERNAL, "words", (ERROR_CODE_KEY, b"brand_new")))
    assert str(error) == "brand_new: words"
