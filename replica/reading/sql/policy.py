"""Which actions of a statement are plain reads: SQLite asks for each while it compiles a statement.

Everything is refused that is not named here.
"""

from __future__ import annotations

import sqlite3

_SCALAR_FUNCTIONS = """
-> ->> abs changes char coalesce concat concat_ws format glob hex if ifnull iif instr length like likelihood
likely lower ltrim match max min nullif octet_length printf quote random randomblob replace round rtrim sign
soundex sqlite_source_id sqlite_version substr substring subtype trim typeof unhex unicode unistr unistr_quote
unlikely upper zeroblob
acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow
power radians sin sinh sqrt tan tanh trunc
current_date current_time current_timestamp date datetime julianday strftime time timediff unixepoch
json json_array json_array_length json_error_position json_extract json_insert json_object json_patch
json_pretty json_quote json_remove json_replace json_set json_type json_valid jsonb jsonb_array
jsonb_extract jsonb_insert jsonb_object jsonb_patch jsonb_remove jsonb_replace jsonb_set
"""

_AGGREGATE_AND_WINDOW_FUNCTIONS = """
avg count group_concat json_group_array json_group_object jsonb_group_array jsonb_group_object max median
min percentile percentile_cont percentile_disc string_agg sum total
cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
"""

_FULL_TEXT_FUNCTIONS = "bm25 highlight snippet"

FUNCTIONS = frozenset(f"{_SCALAR_FUNCTIONS} {_AGGREGATE_AND_WINDOW_FUNCTIONS} {_FULL_TEXT_FUNCTIONS}".split())

DESCRIBING_PRAGMAS = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
)
"""Take the name of a table or an index, and may be read as tables (`pragma_table_info('sessions')`)."""

PLAIN_PRAGMAS = frozenset(
    {
        "compile_options",
        "data_version",
        "encoding",
        "freelist_count",
        "function_list",
        "page_count",
        "page_size",
        "user_version",
    }
)
"""Allowed without a value only: with one, some of them write."""

TABLE_FUNCTIONS = ("json_each", "json_tree", *(f"pragma_{name}" for name in sorted(DESCRIBING_PRAGMAS)))
"""Table-valued functions that may be read; other virtual tables of the library may not."""

_FULL_TEXT_TABLE = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = 'documents_text'"

_ACTIONS = (
    *("ALTER_TABLE", "ANALYZE", "ATTACH", "DELETE", "DETACH", "FUNCTION", "INSERT", "PRAGMA", "READ", "REINDEX"),
    *("SAVEPOINT", "TRANSACTION", "UPDATE"),
    *("CREATE_INDEX", "CREATE_TABLE", "CREATE_TRIGGER", "CREATE_VIEW", "CREATE_VTABLE"),
    *("CREATE_TEMP_INDEX", "CREATE_TEMP_TABLE", "CREATE_TEMP_TRIGGER", "CREATE_TEMP_VIEW"),
    *("DROP_INDEX", "DROP_TABLE", "DROP_TRIGGER", "DROP_VIEW", "DROP_VTABLE"),
    *("DROP_TEMP_INDEX", "DROP_TEMP_TABLE", "DROP_TEMP_TRIGGER", "DROP_TEMP_VIEW"),
)
_ACTION_WORDS = {getattr(sqlite3, f"SQLITE_{name}"): name.replace("_", " ") for name in _ACTIONS}


class ReadOnlyPolicy:
    """An authorizer for one connection; install it once `TABLE_FUNCTIONS` were used there.

    SQLite declares a virtual table's columns on its first use through an action that this policy refuses, so
    only what was used before can be used after.

    Attributes:
        refused: The first action that was refused, in words.
    """

    def __init__(self, modules: frozenset[str]) -> None:
        self._blocked_tables = modules - frozenset(TABLE_FUNCTIONS)
        self.refused: str | None = None

    @classmethod
    def install(cls, connection: sqlite3.Connection) -> ReadOnlyPolicy:
        """Let a connection do nothing but plain reads from now on."""
        for table in TABLE_FUNCTIONS:
            connection.execute(f"SELECT 1 FROM {table}('[]') LIMIT 0")  # noqa: S608 - our own constants
        for (table,) in connection.execute(_FULL_TEXT_TABLE).fetchall():
            connection.execute(f"SELECT 1 FROM {table} LIMIT 0")  # noqa: S608 - likewise
        modules = frozenset(row[0].lower() for row in connection.execute("PRAGMA module_list"))
        policy = cls(modules)
        connection.set_authorizer(policy)
        return policy

    def __call__(
        self, action: int, first: str | None, second: str | None, _schema: str | None, _trigger: str | None
    ) -> int:
        """SQLite's question: may the statement do this?"""
        if self._allows(action, first or "", second):
            return sqlite3.SQLITE_OK
        if self.refused is None:
            words = (_ACTION_WORDS.get(action, f"action {action}"), first, second)
            self.refused = " ".join(word for word in words if word)[:200]
        return sqlite3.SQLITE_DENY

    def _allows(self, action: int, first: str, second: str | None) -> bool:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return True
        if action == sqlite3.SQLITE_READ:
            return first.lower() not in self._blocked_tables
        if action == sqlite3.SQLITE_FUNCTION:
            return (second or "").lower() in FUNCTIONS
        if action == sqlite3.SQLITE_PRAGMA:
            name = first.lower()
            return name in DESCRIBING_PRAGMAS or (name in PLAIN_PRAGMAS and second is None)
        return False
