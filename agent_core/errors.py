"""Every error that crosses a boundary of the project, with the code that stands for it on the wire.

    HeadwaterError
    ├── InvalidRequest          a field is wrong; the message names it and its limit
    ├── SessionNotFound
    ├── DocumentNotFound
    ├── NotPrimary              another node leads the session's group; `primary` names it
    ├── Unavailable             not now: starting, stopping, no quorum yet; nothing was written
    ├── Overloaded              a bounded queue is full; nothing was written
    ├── WriteFailed             the shard refused the transaction; nothing was written
    ├── OutcomeUnknown          written here, not known to be safe; the same idempotency key may be retried
    ├── PositionNotReached      min_position was not applied within the wait
    ├── PositionLost            the position lies in a history that a fail-over has undone
    ├── TooStale                the node's state stayed older than max_staleness allows
    ├── PositionCompacted       the log no longer holds the records after the asked position
    ├── QueryRefused            SQL that is not a plain read
    ├── QueryLimit              SQL that ran out of its time, memory or size
    ├── HandedOver              the primary drained and stepped down of its own accord
    ├── Fenced                  a higher epoch was promised; the sender was deposed
    ├── WrongCluster            another cluster's node or data
    ├── WorkspaceTaken          another source keeps the workspace; nothing was changed
    ├── ChangeRefused           the cluster's map does not allow the change; nothing was changed
    ├── LogDamaged              a log or record that does not hold what it says
    └── ShardDamaged            a shard file or its WAL that does not hold what it says

The table from code to class is built from the subclasses: a new error needs nothing else to be known to
both sides of the wire.
"""

from __future__ import annotations

from typing import ClassVar

import grpc


class HeadwaterError(Exception):
    """The root. `code` is the error's name on the wire; `retry` tells whether the same call may be repeated."""

    code: ClassVar[str] = "internal"
    retry: ClassVar[bool] = False
    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    http_status: ClassVar[int] = 500


class InvalidRequest(HeadwaterError):
    """A field of the request is wrong."""

    code = "invalid_request"
    status = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 400


class SessionNotFound(HeadwaterError):
    """No session of this id."""

    code = "session_not_found"
    status = grpc.StatusCode.NOT_FOUND
    http_status = 404


class DocumentNotFound(HeadwaterError):
    """No document at this path of the workspace."""

    code = "document_not_found"
    status = grpc.StatusCode.NOT_FOUND
    http_status = 404


class NotPrimary(HeadwaterError):
    """Another node leads the group."""

    code = "not_primary"
    retry = True
    status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 421


class Unavailable(HeadwaterError):
    """The node cannot serve this now; nothing was written."""

    code = "unavailable"
    retry = True
    status = grpc.StatusCode.UNAVAILABLE
    http_status = 503


class Overloaded(HeadwaterError):
    """A bounded queue is full; nothing was written."""

    code = "overloaded"
    retry = True
    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 429


class WriteFailed(HeadwaterError):
    """The transaction failed; nothing was written."""

    code = "write_failed"
    status = grpc.StatusCode.INTERNAL


class OutcomeUnknown(HeadwaterError):
    """The write is in the primary's log, but was not acknowledged in time; it may or may not survive.

    Repeating it with the same idempotency key is safe.
    """

    code = "outcome_unknown"
    retry = True
    status = grpc.StatusCode.UNKNOWN
    http_status = 504


class PositionNotReached(HeadwaterError):
    """The standby did not reach the asked position in time."""

    code = "position_not_reached"
    retry = True
    status = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = 503


class PositionLost(HeadwaterError):
    """The asked position lies in a history that another primary's has replaced: it can never be reached."""

    code = "position_lost"
    status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409


class TooStale(HeadwaterError):
    """The node is further behind its primary than the reader allows."""

    code = "too_stale"
    retry = True
    status = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = 503


class PositionCompacted(HeadwaterError):
    """The log has dropped records that a reader still asks for; the reader needs a resync."""

    code = "position_compacted"
    status = grpc.StatusCode.OUT_OF_RANGE
    http_status = 410


class QueryRefused(HeadwaterError):
    """SQL that is wrong, or that does anything but read the shard."""

    code = "query_refused"
    status = grpc.StatusCode.PERMISSION_DENIED
    http_status = 400


class QueryLimit(HeadwaterError):
    """SQL that ran out of its time, memory or size."""

    code = "query_limit"
    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 400


class Fenced(HeadwaterError):
    """A higher epoch was promised."""

    code = "fenced"
    status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409

    def __init__(self, message: str = "", *, held: int = 0, seen: int = 0) -> None:
        super().__init__(message or f"epoch {held} is promised; refused epoch {seen}")
        self.held = held
        self.seen = seen


class HandedOver(HeadwaterError):
    """The primary has drained and gave up its lease: voters may seal another at once."""

    code = "handed_over"
    retry = True
    status = grpc.StatusCode.UNAVAILABLE
    http_status = 503


class WrongCluster(HeadwaterError):
    """Another cluster's node or data, or another number of shards."""

    code = "wrong_cluster"
    status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409


class WorkspaceTaken(HeadwaterError):
    """Another source keeps the workspace; nothing was changed."""

    code = "workspace_taken"
    status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409


class ChangeRefused(HeadwaterError):
    """The cluster's map does not allow the change; nothing was changed."""

    code = "change_refused"
    status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409


class LogDamaged(HeadwaterError):
    """A replication log or record whose content contradicts its checksum or its place."""

    code = "log_damaged"
    status = grpc.StatusCode.DATA_LOSS


class ShardDamaged(HeadwaterError):
    """A shard file or its WAL whose content contradicts its checksum or its place."""

    code = "shard_damaged"
    status = grpc.StatusCode.DATA_LOSS


ERRORS_BY_CODE: dict[str, type[HeadwaterError]] = {
    HeadwaterError.code: HeadwaterError,
    **{error.code: error for error in HeadwaterError.__subclasses__()},
}


def from_code(code: str, message: str) -> HeadwaterError:
    """The error that a wire code stands for; an unknown code becomes the root error and keeps its text."""
    error = ERRORS_BY_CODE.get(code)
    return error(message) if error is not None else HeadwaterError(f"{code}: {message}")
