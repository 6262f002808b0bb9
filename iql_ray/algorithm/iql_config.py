"""What an IQL run is: its hyperparameters, and which members a population of runs has. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

CriticObjective = Literal["implicit", "sarsa", "single-q", "td"]
"""What the critic learns; `critics.py` has the equations."""
NEXT_ACTION_OBJECTIVES: tuple[CriticObjective, ...] = ("sarsa", "single-q")
"""Those that bootstrap from the action that the data took next."""


@dataclass(frozen=True, kw_only=True)
class IQLConfig:
    """Hyperparameters of implicit Q-learning (Kostrikov et al. 2021); the defaults are the paper's for locomotion."""

    expectile: float = 0.7
    """Expectile tau in (0, 1): 0.5 evaluates the behaviour policy, towards 1 approaches the best action in the data."""
    critic: CriticObjective = "implicit"
    """What the critic learns: implicit Q-learning, or one of the objectives that the paper compares it with: sarsa
    (the value of the behaviour policy), single-q (the expectile directly on the critic's target, luck included), td (a
    maximum over all actions, those outside the data included; discrete actions only)."""
    inverse_temperature: float = 3.0
    """Inverse temperature beta >= 0 of the policy's advantage weights; 0 is behaviour cloning."""
    discount: float = 0.99
    """Discount gamma in [0, 1)."""
    target_update_rate: float = 0.005
    """Share of the critic that moves into its target at every update, in (0, 1]."""
    learning_rate: float = 3e-4
    """Adam's rate for all three networks."""
    policy_schedule: Literal["cosine", "constant"] = "cosine"
    """The policy's rate decays to 0 over the run (the paper, offline) or stays (online)."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Units of each hidden layer of every network."""
    dropout_rate: float = 0.0
    """Share of hidden units of the policy dropped in training (the paper: 0.1 for kitchen and adroit)."""

    def __post_init__(self) -> None:
        _require(0.0 < self.expectile < 1.0, "expectile", self.expectile, "a number in (0, 1)")
        kinds = get_args(CriticObjective)
        _require(self.critic in kinds, "critic", self.critic, f"one of {', '.join(kinds)}")
        is_temperature = math.isfinite(self.inverse_temperature) and self.inverse_temperature >= 0.0
        _require(is_temperature, "inverse_temperature", self.inverse_temperature, "a finite number >= 0")
        _require(0.0 <= self.discount < 1.0, "discount", self.discount, "a number in [0, 1)")
        _require(0.0 < self.target_update_rate <= 1.0, "target_update_rate", self.target_update_rate, "in (0, 1]")
        is_rate = math.isfinite(self.learning_rate) and self.learning_rate > 0.0
        _require(is_rate, "learning_rate", self.learning_rate, "a finite number > 0")
        _require(0.0 <= self.dropout_rate < 1.0, "dropout_rate", self.dropout_rate, "a number in [0, 1)")
        is_sized = bool(self.hidden_sizes) and all(size > 0 for size in self.hidden_sizes)
        _require(is_sized, "hidden_sizes", self.hidden_sizes, "one or more sizes > 0")


class Member(NamedTuple):
    """One whole agent of a population."""

    seed: int
    expectile: float
    inverse_temperature: float
    critic: CriticObjective = "implicit"


@dataclass(frozen=True, kw_only=True)
class Population:
    """The grid of agents that one run trains side by side.

    Axes are ordered (seed, expectile, inverse temperature), the last fastest. The critic never depends on the
    policy, so there is one critic per (seed, expectile), however many inverse temperatures hang on it:

        seeds (0, 1), expectiles (.7, .9), inverse temperatures (1, 3, 10)
        critics   0:(0,.7)       1:(0,.9)       2:(1,.7)       3:(1,.9)
        policies  0  1  2        3  4  5        6  7  8        9  10 11
    """

    seeds: tuple[int, ...]
    expectiles: tuple[float, ...]
    inverse_temperatures: tuple[float, ...]
    critics: tuple[CriticObjective, ...] = ()
    """What the critic of each expectile learns, as many as there are expectiles; empty: implicit Q-learning all."""

    def __post_init__(self) -> None:
        is_paired = len(self.objectives) == len(self.expectiles)
        _require(is_paired, "critics", self.critics, f"none, or one for each of the expectiles {self.expectiles}")
        axes = {
            "seeds": self.seeds,
            "expectiles": tuple(zip(self.expectiles, self.objectives, strict=True)),
            "inverse_temperatures": self.inverse_temperatures,
        }
        for name, values in axes.items():
            _require(len(values) > 0 and len(set(values)) == len(values), name, values, "one or more different values")
        for member in self.members():
            IQLConfig(expectile=member.expectile, inverse_temperature=member.inverse_temperature, critic=member.critic)

    @classmethod
    def of_one(cls, config: IQLConfig, seed: int) -> Population:
        """The population that an ordinary run is."""
        return cls(
            seeds=(seed,),
            expectiles=(config.expectile,),
            inverse_temperatures=(config.inverse_temperature,),
            critics=(config.critic,),
        )

    @property
    def objectives(self) -> tuple[CriticObjective, ...]:
        """What the critic of each expectile learns."""
        return self.critics or ("implicit",) * len(self.expectiles)

    @property
    def needs_next_actions(self) -> bool:
        """Whether a critic bootstraps from the action that the data took next."""
        return any(objective in NEXT_ACTION_OBJECTIVES for objective in self.objectives)

    @property
    def num_critics(self) -> int:
        return len(self.seeds) * len(self.expectiles)

    @property
    def num_policies(self) -> int:
        return self.num_critics * len(self.inverse_temperatures)

    def members(self) -> list[Member]:
        """Every agent, in the order of the policies' leading axis."""
        return [
            Member(seed, expectile, inverse_temperature, critic)
            for seed in self.seeds
            for expectile, critic in zip(self.expectiles, self.objectives, strict=True)
            for inverse_temperature in self.inverse_temperatures
        ]


def _require(is_valid: bool, name: str, value: object, expected: str) -> None:
    if not is_valid:
        raise ValueError(f"{name} = {value}: expected {expected}")
