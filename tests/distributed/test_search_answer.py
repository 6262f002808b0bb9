"""The answer of a search, read from its trials' histories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iql_ray import run_folder
from iql_ray.distributed.search_answer import find_answer, protocol, write_answer
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_plan import TrialSpec, planned_trials
from iql_ray.distributed.search_trainable import trial_folder
from iql_ray.distributed.search_trial import HISTORY_FILE
from iql_ray.distributed.train_config import TrainConfig
from pipelines import command_line

Scores = dict[tuple[int, float], list[float]]
"""Returns of the last evaluation, by seed and expectile."""


def searched(folder: Path, scores: Scores, **settings: Any) -> tuple[SearchConfig, list[TrialSpec]]:
    """A search over two expectiles and two seeds whose trials have written these."""
    config = SearchConfig(
        dataset="data/d", env="E-v0", seeds=(0, 1), expectiles=(0.7, 0.9), num_updates=100, **settings
    )
    specs = list(planned_trials(config, 1))
    for spec in specs:
        trial_folder(folder, spec).mkdir(parents=True)
        for num_updates, is_final in ((50, False), (100, True)):
            members = [
                {**named(seed, tau), "result": result(scores[seed, tau], is_final)}
                for seed in spec.seeds
                for tau in spec.expectiles
            ]
            line = {"kind": "evaluation", "num_updates": num_updates, "is_final": is_final, "members": members}
            run_folder.append_line(trial_folder(folder, spec) / HISTORY_FILE, line)
    return config, specs


def named(seed: int, expectile: float) -> dict[str, Any]:
    return {"seed": seed, "expectile": expectile, "inverse_temperature": 3.0}


def result(returns: list[float], is_final: bool) -> dict[str, Any]:
    returns = returns if is_final else [0.0]
    mean = sum(returns) / len(returns)
    return {"return_mean": mean, "return_ci": [min(returns), max(returns)], "returns": returns}


SCORES = {(0, 0.7): [1.0, 3.0], (1, 0.7): [4.0, 4.0], (0, 0.9): [5.0, 5.0], (1, 0.9): [1.0, 2.0]}


def test_configurations_are_ranked_by_their_last_evaluation_over_seeds(tmp_path: Path):
    config, specs = searched(tmp_path, SCORES)
    answer = find_answer(config, tmp_path, specs)
    assert [(each.configuration.expectile, each.mean) for each in answer.standings] == [(0.9, 3.25), (0.7, 3.0)]
    assert answer.best[1:] == (0, 0.9, 3.0), "of the best configuration, the seed with the best score"


def test_its_files_say_the_same(tmp_path: Path):
    config, specs = searched(tmp_path, SCORES, batch_size=64, recipe="antmaze")
    answer = find_answer(config, tmp_path, specs)
    runs = {key: f"run-{index}" for index, key in enumerate(answer.scored)}
    paths = write_answer(answer, config, tmp_path, runs)
    assert all(path.stat().st_size > 0 for path in paths.values())
    page = paths["search.html"].read_text()
    assert all(run in page for run in runs.values())
    best = command_line.parse(TrainConfig, ["--config", str(paths["best.yaml"])])
    assert (best.agent.expectile, best.seed, best.batch_size, best.env) == (0.9, 0, 64, "E-v0")
    assert (best.seeds, best.expectiles, best.storage) == ((), (), "runs")
    assert best.agent.inverse_temperature == 3.0, "not the recipe's, though it is the default"


def test_a_best_configuration_whose_policy_was_extracted_is_said_to_be_trained_otherwise(tmp_path: Path):
    config, specs = searched(tmp_path, SCORES, extract="after")
    answer = find_answer(config, tmp_path, specs)
    best = write_answer(answer, config, tmp_path, dict.fromkeys(answer.scored, "run"))["best.yaml"]
    assert "a run of best.yaml, which learns both side by side, is another one" in best.read_text().splitlines()[0]


def test_members_that_have_diverged_are_not_ranked(tmp_path: Path):
    config, specs = searched(tmp_path, {**SCORES, (0, 0.9): [float("nan")], (1, 0.9): [float("nan")]})
    answer = find_answer(config, tmp_path, specs)
    assert [each.configuration.expectile for each in answer.standings] == [0.7]
    config, specs = searched(tmp_path / "all", {key: [float("nan")] for key in SCORES})
    with pytest.raises(RuntimeError, match=r"no member of the search .* has a score"):
        find_answer(config, tmp_path / "all", specs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"env": "E-v0", "num_final_episodes": 7}, ["7 episodes in E-v0", "(100)"]),
        ({}, ["fitted Q evaluation", "discounted at 0.99"]),
        ({"scheduler": "asha"}, ["stopped, after 25, 50."]),
        ({"extract": "after", "extract_updates": 50}, ["(50)"]),
        ({"scheduler": "pbt"}, ["took one another over from 10 updates on, every 10."]),
    ],
)
def test_the_protocol_says_how_scores_were_made(settings: dict[str, Any], words: list[str]):
    text = protocol(SearchConfig(dataset="d", num_updates=100, **settings))
    assert [word for word in words if word not in text] == []
