"""The one place where secrets are taken out of what leaves the process: logs, messages, parameters, tags, manifests.

A secret is the password of a URI, a token that stands alone before the host, or a value whose name says what it is.
Text goes in, the same text with `***` comes out. Nothing is kept or checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_SECRET_NAME = r"(?:password|passwd|pwd|secret|token|credential|signature|api[_-]?key|access[_-]?key(?:[_-]?id)?|sig)"
_PASSWORD = re.compile(
    # A port is no password: http://HOST:5000/#/models/pen@champion
    r"(?P<before>[a-zA-Z][\w+.-]*://[^\s:/@'\"]*):(?!\d+(?:[/\s'\"?#]|$))(?P<password>[^\s'\"]*)@"
)
_LONE_TOKEN = re.compile(r"(?P<before>\bhttps?://)[^\s:/@'\"]+@")
_PARAMETER = re.compile(rf"(?P<before>[?&;][\w.-]*{_SECRET_NAME}=)[^&;#\s'\"]+", re.IGNORECASE)
_BEARER = re.compile(r"(?P<before>\b(?:Bearer|Basic)\s+)[\w.~+/=-]{8,}")
_NAMED = re.compile(rf"(?:^|[_.\-\s]){_SECRET_NAME}$", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text with the secrets in its URIs and authorisation headers replaced by `***`.

    Example: `postgresql://ann:pa55@host/db` -> `postgresql://ann:***@host/db`.
    """
    text = _PASSWORD.sub(rf"\g<before>:{HIDDEN}@", text)
    text = _LONE_TOKEN.sub(rf"\g<before>{HIDDEN}@", text)
    text = _PARAMETER.sub(rf"\g<before>{HIDDEN}", text)
    return _BEARER.sub(rf"\g<before>{HIDDEN}", text)


def redacted_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Named values: texts redacted, and hidden altogether where the name is that of a secret (`store.password`)."""
    return {name: _redacted_value(name, value) for name, value in values.items()}


def _redacted_value(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if _NAMED.search(name):
        return HIDDEN
    return redacted(value) if isinstance(value, str) else value
