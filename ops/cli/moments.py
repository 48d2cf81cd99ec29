"""Moments as people write them on a command line."""

from __future__ import annotations

from datetime import datetime

import click


class Moment(click.ParamType[int]):
    """A day or a moment in ISO 8601, as milliseconds since 1970; 0 stands for none."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read one; without an offset it is in this machine's time zone."""
        if isinstance(value, int):
            return value
        try:
            return max(0, int(datetime.fromisoformat(str(value)).timestamp() * 1000))
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no moment; write 2026-11-24 or 2026-11-24T15:30:00+01:00", param, ctx)


MOMENT = Moment()
