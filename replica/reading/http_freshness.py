"""How fresh an answer must be and how fresh it is, over HTTP: parameters in, a header and a body's fields out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import Depends, Query, Response

from agent_core.errors import InvalidRequest
from agent_core.position import START, Position
from replica.reading.freshness import Demand
from replica.reading.http_models import MaxStaleness, Wait
from replica.reading.positions import GroupPosition

POSITION_HEADER = "Headwater-Position"
"""`group=epoch:lsn`, several with commas between them; can be passed back as `min_position`."""
AGE_HEADER = "Headwater-Age-Seconds"
"""The age of the oldest group that was read."""
MAX_MIN_POSITION_CHARACTERS = 8192


class DemandParameters:
    """The parameters that every route takes which reads shards."""

    def __init__(
        self,
        min_position: Annotated[
            str,
            Query(
                description="Wait until this is applied: `epoch:lsn`, or the Headwater-Position of another answer.",
                examples=["3:1204"],
                max_length=MAX_MIN_POSITION_CHARACTERS,
            ),
        ] = "",
        max_staleness_ms: MaxStaleness | None = None,
        wait_ms: Wait | None = None,
    ) -> None:
        self.min_position = min_position
        self.max_staleness_ms = max_staleness_ms
        self.wait_ms = wait_ms

    def of(self, groups: Sequence[int]) -> Demand:
        """What they demand of a read of these groups.

        Raises:
            InvalidRequest: A position is not one, or a number is out of range.
        """
        return demand(self.min_position, self.max_staleness_ms, self.wait_ms, groups)


Demanded = Annotated[DemandParameters, Depends()]


def demand(
    min_position: str | None, max_staleness_ms: int | None, wait_ms: int | None, groups: Sequence[int]
) -> Demand:
    """A demand on a read of these groups, from what came over HTTP.

    Raises:
        InvalidRequest: A position is not one, or a number is out of range.
    """
    return Demand(
        min_positions=parse_min_positions(min_position or "", groups),
        max_staleness_seconds=seconds(max_staleness_ms),
        wait_seconds=seconds(wait_ms),
    )


def parse_min_positions(text: str, groups: Sequence[int]) -> dict[int, Position]:
    """Read `epoch:lsn` or `group=epoch:lsn, …` for a read that touches `groups`; other groups are left out.

    Raises:
        InvalidRequest: It is neither, or the group is missing where several are read.
    """
    positions: dict[int, Position] = {}
    for part in filter(None, (part.strip() for part in text[:MAX_MIN_POSITION_CHARACTERS].split(","))):
        named, equals, position = part.rpartition("=")
        if not equals and len(groups) > 1:
            raise InvalidRequest(f"min_position {part!r} names no group, and {len(groups)} groups are read")
        try:
            group = int(named) if equals else groups[0]
            parsed = Position.parse(position)
        except ValueError as error:
            raise InvalidRequest(
                f"min_position is written epoch:lsn or group=epoch:lsn, for example 0=3:1204; got {part[:80]!r}"
            ) from error
        if group in groups:
            positions[group] = parsed
    return positions


def parse_after_position(text: str) -> Position:
    """Read `epoch:lsn`; START for an empty text.

    Raises:
        InvalidRequest: It is neither.
    """
    try:
        return Position.parse(text) if text else START
    except ValueError as error:
        raise InvalidRequest(
            f"after_position is written epoch:lsn, for example 3:1204; got {text[:80]!r}"
        ) from error


def seconds(milliseconds: int | None) -> float | None:
    """Milliseconds as seconds."""
    return None if milliseconds is None else milliseconds / 1000


def position_fields(position: GroupPosition) -> dict[str, Any]:
    """A position as JSON, with its age."""
    return {
        "group": position.group,
        "position": str(position.position),
        "age_seconds": round(position.age_seconds, 3),
    }


def json_response(body: Mapping[str, Any], positions: Sequence[GroupPosition]) -> Response:
    """An answer with its position and age, in headers too."""
    headers = {
        POSITION_HEADER: ", ".join(f"{at.group}={at.position}" for at in positions),
        AGE_HEADER: f"{max((at.age_seconds for at in positions), default=0.0):.3f}",
    }
    return Response(orjson.dumps(body), media_type="application/json", headers=headers)
