"""The pages of the docs that are to be followed: their commands run, and what they show is what is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipelines import __main__ as iql_ray_command

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The words of each command; a backslash goes on to the next line."""
    return [shlex.split(line)[1:] for line in block.replace("\\\n", " ").splitlines()]


def test_from_a_csv_log_to_a_dataset_that_can_be_trusted(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    for language, block in FENCE.findall((DOCS / "from_csv_to_verdict.md").read_text()):
        if language == "python":
            exec(block, {})
        elif language == "console":
            printed = []
            for command in commands(block):
                assert iql_ray_command.main(command) == 0
                output = capsys.readouterr()
                printed += [*output.err.splitlines(), *output.out.splitlines()]
        else:
            assert [line for line in block.splitlines() if line not in printed] == []
    assert (tmp_path / "data" / "pendulum-inspection.html").is_file()


def test_commands_are_read_over_line_ends() -> None:
    assert commands("iql-ray prepare --out 'a b' \\\n    --overwrite\niql-ray sync\n") == [
        ["prepare", "--out", "a b", "--overwrite"],
        ["sync"],
    ]
