"""A virtual environment with some of this one's packages and nothing else: made by links, without a download.

So a test can show what needs which package, where hiding a module would only show that importing it fails.
"""

from __future__ import annotations

import re
import sys
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path


def make_environment(folder: Path, packages: list[str]) -> Path:
    """A virtual environment in which these packages, and what they require, can be imported; returns its python."""
    venv.create(folder, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = folder / "lib" / version / "site-packages"
    for each in closure(packages).values():
        for name in top_level(each):
            link = site_packages / name
            if not link.exists():
                link.symlink_to(Path(str(each.locate_file(name))))
    return folder / "bin" / "python"


def closure(packages: list[str]) -> dict[str, Distribution]:
    """The packages, and all that they require and that is installed here, by name."""
    found: dict[str, Distribution] = {}
    waiting = list(packages)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # one that another platform or Python needs
            continue
        required = [line for line in found[name].requires or () if "extra ==" not in line]
        waiting += [match[0] for line in required if (match := re.match(r"[\w.-]+", line))]
    return found


def top_level(package: Distribution) -> set[str]:
    """Folders and files that the package has put into site-packages."""
    return {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}
