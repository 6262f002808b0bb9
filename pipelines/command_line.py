"""What every command has in common: typed settings from recipe, file and flags, one JSON line, exit codes.

Settings are a frozen dataclass, read by tyro. Each of these yields to the next: the dataclass's defaults,
`--recipe NAME` (where the dataclass has a field `recipe`), `--config FILE`, flags. Recipe and file are turned into
flags placed before the user's own, because tyro keeps the last of a repeated flag: one parser checks every type.

It knows no command, and imports nothing heavy, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shlex
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar

import tyro

from iql_ray import config, recipes
from iql_ray.redaction import redacted
from iql_ray.tracking.reaching import StoreUnavailableError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
TRACEBACK_VARIABLE = "IQL_RAY_TRACEBACK"
"""Set to 1, it shows where a refused setting was refused: for those who change the code."""

Config = TypeVar("Config")


def main(
    config_class: type[Config],
    execute: Callable[[Config], Mapping[str, Any]],
    argv: Sequence[str] | None = None,
    description: str | None = None,
) -> int:
    """Parse, call `execute`, print its result as the last line of stdout.

    Args:
        config_class: a frozen dataclass of settings; fields that are dataclasses themselves become flat flags.
        execute: the command; the name of its module is the command's name.
        argv: the words after the command, `sys.argv[1:]` by default.
        description: shown by `--help`; the docstring of `config_class` by default.

    Returns:
        The exit code: 0 done, 1 failed (traceback on stderr, or one message where the tracking store is away), 2 misuse
        (one message on stderr: any ValueError), 130 interrupted, 143 terminated. Secrets are taken out of all of it.
    """
    prog = f"iql-ray {Path(execute.__code__.co_filename).stem.replace('_', '-')}"
    try:
        settings = parse(config_class, sys.argv[1:] if argv is None else argv, prog, description)
    except SystemExit as parsed:  # tyro has printed the help (0) or what is wrong (2)
        return int(parsed.code or DONE)
    except ValueError as error:
        return _refuse(prog, error)
    return _run(prog, lambda: execute(settings))


def parse(
    config_class: type[Config], arguments: Sequence[str], prog: str = "iql-ray", description: str | None = None
) -> Config:
    """The settings that recipe, file and flags add up to.

    Raises:
        ValueError: an unreadable file, an unknown key or recipe, or a value that the dataclass refuses.
        SystemExit: code 0 after `--help`, 2 after a flag or type that tyro refuses.
    """
    presets = [] if {"-h", "--help"} & set(arguments) else preset_arguments(config_class, arguments)
    invocation = dataclasses.make_dataclass(
        "Invocation",
        [
            ("settings", Annotated[config_class, tyro.conf.arg(name="")]),
            ("config", Annotated[Path | None, tyro.conf.arg(metavar="FILE", help=_CONFIG_HELP)], None),
        ],
    )
    try:
        parsed = tyro.cli(
            invocation,
            args=[*presets, *arguments],
            prog=prog,
            description=description or config_class.__doc__,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except SystemExit:
        if presets:
            print(redacted(f"(recipe and file stand before the flags as: {shlex.join(presets)})"), file=sys.stderr)
        raise
    return parsed.settings


_CONFIG_HELP = "YAML or JSON file of settings, nested or flat; flags win over it, it wins over a recipe."


def preset_arguments(config_class: type, arguments: Sequence[str]) -> list[str]:
    """Recipe, then file, as the flags that say the same."""
    scanner = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scanner.add_argument("--config", nargs="?")
    scanner.add_argument("--recipe", nargs="?")
    chosen, _ = scanner.parse_known_args(list(arguments))
    values = config.read(chosen.config) if chosen.config else {}
    presets = list(_as_flags(values, config_class, str(chosen.config)))
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    if "recipe" not in fields:
        return presets
    name = chosen.recipe or values.get("recipe") or fields["recipe"].default
    if name in (None, "None", dataclasses.MISSING):
        return presets
    return [*_as_flags(recipes.recipe(name), config_class, f"recipe '{name}'"), *presets]


def _as_flags(values: Mapping[str, Any], config_class: type, source: str) -> Iterator[str]:
    """Walk nested values along the dataclass's fields; at the top, a nested field may also stand by its own name."""
    flat = dict(_leaves(config_class))
    groups = {name: kind for name, kind in _field_types(config_class) if _is_group(kind)}
    for key, value in values.items():
        if key in groups:
            if not isinstance(value, Mapping):
                raise ValueError(f"{source}: '{key}' is a group of settings, got {value!r}; expected a mapping")
            yield from _as_flags(value, groups[key], f"{source}, {key}")
        elif key in flat:
            yield from _words(key, value, flat[key], source)
        else:
            raise ValueError(f"{source}: {config.unknown_key(str(key), [*groups, *flat])}")


