"""What a page of docs/ tells its readers to type, so that tests can type it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The page's fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str, beginning: str) -> list[list[str]]:
    """The words of every command of the page that begins so."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(beginning)]


def replaced(words: list[str], values: dict[str, str]) -> list[str]:
    """The words with what is different here, such as ports, put in place of what the page says."""
    for documented, here in values.items():
        assert any(documented in word for word in words), f"{documented} is not in {words}"
        words = [word.replace(documented, here) for word in words]
    return words
