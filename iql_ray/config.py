"""Frozen dataclasses to JSON and YAML and back, strictly: an unknown key or a wrong type is an error that names it."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import dacite
import yaml

Config = TypeVar("Config")
PARTIAL_SUFFIX = ".partial"


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass as plain JSON types; tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(config_class: type[Config], values: Mapping[str, Any], source: str = "configuration") -> Config:
    """Build `config_class` from nested plain values.

    Raises:
        ValueError: an unknown key, a missing key, a wrong type, or a value that the class itself refuses.
    """
    _refuse_unknown_keys(config_class, values, source)
    try:
        return dacite.from_dict(config_class, values, dacite.Config(strict=True, cast=[tuple]))  # pyright: ignore
    except dacite.DaciteError as error:
        raise ValueError(f"{source}: {error}") from error


def _refuse_unknown_keys(config_class: type, values: Mapping[str, Any], source: str) -> None:
    """At every level, with the names of that level; dacite would know which key, not where."""
    kinds = typing.get_type_hints(config_class)
    known = [field.name for field in dataclasses.fields(config_class)]
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{source}: {unknown_key(str(key), known)}")
        if dataclasses.is_dataclass(kinds[key]) and isinstance(value, Mapping):
            _refuse_unknown_keys(kinds[key], value, f"{source}, {key}")


def unknown_key(key: str, known: list[str]) -> str:
    """The sentence that refuses a key: what was got, what is nearest, what there is."""
    nearest = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return f"unknown key '{key}'{hint} (known: {', '.join(sorted(known))})"


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy with fields replaced by dotted path: `override(config, {"agent.discount": 0.97})`."""
    values = dataclasses.asdict(config)  # pyright: ignore
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        level = values
        for parent in parents:
            level = level.get(parent)
            if not isinstance(level, dict):
                raise ValueError(f"override '{path}': '{parent}' is no group of fields of {type(config).__name__}")
        if leaf not in level:
            raise ValueError(f"override '{path}': {unknown_key(leaf, list(level))}")
        level[leaf] = value
    return from_dict(type(config), values, source="override")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted paths: `{"agent": {"discount": 0.9}}` -> `{"agent.discount": 0.9}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-05, as JSON writes small numbers and people write rates, for a word; here it is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_value(text: str) -> Any:
    """A number, truth value, list or word as YAML reads it.

    Raises:
        ValueError: it is not YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"value '{text}' is not understood: {error}") from error


def read(path: str | Path) -> dict[str, Any]:
    """The mapping in a JSON or YAML file.

    Raises:
        ValueError: the file is missing, is not YAML, or holds something other than a mapping.
    """
    path = Path(path)
    try:
        values = _parsed(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"configuration file {path} does not exist") from error
    except yaml.YAMLError as error:
        raise ValueError(f"configuration file {path} is not valid YAML or JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"configuration file {path} must hold a mapping of keys to values, got {type(values).__name__}"
        )
    return values


def _parsed(text: str) -> Any:
    """YAML's reader takes a hundred times as long as JSON's, and a checkpoint's state is read at every save."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return yaml.load(text, _Loader)


def load(config_class: type[Config], path: str | Path) -> Config:
    """Read a dataclass back from a JSON or YAML file, strictly."""
    return from_dict(config_class, read(path), source=str(path))


def save(config: Any, path: str | Path) -> None:
    """Write a dataclass as readable JSON, whole or not at all."""
    write_json(to_dict(config), path)


def write_json(values: Any, path: str | Path) -> None:
    """Write JSON beside the target and rename, so that no reader ever sees half a file."""
    path = Path(path)
    temporary = path.with_name(path.name + PARTIAL_SUFFIX)
    temporary.write_text(json.dumps(values, indent=2) + "\n")
    temporary.replace(path)
