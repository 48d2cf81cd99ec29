"""A worker process: runs one query after another with one engine, within limits.

    python -m replica.reading.sql ENGINE LIMITS

ENGINE is a module that has an `Engine`, LIMITS is what `SqlLimits.to_argument` makes.
"""

from __future__ import annotations

import importlib
import sys

from replica.reading.sql.priority import give_way


def main() -> None:
    """Give way before anything else: loading an engine takes a processor for a good part of a second."""
    give_way()
    from replica.reading.sql.answering import serve  # noqa: PLC0415
    from replica.reading.sql.limits import SqlLimits  # noqa: PLC0415

    serve(importlib.import_module(sys.argv[1]).Engine(SqlLimits.from_argument(sys.argv[2])))


if __name__ == "__main__":
    main()
