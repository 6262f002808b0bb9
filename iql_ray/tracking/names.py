"""What MLflow takes as a name and as a number, checked where the mistake is made and not when it is sent."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_NAME_LENGTH = 250
MAX_PARAM_LENGTH = 6000
NAME_PATTERN = re.compile(r"[/\w.\- :]+")
MAX_MODEL_NAME_LENGTH = 200
MODEL_NAME_PATTERN = re.compile(rf"[^\W_](?:[\w.\- ]{{0,{MAX_MODEL_NAME_LENGTH - 2}}}[^\W_])?")
MODEL_ID_PATTERN = re.compile(r"m-[0-9a-f]{32}")
LOCK_NAME_PATTERN = re.compile(r"\.promotion-lock\.\d+$")
"""Registered models that hold a lock and no policy; see `lease`."""


def check_name(name: str) -> str:
    """The name of a metric or parameter, if MLflow takes it; some of its stores use it as a path.

    Raises:
        ValueError: another character, a double or outer '/', or too long.
    """
    is_plain_path = posixpath.normpath(name) == name and not name.startswith(("/", "."))
    if not NAME_PATTERN.fullmatch(name) or not is_plain_path or len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"metric or parameter name '{name}' must be up to {MAX_NAME_LENGTH} letters, digits, spaces and _ - . : /, "
            "with one '/' between its parts and none around"
        )
    return name


def check_model_name(name: str) -> str:
    """The name of a registered model, if it can stand in `models:/NAME/VERSION`, `models:/NAME@ALIAS` and a filter.

    Raises:
        ValueError: it cannot.
    """
    if not MODEL_NAME_PATTERN.fullmatch(name) or MODEL_ID_PATTERN.fullmatch(name):
        raise ValueError(
            f"model name '{name}' must be 1 to {MAX_MODEL_NAME_LENGTH} letters, digits, spaces and _ - . that begin "
            "and end with a letter or digit, and not look like the id of a model (m-...)"
        )
    if LOCK_NAME_PATTERN.search(name):
        raise ValueError(f"model name '{name}' is reserved for the lock of a promotion; choose another")
    return name


def check_alias(alias: str) -> str:
    """An alias that MLflow takes and that is no version number.

    Raises:
        ValueError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z][\w\-]{0,99}", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise ValueError(
            f"alias '{alias}' must be a letter and up to 99 letters, digits, _ and -, "
            "and neither 'latest' nor a version"
        )
    return alias


@dataclass(frozen=True, kw_only=True)
class ModelReference:
    """A registered version as its users name it: by number or by alias."""

    name: str
    version: str | None = None
    alias: str | None = None


def parse_reference(text: str) -> ModelReference:
    """NAME/VERSION or NAME@ALIAS, with or without models:/ before it.

    Raises:
        ValueError: neither, or a name or alias that cannot be.
    """
    path = text.removeprefix("models:/").strip("/")
    if match := re.fullmatch(r"([^/@]+)@([^/@]+)", path):
        return ModelReference(name=check_model_name(match[1]), alias=check_alias(match[2]))
    if match := re.fullmatch(r"([^/@]+)/(\d+)", path):
        return ModelReference(name=check_model_name(match[1]), version=match[2])
    raise ValueError(f"'{text}' is not understood; expected models:/NAME/VERSION or models:/NAME@ALIAS")


def numbers_of(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are numbers, by checked name; what else a summary holds (intervals, flags) is left out."""
    return {
        check_name(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }
