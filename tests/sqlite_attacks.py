"""What SQL over one shard must refuse or stop: statements of SQLite."""

from __future__ import annotations

NOT_A_PLAIN_READ = [
    "INSERT INTO sessions (session_id, created_at, folded_updated_at) VALUES ('x', 1, 1)",
    "INSERT INTO entry_tail VALUES (2, 3) RETURNING *",
    "UPDATE sessions SET title = 'x'",
    "UPDATE sessions SET title = 'x' RETURNING title",
    "DELETE FROM entries",
    "REPLACE INTO entry_tail VALUES (1, 1)",
    "WITH x AS (SELECT 1) DELETE FROM entries",
    "DROP TABLE entries",
    "DROP VIEW transcript",
    "ALTER TABLE sessions ADD COLUMN x",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "CREATE TEMP TABLE x AS SELECT * FROM sessions",
    "CREATE TEMP VIEW x AS SELECT 1",
    "CREATE INDEX x ON sessions (title)",
    "CREATE TEMP TRIGGER x AFTER INSERT ON sessions BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE x USING fts5(a)",
    "CREATE VIRTUAL TABLE temp.x USING dbstat",
    "EXPLAIN DELETE FROM entries",
    "ATTACH '/tmp/x.db' AS x",
    "ATTACH ':memory:' AS x",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '/tmp/x.db'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "BEGIN EXCLUSIVE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT x",
    "RELEASE x",
    "PRAGMA writable_schema = ON",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA journal_mode",
    "PRAGMA query_only = OFF",
    "PRAGMA query_only",
    "PRAGMA user_version = 7",
    "PRAGMA main.user_version(7)",
    "PRAGMA page_size = 512",
    "PRAGMA encoding = 'UTF-16'",
    "PRAGMA hard_heap_limit = 0",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA database_list",
    "PRAGMA integrity_check",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA cache_size = 100000000",
    "PRAGMA mmap_size = 1000000000000",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_user_version(7)",
    "SELECT load_extension('/tmp/x.so')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT fts3_tokenizer('simple', x'4141414141414141')",
    "SELECT sqlite_log(1, 'x')",
    "SELECT count(*) FROM dbstat",
    "SELECT * FROM sqlite_stmt",
    "SELECT * FROM fts3tokenize('simple')",
]
"""The policy refuses each by itself."""

OF_OTHER_BUILDS = [
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('/tmp/x', 'x')",
    "SELECT edit('x')",
    "SELECT * FROM sqlite_dbpage",
    "SELECT count(*) FROM sqlite_dbpage",
    "SELECT * FROM sqlite_dbdata",
    "SELECT * FROM fsdir('/')",
]
"""What they name is not in every build of SQLite: they are refused for that, or by the policy."""

DANGEROUS_FUNCTIONS = ("readfile", "writefile", "edit", "load_extension", "fts3_tokenizer", "sqlite_log")
DANGEROUS_TABLES = (
    "sqlite_dbpage",
    "sqlite_dbdata",
    "sqlite_dbptr",
    "dbstat",
    "sqlite_stmt",
    "fsdir",
    "fts3tokenize",
)

MALFORMED = [
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE entries",
    "SELECT 1 /* */ ; ;; DELETE FROM entries",
    "-- nothing",
    ";",
    "SELEC 1",
    "SELECT nothing FROM nowhere",
    "SELECT 1\0; DROP TABLE entries",
    "SELECT * FROM (SELECT 1 UNION ALL " + " UNION ALL ".join(["SELECT 1"] * 200) + ")",
    "SELECT " + "(" * 400 + "1" + ")" * 400,
    "SELECT " + "NOT " * 400 + "1",
    "SELECT " + "-".join(["1"] * 400),
    "SELECT " + ", ".join(["1"] * 1000),
    "SELECT max(" + ", ".join(["1"] * 200) + ")",
    "SELECT * FROM " + ", ".join(f"sessions s{number}" for number in range(70)),
    "SELECT 'x' LIKE '" + "%_" * 3000 + "'",
    "SELECT ?1000",
]
"""No one statement, or past a limit on what a statement may be."""

ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
DEAF = "SELECT instr(zeroblob(8000000), zeroblob(4000000) || x'01')"
"""Runs for hours within one step of SQLite, which does not look at the clock meanwhile."""

NESTED = "WITH t0 AS (SELECT 1 AS x), " + ", ".join(
    f"t{level} AS (SELECT a.x FROM t{level - 1} a, t{level - 1} b)" for level in range(1, 40)
)

TOO_MUCH = {
    "endless recursion": ENDLESS,
    "endless rows": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c WHERE n < 0",
    "cartesian product": "SELECT count(*) FROM entries a, entries b, entries c, entries d",
    "sorting a product": "SELECT a.payload || b.payload AS x FROM entries a, entries b ORDER BY x",
    "distinct product": "SELECT count(DISTINCT a.payload || b.seq) FROM entries a, entries b",
    "zeroblob": "SELECT zeroblob(1000000000)",
    "randomblob": "SELECT hex(randomblob(1000000000))",
    "printf": "SELECT length(printf('%.*c', 1000000000, 'x')) + length(zeroblob(1000000000))",
    "replace": "SELECT replace(hex(zeroblob(4000000)), '0', hex(zeroblob(4000000)))",
    "group_concat": "SELECT group_concat(a.payload) FROM entries a, entries b",
    "json_group_array": "SELECT json_group_array(a.payload) FROM entries a, entries b",
    "doubling": "WITH RECURSIVE c(t) AS (SELECT 'x' UNION ALL SELECT t || t FROM c) SELECT length(t) FROM c",
    "wide row": "SELECT " + ", ".join(["zeroblob(16000000)"] * 400),
    "one row past the bytes": "SELECT hex(zeroblob(5000000))",
    "one row past the bytes once escaped": "SELECT replace(hex(zeroblob(2000000)), '0', char(1))",
    "nested common tables": NESTED + " SELECT count(*) FROM t39",
    "deaf to the clock": DEAF,
    "long text": "SELECT 1 -- " + "x" * 100_000,
}
