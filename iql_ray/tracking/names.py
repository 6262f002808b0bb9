"""What MLflow takes as a name and as a number, checked where the mistake is made and not when it is sent."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_NAME_LENGTH = 250
MAX_PARAM_LENGTH = 6000
NAME_PATTERN = re.compile(r"[/\w.\- :]+")


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
    """The name of a registered model, if it can stand in `models:/NAME/VERSION` and `models:/NAME@ALIAS`.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[^/:@'\"]+", name):
        raise ValueError(f"model name '{name}' must not be empty nor contain any of / : @ or quotes")
    return name


def numbers_of(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are numbers, by checked name; what else a summary holds (intervals, flags) is left out."""
    return {
        check_name(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }
