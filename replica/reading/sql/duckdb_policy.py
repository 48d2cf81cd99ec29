"""Which statements DuckDB may run: those whose every part is known to do nothing but read the cluster's tables.

DuckDB has no authorizer, and its extension for SQLite files opens files without asking whether files may be
opened. So a statement is parsed by DuckDB itself, and its tree is walked before it runs: each node, table and
function must be one that is named here. Everything else is refused, also what a later version brings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from replica.reading.sql.statement_tree import nodes

_NODES_OF_QUERIES = """
SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE
BASE_TABLE TABLE_FUNCTION SUBQUERY JOIN EMPTY EXPRESSION_LIST
ORDER_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER DISTINCT_MODIFIER ORDER_DEFAULT ASCENDING DESCENDING
"""
_NODES = frozenset(_NODES_OF_QUERIES.split())
"""Queries, what stands behind their FROM, and what stands behind the query."""

_KINDS_OF_EXPRESSIONS = """
BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION LAMBDA LAMBDA_REF OPERATOR PARAMETER
POSITIONAL_REFERENCE STAR SUBQUERY WINDOW
"""
_EXPRESSIONS = frozenset(_KINDS_OF_EXPRESSIONS.split())

_OPERATORS = "+ - * / // % ^ ** || ~~ !~~ ~~* !~~* ~~~ ^@ & | ~ << >> -> ->> ! @"

_TEXT_AND_NUMBER_FUNCTIONS = """
abs acos asin atan atan2 cbrt ceil ceiling cos cot degrees even exp factorial floor gamma gcd greatest isfinite
isinf isnan lcm least ln log log10 log2 mod nextafter pi pow power radians random round sign sin sqrt tan trunc xor
array_extract ascii bar base64 bin bit_length chr coalesce concat concat_ws contains damerau_levenshtein decode
editdist3 encode ends_with format formatReadableDecimalSize formatReadableSize from_base64 hash hex ifnull if instr
jaccard jaro_similarity jaro_winkler_similarity lcase left length len levenshtein like_escape lower lpad ltrim md5
nfc_normalize not_ilike_escape not_like_escape ilike_escape nullif octet_length ord position prefix printf
regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace regexp_split_to_array repeat
replace reverse right rpad rtrim sha256 split split_part starts_with str_split string_split strip_accents strlen
strpos substr substring substring_grapheme suffix to_base64 translate trim typeof ucase unhex unicode upper
"""

_TIME_FUNCTIONS = """
age century current_date current_time current_timestamp date_add date_diff date_part date_sub date_trunc datediff
datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear decade epoch epoch_ms epoch_ns epoch_us
extract get_current_timestamp hour isodow isoyear last_day make_date make_time make_timestamp microsecond
millisecond minute month monthname now quarter second strftime strptime time_bucket timezone to_days to_hours
to_microseconds to_milliseconds to_minutes to_months to_seconds to_timestamp to_weeks to_years today try_strptime
week weekday weekofyear year yearweek
"""

_NESTED_FUNCTIONS = """
array_length array_to_string from_json json json_array json_array_length json_contains json_exists json_extract
json_extract_path json_extract_path_text json_extract_string json_keys json_object json_quote json_structure
json_type json_valid json_value row list_aggregate list_any_value list_avg list_concat list_contains list_count
list_distinct list_element list_extract list_filter list_max list_min list_position list_reduce list_reverse
list_slice list_sort list_sum list_transform list_unique list_value range generate_series row_to_json
struct_extract struct_pack to_json unnest array_slice list_has_any list_has_all element_at
"""

_AGGREGATE_AND_WINDOW_FUNCTIONS = """
any_value approx_count_distinct approx_quantile arg_max arg_min array_agg avg bit_and bit_or bit_xor bool_and
bool_or corr count count_if count_star countif covar_pop covar_samp entropy favg first fsum geomean group_concat
histogram kurtosis last list listagg mad max max_by mean median min min_by mode product quantile quantile_cont
quantile_disc regr_intercept regr_r2 regr_slope skewness stddev stddev_pop stddev_samp string_agg sum
sum_no_overflow var_pop var_samp variance
cume_dist dense_rank first_value fill lag last_value lead nth_value ntile percent_rank rank rank_dense row_number
"""

FUNCTIONS = frozenset(
    " ".join(
        (
            _OPERATORS,
            _TEXT_AND_NUMBER_FUNCTIONS,
            _TIME_FUNCTIONS,
            _NESTED_FUNCTIONS,
            _AGGREGATE_AND_WINDOW_FUNCTIONS,
        )
    )
    .lower()
    .split()
)

TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree"})

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_FOREIGN = ("duckdb_", "pg_", "sqlite_", "pragma_")


class Refused(Exception):
    """The statement does something that is not known to be a plain read; the message says what."""


def check_statement(serialized: str, tables: frozenset[str]) -> frozenset[str]:
    """Let a statement pass that only reads, and return the tables that it reads.

    Args:
        serialized: What DuckDB's `json_serialize_sql` says of it.
        tables: The tables that may be read, in lower case.

    Raises:
        Refused: It does anything else.
    """
    try:
        tree = json.loads(serialized)
        if tree["error"]:
            raise Refused(f"write one SELECT statement: {tree['error_message']}")
        if len(tree["statements"]) != 1:
            raise Refused(f"there are {len(tree['statements'])} statements; write one SELECT")
        common_tables = frozenset(_common_tables(tree))
        return frozenset(_checked_tables(tree["statements"][0], tables | common_tables)) & tables
    except RecursionError:
        raise Refused("the statement is nested too deeply") from None


def _common_tables(tree: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """The names that the statement gives to queries of its own (WITH)."""
    for node in nodes(tree):
        for entry in node.get("cte_map", {}).get("map", ()):
            name = entry["key"].lower()
            # A name that could also mean a file or a system table would hide what is read where it does not reach.
            if not _NAME.fullmatch(name) or name.startswith(_FOREIGN):
                raise Refused(f"WITH {entry['key'][:80]}: give it a name of letters, digits and underscores")
            yield name


def _checked_tables(statement: Any, tables: frozenset[str]) -> Iterator[str]:  # noqa: ANN401 - JSON
    for node in nodes(statement):
        kind = node.get("type")
        if "class" in node:
            _require(node["class"] in _EXPRESSIONS, f"the expression {node['class']}")
        elif isinstance(kind, str) and not kind.endswith("_TYPE_INFO"):
            _require(kind in _NODES, kind)
        if kind == "BASE_TABLE":
            yield _checked_table(node, tables)
        elif kind == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name", "")).lower()
            _require(name in TABLE_FUNCTIONS, f"the table function {name}")
        if "function_name" in node:
            _check_function(node)


def _checked_table(node: dict[str, Any], tables: frozenset[str]) -> str:
    name = ".".join(filter(None, (node.get("catalog_name"), node.get("schema_name"), node.get("table_name"))))
    _require(not node.get("catalog_name") and not node.get("schema_name"), f"the table {name}")
    _require(name.lower() in tables, f"the table {name}")
    return name.lower()


def _check_function(node: dict[str, Any]) -> None:
    name = str(node["function_name"]).lower()
    _require(name in FUNCTIONS or name in TABLE_FUNCTIONS, f"the function {name}")
    # The parser itself puts these schemas before functions that stand for syntax, such as EXTRACT.
    _require(node.get("schema") in {"", "main", "pg_catalog"}, f"a schema before the function {name}")
    _require(node.get("catalog") in {"", "system"}, f"a catalog before the function {name}")


def _require(allowed: bool, what: str) -> None:
    if not allowed:
        raise Refused(f"this is read-only SQL over the cluster's tables: refused {what[:200]}")
