"""What a query may be: one SELECT that reads the view `log` and nothing else.

DuckDB's own parser turns the text into a tree. The tree is searched for tables and functions;
what is not known to be harmless is refused. (The process that runs the query is confined besides:
see `confinement`.)
"""

import re
from collections.abc import Iterator
from typing import Any

import duckdb
import orjson

VIEW = "log"

_ONLY_SELECT = "only SELECT is possible: the log can be read here, and not changed"
_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
"""What may be a query, or one within it: `WITH` takes COPY, INSERT, UPDATE and DELETE too."""
_TABLE_FUNCTIONS = {"range", "generate_series", "unnest"}
_FORBIDDEN = re.compile(
    r"getenv|getvariable|current_setting|write_log|nextval|currval|sql_auto_complete"
    r"|query|query_table|add_parquet_key|json_execute_serialized_sql|from_substrait.*"
    r"|(?:duckdb|pragma|parquet|sqlite|read|write|enable|disable|force)_.*"
)


class RefusedError(Exception):
    """The query is not one that may run; the text says why.

    Attributes:
        position: where in the SQL, in characters from 0; None if it is nowhere in particular.
    """

    def __init__(self, text: str, position: int | None = None) -> None:
        super().__init__(text)
        self.position = None if position is None or not 0 <= position < 1 << 32 else position


def check(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Let a query pass that is one SELECT of the view.

    Returns:
        The names that may be columns in it; for `l.temp`, both.

    Raises:
        RefusedError: it is something else, or no SQL.
    """
    ((tree,),) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    try:
        parsed = orjson.loads(tree)
        _check_tree(parsed)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise RefusedError("the query is nested too deeply") from error
    except RefusedError as refused:
        if refused.position is not None:
            refused.position = characters(sql, refused.position)
        raise
    return list(_column_names(parsed))


def _column_names(node: object) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _column_names(item)
    if isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield from node["column_names"][:2]
        for item in node.values():
            yield from _column_names(item)


def characters(sql: str, position: int) -> int:
    """Count the characters of a query before a position, which DuckDB counts in bytes."""
    return len(sql.encode()[:position].decode(errors="ignore"))


def _check_tree(parsed: dict[str, Any]) -> None:
    if parsed["error"]:
        if parsed["error_type"] == "not implemented":
            raise RefusedError(_ONLY_SELECT)
        raise RefusedError(parsed["error_message"], int(parsed.get("position", -1)))
    if len(parsed["statements"]) != 1:
        raise RefusedError(f"one SELECT is wanted, not {len(parsed['statements'])} statements")
    _check_node(parsed["statements"][0]["node"], frozenset((VIEW,)))


def _check_node(node: object, tables: frozenset[str]) -> None:
    """Check a node of the tree and all below it.

    Args:
        node: a part of the JSON.
        tables: the names that may stand in FROM here: the view, and what WITH has defined.
    """
    if isinstance(node, list):
        for item in node:
            _check_node(item, tables)
    if not isinstance(node, dict):
        return
    if "cte_map" in node:
        tables |= {entry["key"].lower() for entry in node["cte_map"]["map"]}
    _check_reference(node, tables)
    for item in node.values():
        _check_node(item, tables)


def _check_reference(node: dict[str, Any], tables: frozenset[str]) -> None:
    match node.get("type"):
        case "BASE_TABLE":
            path = node["qualified_name"]["path"]
            if len(path) != 1 or path[0].lower() not in tables:
                raise _at(node, f"there is no table {'.'.join(path)} here, only {VIEW}")
        case "TABLE_FUNCTION":
            path = node["function"]["qualified_name"]["path"]
            if len(path) != 1 or path[0].lower() not in _TABLE_FUNCTIONS:
                raise _at(node, f"{'.'.join(path)} can't be used here, only {VIEW} can be read")
        case "SHOW_REF":
            if node["query"] is None:
                raise _at(node, f"there is only one table here, {VIEW}: write DESCRIBE {VIEW}")
        case "FUNCTION":
            path = node["qualified_name"]["path"]
            if _FORBIDDEN.fullmatch(path[-1].lower()):
                raise _at(node, f"the function {path[-1]} can't be used here")
        case str(kind) if kind.endswith("_NODE") and kind not in _QUERIES:
            raise RefusedError(_ONLY_SELECT)


def _at(node: dict[str, Any], text: str) -> RefusedError:
    return RefusedError(text, node.get("query_location"))
