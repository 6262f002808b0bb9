"""From a search's configuration to its trials: which members each trains. Starts nothing, imports no Ray.

seeds 0 1   expectiles .7 .9   inverse temperatures 1 3 10       12 members, 4 critics
12 a trial  [0: .7 .9  1: .7 .9]                                 one trial
 6 a trial  [0: .7 .9] [1: .7 .9]                                a seed each
 3 a trial  [0: .7] [0: .9] [1: .7] [1: .9]                      a critic each, with all its policies
 asha       [0 1: .7] [0 1: .9]                                  an expectile each, with all its seeds
 pbt        one configuration each, with all its seeds           six trials
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from iql_ray import config as config_io
from iql_ray.distributed.search_config import MAX_MEMBERS, Axis, Range, SearchConfig
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.evaluation.leaderboard import Configuration
from iql_ray.seeding import child_seed

Values = TypeVar("Values")
Varied = tuple[tuple[str, Any], ...]
"""The varied settings of a trial, by dotted path."""

DATA_SETTINGS = ("transforms.", "top_episode_share")
"""Settings that begin so change the rows."""
SIGNIFICANT_DIGITS = 4
"""Of a sampled number: as many as a person can read, and write into a configuration again."""


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """The members that one trial trains side by side."""

    seeds: tuple[int, ...]
    expectiles: tuple[float, ...]
    inverse_temperatures: tuple[float, ...]
    varied: Varied = ()

    @property
    def name(self) -> str:
        """Of its folder: the same for the same members, whenever they are planned."""
        text = json.dumps(config_io.to_dict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def num_members(self) -> int:
        return len(self.seeds) * len(self.expectiles) * len(self.inverse_temperatures)

    def configuration(self, expectile: float, inverse_temperature: float) -> Configuration:
        """A member's, without its seed."""
        return Configuration(expectile=expectile, inverse_temperature=inverse_temperature, varied=self.varied)


MemberKey = tuple[str, int, float, float]
"""Which member of which trial: the trial's name, seed, expectile, inverse temperature."""


def member_key(trial: str, named: Mapping[str, Any]) -> MemberKey:
    """Of a member as histories and records name it."""
    return trial, named["seed"], named["expectile"], named["inverse_temperature"]


def member_keys(spec: TrialSpec) -> list[MemberKey]:
    """Of all members of a trial."""
    members = itertools.product(spec.seeds, spec.expectiles, spec.inverse_temperatures)
    return [(spec.name, *member) for member in members]


def planned_trials(config: SearchConfig, members_per_trial: int) -> tuple[TrialSpec, ...]:
    """Every trial of a grid, or of a random search; Optuna chooses its own one by one."""
    if config.search == "random":
        generator = random.Random(child_seed(config.seed, "search"))
        samples = [_sample(config, generator) for _ in range(config.num_samples)]
        return tuple(dict.fromkeys(samples))
    specs = []
    for varied in _combinations(config.axes):
        specs += [replace(spec, varied=varied) for spec in _packed(config, members_per_trial)]
    return tuple(specs)


def members_per_trial(config: SearchConfig, device: str, num_slots: int) -> int:
    """As many as a learner holds well, fewer where trials would leave places in the cluster empty.

    Args:
        device: cpu or cuda.
        num_slots: trials that the cluster has room for at a time.
    """
    if config.members_per_trial is not None:
        return config.members_per_trial
    num_combinations = math.prod(len(axis) for axis in config.axes.values() if not isinstance(axis, Range))
    num_members = config.population.num_policies * num_combinations
    return max(1, min(MAX_MEMBERS[device], math.ceil(num_members / num_slots)))


def data_key(varied: Varied) -> Varied:
    """The settings among those varied that change the rows."""
    return tuple(item for item in varied if item[0].startswith(DATA_SETTINGS))


def data_keys(config: SearchConfig, planned: Sequence[TrialSpec]) -> set[Varied]:
    """Of these trials; where none are planned, of all that there can be."""
    if planned:
        return {data_key(spec.varied) for spec in planned}
    return {data_key(varied) for varied in _combinations(config.axes)}


def trial_config(config: SearchConfig, spec: TrialSpec) -> TrainConfig:
    """The training configuration of a trial, all its members."""
    train = train_config(config)
    changed = config_io.override(train, dict(spec.varied)) if spec.varied else train
    return replace(
        changed,
        seeds=spec.seeds,
        expectiles=spec.expectiles,
        inverse_temperatures=spec.inverse_temperatures,
        critics=(config.agent.critic,) * len(spec.expectiles),
        eval_method=config.evaluation_method,
        register_as=None,
    )


