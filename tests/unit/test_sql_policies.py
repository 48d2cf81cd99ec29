"""The policies for SQL from outside, asked directly: no error of an engine stands in for their refusal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import duckdb
import pytest

from replica.reading.sql.duckdb_policy import Refused, check_statement
from replica.reading.sql.policy import ReadOnlyPolicy
from replica.reading.sql.whole_tables import WORKSPACE_TABLES, WholeTables
from tests import duckdb_attacks, sqlite_attacks

TABLES = WholeTables("workspace", WORKSPACE_TABLES).names


@pytest.fixture(scope="module")
def parser() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def serialized(parser: duckdb.DuckDBPyConnection, sql: str) -> str:
    row = parser.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("sql", duckdb_attacks.NOT_A_PLAIN_READ)
def test_what_is_not_a_plain_read_over_all_shards_is_refused(parser: duckdb.DuckDBPyConnection, sql: str) -> None:
    with pytest.raises(Refused):
        check_statement(serialized(parser, sql), TABLES)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_plain_read_of_every_table_passes_and_names_it(parser: duckdb.DuckDBPyConnection, table: str) -> None:
    assert check_statement(serialized(parser, f"SELECT count(*) FROM {table}"), TABLES) == {table}


@pytest.mark.parametrize("function", sqlite_attacks.DANGEROUS_FUNCTIONS)
def test_a_dangerous_function_of_sqlite_is_refused_where_it_exists(function: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.create_function(function, 1, lambda value: value)
    assert connection.execute(f"SELECT {function}(1)").fetchall() == [(1,)]
    policy = ReadOnlyPolicy.install(connection)
    with pytest.raises(sqlite3.DatabaseError):
        connection.execute(f"SELECT {function}(1)")
    assert policy.refused == f"FUNCTION {function}"
    connection.close()


@pytest.mark.parametrize("table", sqlite_attacks.DANGEROUS_TABLES)
def test_a_table_of_a_module_is_refused_where_it_exists(table: str) -> None:
    policy = ReadOnlyPolicy(frozenset({table, "json_each"}))
    assert policy(sqlite3.SQLITE_READ, table, "data", "main", None) == sqlite3.SQLITE_DENY
    assert policy(sqlite3.SQLITE_READ, table.upper(), "data", "main", None) == sqlite3.SQLITE_DENY
    assert policy(sqlite3.SQLITE_READ, "json_each", "value", "main", None) == sqlite3.SQLITE_OK
