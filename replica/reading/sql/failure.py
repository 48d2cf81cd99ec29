"""How a query ends that has no result, in the words that its caller reads."""

from __future__ import annotations

from replica.reading.sql.limits import SqlLimits


class QueryFailure(Exception):
    """A query that ends without a result; `code` is the error's name in `agent_core.errors`.

    `exiting` says that the worker process is not to be trusted with another query.
    """

    def __init__(self, code: str, message: str, *, exiting: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.exiting = exiting


def out_of_time(seconds: float) -> str:
    """What a caller is told whose query took too long."""
    return f"the query ran longer than its limit of {seconds:g} s"


def out_of_memory(limits: SqlLimits) -> str:
    """What a caller is told whose query took too much memory."""
    return f"the query needs more memory than its limit of {limits.memory_bytes >> 20} MiB"