def train_config(config: SearchConfig) -> TrainConfig:
    """The part of a search that is a training configuration."""
    return TrainConfig(**{field.name: getattr(config, field.name) for field in fields(TrainConfig)})


def member_config(config: SearchConfig, configuration: Configuration, seed: int) -> TrainConfig:
    """What `iql-ray train` takes to train one member alone."""
    train = train_config(config)
    changed = config_io.override(train, dict(configuration.varied)) if configuration.varied else train
    agent = replace(
        changed.agent, expectile=configuration.expectile, inverse_temperature=configuration.inverse_temperature
    )
    return replace(changed, agent=agent, seed=seed, seeds=(), expectiles=(), inverse_temperatures=(), critics=())


def sampled_axes(config: SearchConfig) -> dict[str, Axis]:
    """What a sample is drawn from: the expectile, every varied setting, and of pbt the inverse temperature too."""
    expectiles: Axis = config.expectiles or (config.agent.expectile,)
    if config.expectile_range is not None:
        expectiles = Range(low=config.expectile_range[0], high=config.expectile_range[1])
    temperatures = {"inverse_temperature": config.population.inverse_temperatures}
    return {"expectile": expectiles, **(temperatures if config.scheduler == "pbt" else {}), **config.axes}


def sampled_spec(config: SearchConfig, sample: Mapping[str, Any]) -> TrialSpec:
    """The trial of one sample: all seeds, and unless it was sampled all inverse temperatures, hang on its expectile."""
    axes = sampled_axes(config)
    settings = {name: rounded(value) if isinstance(axes[name], Range) else value for name, value in sample.items()}
    temperature = settings.pop("inverse_temperature", None)
    return TrialSpec(
        seeds=config.population.seeds,
        expectiles=(settings.pop("expectile"),),
        inverse_temperatures=config.population.inverse_temperatures if temperature is None else (temperature,),
        varied=tuple(sorted(settings.items())),
    )


def _sample(config: SearchConfig, generator: random.Random) -> TrialSpec:
    return sampled_spec(config, {name: draw(axis, generator) for name, axis in sampled_axes(config).items()})


def draw(axis: Axis, generator: random.Random) -> Any:
    """One value by chance."""
    if not isinstance(axis, Range):
        return generator.choice(axis)
    if axis.is_logarithmic:
        return math.exp(generator.uniform(math.log(axis.low), math.log(axis.high)))
    return generator.uniform(axis.low, axis.high)


def rounded(value: float) -> float:
    """To the significant digits of a sampled number."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _combinations(axes: dict[str, Axis]) -> Iterator[Varied]:
    """Every combination of the varied settings' values; one empty one where nothing is varied."""
    values = [axis for axis in axes.values() if not isinstance(axis, Range)]
    for combination in itertools.product(*values):
        yield tuple(sorted(zip(axes, combination, strict=True)))


def _packed(config: SearchConfig, members: int) -> list[TrialSpec]:
    """The grid of seeds and expectiles in trials of about so many members, each with all inverse temperatures."""
    population = config.population
    seeds, expectiles, temperatures = population.seeds, population.expectiles, population.inverse_temperatures
    if config.scheduler == "pbt":
        pairs = itertools.product(expectiles, temperatures)
        return [TrialSpec(seeds=seeds, expectiles=(one,), inverse_temperatures=(other,)) for one, other in pairs]
    num_critics = max(1, members // len(temperatures))
    if config.scheduler == "asha":  # a configuration is judged over its seeds, and leaves with all of them
        groups = [(seeds, (expectile,)) for expectile in expectiles]
    elif num_critics >= len(expectiles):
        groups = [(chunk, expectiles) for chunk in _chunks(seeds, num_critics // len(expectiles))]
    else:
        groups = [((seed,), chunk) for seed in seeds for chunk in _chunks(expectiles, num_critics)]
    return [
        TrialSpec(seeds=of_seeds, expectiles=of_expectiles, inverse_temperatures=temperatures)
        for of_seeds, of_expectiles in groups
    ]


def _chunks(values: Sequence[Values], size: int) -> list[tuple[Values, ...]]:
    """As equal as they can be, none larger than `size`."""
    num_chunks = math.ceil(len(values) / size)
    bounds = [len(values) * index // num_chunks for index in range(num_chunks + 1)]
    return [tuple(values[start:stop]) for start, stop in itertools.pairwise(bounds)]
