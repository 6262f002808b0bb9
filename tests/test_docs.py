"""The pages of the docs that are to be followed: their commands run, and what they show is what is printed."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iql_ray.algorithm.fqe import ValueScale
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.envs.action_limits import Limiter
from iql_ray.evaluation.fqe_warnings import warnings_of
from iql_ray.experience import Spaces
from pipelines import __main__ as iql_ray_command
from pipelines import command_line
from pipelines.extract import ExtractConfig
from pipelines.prepare import PrepareConfig
from tests.tracking.examples import new_storage

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "from_csv_to_verdict.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The words of each command; a backslash goes on to the next line."""
    return [shlex.split(line)[1:] for line in block.replace("\\\n", " ").splitlines()]


def missing(block: str, printed: list[str]) -> list[str]:
    """The lines that were not printed; `...` stands for anything."""
    patterns = {line: ".*".join(map(re.escape, line.split("..."))) for line in block.splitlines()}
    return [line for line, pattern in patterns.items() if not any(re.fullmatch(pattern, each) for each in printed)]


@pytest.fixture
def here(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to follow a page in, with a store already made."""
    monkeypatch.chdir(tmp_path)
    new_storage(tmp_path, tmp_path_factory)
    return tmp_path


def follow(page: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run what a page says and find what it shows; the last result of each command."""
    printed: list[str] = []
    results: dict[str, Any] = {}
    for language, block in FENCE.findall(page):
        if language == "python":
            exec(block, {})
        elif language == "console":
            printed = []
            for command in commands(block):
                words: list[str] = [results["train"]["run_id"] if word == "RUN_ID" else word for word in command]
                assert iql_ray_command.main(words) == 0
                output = capsys.readouterr()
                printed += [*output.err.splitlines(), *output.out.splitlines()]
                results[command[0]] = json.loads(printed[-1])
        else:
            assert missing(block, printed) == []
    return results


def test_from_a_csv_log_to_a_verdict(ray_session: None, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = follow(PAGE, capsys)
    assert (here / "data" / "pendulum-inspection.html").is_file()
    assert results["train"]["model_selected_by"] == "fqe"
    assert results["evaluate"]["policy"] == "models:/pendulum/1"
    assert results["evaluate"]["dataset_digest"] == results["train"]["dataset_digest"]


def test_a_policy_goes_through_the_gate_of_the_registry(
    ray_session: None, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = follow((DOCS / "registry.md").read_text(), capsys)
    assert results["models"]["model"]["version"] == "2"
    assert results["models"]["promotion"]["replaced"] == "1"
    assert results["models"]["dataset"]["sha256"] == results["train"]["dataset_digest"]
    assert results["evaluate"]["policy"] == "models:/pendulum@champion"
    assert (results["rollback"]["restored"], results["rollback"]["rolled_back"]) == ("1", "2")


def test_the_page_explains_every_warning_of_a_verdict() -> None:
    everything_wrong = defaultdict[str, float](lambda: 1.0, num_episodes=1, data_unsupported_share=0.0)
    scale = ValueScale(center=0.0, spread=1.0, low=0.0, high=1.0)
    kinds = [warning["kind"] for warning in warnings_of(everything_wrong, scale)]
    assert len(kinds) == 5
    assert [kind for kind in kinds if f"| `{kind}` |" not in PAGE] == []


UNDERSTOOD = {
    "extract": ExtractConfig,
    "finetune": FinetuneConfig,
    "prepare": PrepareConfig,
    "search": SearchConfig,
    "train": TrainConfig,
}


def parsed_commands(page: str) -> list[str]:
    """The commands in a page's blocks, each understood by its parser."""
    blocks = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    words = [command for block in blocks if block.startswith("iql-ray ") for command in commands(block)]
    for command, *flags in words:
        command_line.parse(UNDERSTOOD[command], flags)
    return sorted(command for command, *_ in words)


def test_the_commands_of_the_page_on_fine_tuning_are_understood() -> None:
    page = (DOCS / "fine_tuning.md").read_text()
    assert parsed_commands(page) == ["finetune", "finetune", "prepare", "train"]
    flags = {flag.split()[0][2:].replace("-", "_") for flag in re.findall(r"`(--[a-z][^`]*)`", page)}
    known = {each.name for each in fields(FinetuneConfig)}
    assert flags - known == set()


def test_the_commands_of_the_search_page_are_understood() -> None:
    page = (DOCS / "search.md").read_text()
    assert parsed_commands(page) == ["extract", "search", "search", "search"]
    table = re.findall(r"`(--[^`]+)`", page)
    assert "--search random --num-samples 20 --expectile-range 0.5 0.95" in table
    varied = [flags for flags in table if flags.startswith("--vary ")]
    assert len(varied) == 2
    for flags in varied:
        command_line.parse(SearchConfig, ["--dataset", "d", "--search", "random", *flags.split()])


def test_the_commands_of_the_page_on_real_systems_are_understood() -> None:
    page = (DOCS / "real_systems.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    check, run = [
        command_line.parse(FinetuneConfig, words[1:])
        for block in blocks
        if block.startswith("iql-ray ")
        for words in commands(block)
    ]
    assert check.dry_run_actions
    assert (run.floor, run.resume_episodes, run.num_environments) == (-900.0, "restart", 1)
    pendulum = Spaces(observation_dim=3, action_dim=1, action_low=(-2.0,), action_high=(2.0,))
    for each in (check, run):
        assert Limiter(each.action_limits, pendulum).high == np.float32(1.2)
    assert [
        line for line in re.findall(r"^python (\S+)", page, re.MULTILINE) if not (DOCS.parent / line).is_file()
    ] == []
    assert set(re.findall(r"`(--[a-z-]+)`", page)) <= {
        f"--{field.name.replace('_', '-')}" for field in fields(FinetuneConfig)
    }


def test_commands_are_read_over_line_ends() -> None:
    assert commands("iql-ray prepare --out 'a b' \\\n    --overwrite\niql-ray sync\n") == [
        ["prepare", "--out", "a b", "--overwrite"],
        ["sync"],
    ]


def test_a_line_shown_may_leave_out_what_differs() -> None:
    assert missing("value ... of 3\nwarning", ["value 1.5 of 3", "a warning"]) == ["warning"]
