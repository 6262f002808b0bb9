"""What population based training decides depends on scores and the search's seed alone; a small one on Ray Tune."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from iql_ray import config as config_io
from iql_ray.distributed.members import load_agent
from iql_ray.distributed.search_config import Range, SearchConfig
from iql_ray.distributed.search_generations import read_generation, write_generation
from iql_ray.distributed.search_pbt import Generations, bounded_to
from iql_ray.distributed.search_plan import planned_trials
from iql_ray.distributed.search_trainable import SPEC_KEY
from pipelines import search
from tests.distributed.examples import search_config, tiny_dataset
from tests.tracking.examples import client_of, new_storage

SCORES = (4.0, 1.0, 3.0, 2.0)


def config_of(**changes: Any) -> SearchConfig:
    return SearchConfig(
        dataset="d", scheduler="pbt", search="random", num_samples=4, expectile_range=(0.5, 0.9), num_updates=100,
        perturbation_interval_updates=20, inverse_temperatures=(1.0, 3.0, 10.0), seeds=(0, 1), **changes,
    )  # fmt: skip


class Trial:
    """What the scheduler sees of a trial that Tune has paused."""

    def __init__(self, trial_id: str, config: dict[str, Any], manager: SimpleNamespace) -> None:
        self.trial_id, self.config, self.status, self.experiment_tag = trial_id, config, "PAUSED", ""
        self.evaluated_params: dict[str, Any] = {}
        self.checkpoint = object()
        self.temporary_state = SimpleNamespace(saving_to=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)

    def is_finished(self) -> bool:
        return False

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config

    def set_experiment_tag(self, tag: str) -> None:
        self.experiment_tag = tag


class Population:
    """Trials and their scheduler, as Tune's controller holds them."""

    def __init__(self, config: SearchConfig, folder: Path) -> None:
        self.search_alg = None
        self.specs = planned_trials(config, 1)
        self._scheduler = Generations(config, folder)
        self.trials = [self._trial(config_io.to_dict(spec), index) for index, spec in enumerate(self.specs)]
        for trial in self.trials:
            self._scheduler.on_trial_add(self, trial)

    def _trial(self, spec: dict[str, Any], index: int) -> Trial:
        manager = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None), _latest_checkpoint_result=None)
        return Trial(str(index), {SPEC_KEY: spec}, manager)

    def get_trials(self) -> list[Trial]:
        return self.trials

    def get_live_trials(self) -> list[Trial]:
        return self.trials

    def report(self, num_updates: int, order: Sequence[int]) -> None:
        for index in order:
            result = {"num_updates": num_updates, "score": SCORES[index]}
            self._scheduler.on_trial_result(self, self.trials[index], result)


def test_the_worst_trial_takes_the_best_over_with_settings_near_its(tmp_path: Path):
    population = Population(config_of(), tmp_path)
    best, worst, *_ = population.specs
    population.report(20, [0, 1, 2])
    assert read_generation(tmp_path, 20) is None, "one is not there yet"
    population.report(20, [3])
    ((name, change),) = (read_generation(tmp_path, 20) or {}).items()
    assert (name, change.source, change.num_updates) == (worst.name, best.name, 20)
    assert 0.5 <= change.settings["expectile"] <= 0.9
    assert change.settings["inverse_temperature"] in (1.0, 3.0, 10.0)
    assert population.trials[1].config[SPEC_KEY] == config_io.to_dict(worst), "it stays the trial that it is"


def test_decisions_are_the_same_in_any_order_and_after_a_crash(tmp_path: Path):
    folders = [tmp_path / name for name in ("one", "other", "resumed")]
    for folder, order in zip(folders, ([0, 1, 2, 3], [3, 2, 0, 1]), strict=False):
        random.seed(len(str(folder)))
        population = Population(config_of(), folder)
        for num_updates in (20, 40, 60, 80):
            population.report(num_updates, order)
    for num_updates in (20, 40):
        write_generation(folders[2], num_updates, read_generation(folders[0], num_updates) or {})
    resumed = Population(config_of(), folders[2])
    for num_updates in (60, 80):
        resumed.report(num_updates, [2, 1, 3, 0])
    found = [[read_generation(folder, count) for count in (20, 40, 60, 80)] for folder in folders]
    assert found[0] == found[1] == found[2]
    assert len({str(each) for each in found[0]}) == 4


def test_another_seed_decides_otherwise(tmp_path: Path):
    decided = []
    for seed in (0, 1):
        Population(config_of(seed=seed), tmp_path / str(seed)).report(20, range(4))
        decided.append(read_generation(tmp_path / str(seed), 20))
    assert decided[0] != decided[1]


def test_a_number_stays_inside_its_range():
    axis = Range(low=0.5, high=0.9)
    assert [bounded_to(axis, value) for value in (0.4, 0.61237, 1.08)] == [0.5, 0.6124, 0.9]
    assert bounded_to((1.0, 3.0), 3.0) == 3.0


@pytest.mark.ray
def test_a_search_whose_settings_change_says_so_wherever_it_is_looked_at(
    ray_session: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    storage = new_storage(tmp_path, tmp_path_factory)
    config = search_config(
        tiny_dataset(tmp_path / "data"), storage, scheduler="pbt", perturbation_interval_updates=10,
        inverse_temperatures=(1.0,), env=None, checkpoint_interval_updates=100,
    )  # fmt: skip
    result = search.search(config)
    assert (result["num_trials"], result["num_members"]) == (2, 4)
    ((worse, change),) = (read_generation(Path(result["run_folder"]), 10) or {}).items()
    standings = json.loads(Path(result["leaderboard_json"]).read_text())["standings"]
    by_trial = {each["varied"]["trial"]: each["schedule"] for each in standings}
    names = [spec.name for spec in planned_trials(config, 1)]
    number = names.index(worse) + 1
    assert [each["num_updates"] for each in by_trial[number]] == [0, 10]
    assert by_trial[number][0]["trial"] == str(3 - number)
    assert by_trial[number][1]["settings"] == change.settings
    assert "Settings along the way" in Path(result["search_html"]).read_text()
    text = Path(result["best_yaml"]).read_text()
    assert text.startswith("# Trial ")
    assert yaml.safe_load(text)["num_updates"] == 20
    client = client_of(storage)
    for line in (Path(result["run_folder"]) / "members.jsonl").read_text().splitlines():
        member = json.loads(line)
        if (member["event"], member["trial"]) != ("finished", worse):
            continue
        run = client.get_run(member["run_id"])
        assert "expectile" in run.data.tags["iql_ray.schedule"]
        points = client.get_metric_history(member["run_id"], "settings/expectile")
        assert [point.value for point in sorted(points, key=lambda point: point.step)] == [
            member["expectile"],
            change.settings["expectile"],
        ]
        agent, _ = load_agent(storage / member["run_id"])
        assert agent.population.expectiles == (change.settings["expectile"],)
