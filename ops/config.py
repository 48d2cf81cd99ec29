"""Loads a node's configuration: default < file < environment < flag, and writes configuration files.

The environment names a key as `HEADWATER_SECTION__KEY`, for example `HEADWATER_LIMITS__ENTRY_BYTES`;
`HEADWATER_NODES` holds the `[[nodes]]` tables as a JSON array.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from ops.config_problems import InvalidConfiguration, Layer, sentences
from ops.settings import NodeConfiguration

ENVIRONMENT_PREFIX = "HEADWATER_"
_DELIMITER = "__"

_ALWAYS_WRITTEN = {"cluster", "node", "nodes"}
"""Sections that a written file spells out, defaults and all: they make the cluster what it is."""


class _Settings(NodeConfiguration, BaseSettings):
    """The configuration as pydantic-settings' sources want to see it."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter=_DELIMITER)


class _Environment(EnvSettingsSource):
    """The environment, by single keys; of the sections only `nodes`, a list, is given as a whole."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return value if field_name == "nodes" else None, key, is_complex


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> NodeConfiguration:
    """Read the configuration of one node.

    Args:
        path: The TOML file. A relative `node.data_directory` starts at its folder.
        overrides: What flags said, nested as in the file; they win over file and environment.

    Raises:
        InvalidConfiguration: The file cannot be read or a setting is wrong; every problem found is named.
    """
    layers = [Layer("from the file", _file(path))]
    try:
        layers.append(Layer("from the environment", _Environment(_Settings)()))
    except SettingsError as error:
        # Its text names the section and holds none of the value.
        raise InvalidConfiguration("The environment", [f"tables and lists are given as JSON: {error}"]) from error
    layers.append(Layer("from a flag", overrides or {}))

    return _anchored(_validated(str(path), layers, problems=list(_unknown_variables())), path)


def build(source: str, values: Mapping[str, Any]) -> NodeConfiguration:
    """A configuration from values alone, for writing it to a file; `source` names them in messages.

    Raises:
        InvalidConfiguration: A setting is wrong; every problem found is named.
    """
    return _validated(source, [Layer("as asked for", values)], problems=())


def to_toml(configuration: NodeConfiguration) -> str:
    """The configuration as a file that `load` reads back as it is.

    What makes the cluster is always written; of the rest only what differs from the defaults.
    """
    every = configuration.model_dump(mode="json")
    differing = configuration.model_dump(mode="json", exclude_defaults=True)
    if configuration.election.raft_password is not None:
        # A file that a node can be started with has to hold it; everywhere else it shows as asterisks.
        differing["election"]["raft_password"] = configuration.election.raft_password.get_secret_value()
    lines: list[str] = []
    for section, values in every.items():
        if section not in _ALWAYS_WRITTEN:
            values = differing.get(section, {})  # noqa: PLW2901 - the same values, fewer of them
        if isinstance(values, list):
            for table in values:
                lines += [f"[[{section}]]", *_key_values(table), ""]
        elif values:
            lines += [f"[{section}]", *_key_values(values), ""]
    return "\n".join(lines)


def _validated(source: str, layers: Sequence[Layer], *, problems: Sequence[str]) -> NodeConfiguration:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer.values)
    try:
        configuration = NodeConfiguration.model_validate(merged)
    except ValidationError as error:
        raise InvalidConfiguration(source, [*problems, *sentences(error, layers)]) from error
    if problems:
        raise InvalidConfiguration(source, problems)
    return configuration


def _file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = "it is no file; name the TOML file itself" if path.exists() else "there is no such file"
        raise InvalidConfiguration(str(path), [what])
    try:
        return TomlConfigSettingsSource(_Settings, path).toml_data
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(str(path), [f"it is not TOML: {error}"]) from error
    except OSError as error:
        raise InvalidConfiguration(str(path), [f"it cannot be read: {error.strerror}"]) from error


def _unknown_variables() -> Iterator[str]:
    """Variables that look like settings of a section that does not exist."""
    for name in sorted(os.environ):
        section, delimiter, _ = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition(_DELIMITER)
        if name.startswith(ENVIRONMENT_PREFIX) and delimiter and section not in NodeConfiguration.model_fields:
            sections = ", ".join(NodeConfiguration.model_fields)
            yield f"{name} (from the environment) names no section; allowed are {sections}"


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, key by key; lists and single values of `above` replace those of `below`."""
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        merged[key] = _merge(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return merged


def _anchored(configuration: NodeConfiguration, path: Path) -> NodeConfiguration:
    directory = path.resolve().parent / configuration.node.data_directory.expanduser()
    node = configuration.node.model_copy(update={"data_directory": directory})
    return configuration.model_copy(update={"node": node})


def _key_values(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]


def _toml(value: str | float | bool | Mapping[str, str]) -> str:
    """One of the few kinds of value that the configuration has, as TOML writes it."""
    if isinstance(value, Mapping):
        inner = ", ".join(f'"{key}" = {_toml(item)}' for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    # JSON's strings, numbers and booleans are TOML's, but for DEL, which TOML wants escaped.
    return orjson.dumps(value).decode().replace("\x7f", "\\u007f")
