"""Imports point one way, and what is hard to get right is known to one module each.

Read from the source, so that imports within functions and those for type checkers count too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent_core", "primary", "replica", "ops")

MAY_IMPORT = {
    "agent_core": {"agent_core"},
    "primary": {"primary", "agent_core"},
    "replica": {"replica", "agent_core"},
    "ops": {"ops", "primary", "replica", "agent_core"},
}

KNOWN_TO = {
    "pysyncobj": {"ops/control/raft_member.py"},
    "opentelemetry": {"agent_core/open_telemetry.py"},
    # The first is loaded in worker processes alone, the second in the dashboard's, which is no node.
    "duckdb": {"replica/reading/sql/duckdb_engine.py", "ops/dashboard/sql/export.py"},
}
"""The modules that may import a library."""

KNOWN_BELOW = {"prometheus_client": "ops/", "nicegui": "ops/dashboard/", "textual": "ops/top/"}
"""The folder whose modules alone may import a library."""


@cache
def imports() -> dict[str, set[str]]:
    """The modules that each source file imports, by its path."""
    files = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {str(path.relative_to(ROOT)): set(imported_by(ast.parse(path.read_bytes()))) for path in files}


def imported_by(tree: ast.Module) -> Iterator[str]:
    """The full names of what a module imports, wherever in it."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module, names, level):
                assert not level, "imports name the whole path"
                yield from (f"{module}.{name.name}" for name in names)


def importers_of(library: str) -> set[str]:
    """The files that import a library or a part of it."""
    return {path for path, names in imports().items() if any(name.split(".")[0] == library for name in names)}


def test_every_package_was_read() -> None:
    assert len(imports()) > 200
    assert {path.partition("/")[0] for path in imports()} == set(PACKAGES)


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b\nif TYPE_CHECKING:\n    from c import d\ndef f():\n    from e.f import g\n"
    assert set(imported_by(ast.parse(source))) == {"a.b", "c.d", "e.f.g"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_stands_below_it(package: str) -> None:
    forbidden = {*PACKAGES, "tests"} - MAY_IMPORT[package]
    upwards = {
        f"{path} imports {name}"
        for path, names in imports().items()
        for name in names
        if path.startswith(f"{package}/") and name.split(".")[0] in forbidden
    }
    assert upwards == set()


@pytest.mark.parametrize("library", KNOWN_TO)
def test_a_library_that_is_hard_to_get_right_is_known_to_its_module_alone(library: str) -> None:
    assert importers_of(library) == KNOWN_TO[library]


@pytest.mark.parametrize("library", KNOWN_BELOW)
def test_a_library_of_one_surface_is_known_in_its_folder_alone(library: str) -> None:
    importers = importers_of(library)
    assert importers
    assert [path for path in importers if not path.startswith(KNOWN_BELOW[library])] == []


def test_no_module_of_a_node_imports_the_one_that_loads_duckdb() -> None:
    engine = "replica.reading.sql.duckdb_engine"
    assert [path for path, names in imports().items() if any(name.startswith(engine) for name in names)] == []
