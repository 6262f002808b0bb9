"""How every benchmark ends: its result as one line of JSON, and as a file where one was named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_result(result: Mapping[str, Any], out: Path | None) -> None:
    """Print it, as the last line of stdout, and write it to `out`, whose folder is made."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