def _field_types(config_class: type) -> Iterator[tuple[str, Any]]:
    kinds = typing.get_type_hints(config_class)
    return ((field.name, kinds[field.name]) for field in dataclasses.fields(config_class) if field.init)


def _is_group(kind: Any) -> typing.TypeGuard[type]:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _leaves(config_class: type) -> Iterator[tuple[str, Any]]:
    """Name and type of every setting that is a flag, nested ones included; flags are flat, so names are unique."""
    for name, kind in _field_types(config_class):
        if _is_group(kind):
            yield from _leaves(kind)
        else:
            yield name, kind


def _words(name: str, value: Any, kind: Any, source: str) -> list[str]:
    """One setting as the words of the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool) and kind is bool:
        return [f"--{flag}" if value else f"--no-{flag}"]
    if value is None and NoneType not in typing.get_args(kind):
        raise ValueError(f"{source}: '{name}' is empty, and needs a value; leave the key out for the default")
    if isinstance(value, Mapping):
        return [f"--{flag}", *_pairs(value, kind)]
    if isinstance(value, (list, tuple)):
        return [f"--{flag}", *map(str, value)]
    return [f"--{flag}={value}"]


def _pairs(values: Mapping[str, Any], kind: Any) -> list[str]:
    """A mapping as tyro reads dicts (key, value, key, value), or as `key=value` words where the field is a tuple."""
    if typing.get_origin(kind) is dict:
        return [str(word) for pair in values.items() for word in pair]
    return [f"{key}={value}" for key, value in values.items()]


def _run(prog: str, execute: Callable[[], Mapping[str, Any]]) -> int:
    try:
        line = redacted(json_line(execute()))
    except ValueError as error:
        return _refuse(prog, error)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stopped:  # Ray turns SIGTERM into exit(15), and its trainer Ctrl-C into exit(0)
        notes = getattr(stopped, "__notes__", [])  # how to go on
        print(redacted("; ".join([f"{prog}: stopped", *notes])), file=sys.stderr)
        return 128 + stopped.code if isinstance(stopped.code, int) and stopped.code else INTERRUPTED
    except StoreUnavailableError as error:
        print(f"{prog}: failed: {error}", file=sys.stderr)
        return FAILED
    except Exception:
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        print(f"{prog}: failed, see the traceback above", file=sys.stderr)
        return FAILED
    sys.stderr.flush()
    print(line, flush=True)
    return DONE


def _refuse(prog: str, error: ValueError) -> int:
    """A ValueError is a message to the user. One from a Ray task carries it as `cause`, under a remote traceback."""
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
    print(redacted(f"{prog}: error: {getattr(error, 'cause', None) or error}"), file=sys.stderr)
    return MISUSED


def json_line(result: Mapping[str, Any]) -> str:
    """The result on one line of strict JSON: paths as text, numbers that are not finite as null."""
    return json.dumps(_plain(dict(result)), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (str, int, NoneType)):
        return value
    if isinstance(value, Path):
        return str(value)
    return _plain(value.item())  # numpy scalars; anything else is a bug of the command, and fails as one
