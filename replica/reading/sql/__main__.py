"""A worker process: runs one query after another with one engine, within limits.

    python -m replica.reading.sql ENGINE LIMITS

ENGINE is a module that has an `Engine`, LIMITS is what `SqlLimits.to_argument` makes.
"""

from __future__ import annotations

import importlib
import sys

from replica.reading.sql.priority import give_way, give_way_to_all


def main() -> None:
    """Give way before anything else: loading an engine takes a processor for a good part of a second.

    Only queries give way to all: a process that never came to be ready on a busy machine would answer none.
    """
    give_way()
    from replica.reading.sql.answering import serve  # noqa: PLC0415
    from replica.reading.sql.limits import SqlLimits  # noqa: PLC0415

    engine = importlib.import_module(sys.argv[1]).Engine(SqlLimits.from_argument(sys.argv[2]))
    give_way_to_all()
    serve(engine)


if __name__ == "__main__":
    main()
