"""Where things lie: a path of this machine, or a URI that pyarrow's filesystems open. Imports nothing heavy, opens
nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path


def is_uri(location: str | Path) -> bool:
    """Whether a location is a URI rather than a path of this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(location)) is not None


def absolute(location: str | Path) -> str:
    """What names a place from wherever it is said: a URI as it is, a path from the root."""
    return str(location) if is_uri(location) else os.path.abspath(location)


def last_name(location: str | Path) -> str:
    """`pen` of data/pen and of s3://bucket/pen?region=eu-west-1."""
    return str(location).partition("?")[0].rstrip("/").rpartition("/")[2]
