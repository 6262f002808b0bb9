"""All methods on one of the maze's datasets, by name, and what is said of them in numbers.

bc, 10%bc        the data's own actions imitated, of all episodes and of the best tenth
sarsa            the value of the behaviour, as one-step methods have it
iql-0.9          implicit Q-learning at that expectile; at 0.5 it is one step too
single-q-0.9     the expectile on the critic's own target, luck included
td               acts by its critic's maximum over all actions, as Q-learning does
td-weighted      the same critic, its policy drawn from the data's actions as IQL's is
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iql_ray.algorithm.iql_config import CriticObjective, Member
from iql_ray.envs.maze_map import ACTIONS
from iql_ray.evaluation.maze_study import Estimate, Learned, MazeStudy, Outcome, Overestimate

CLONING, TENTH_CLONING, GREEDY_TD = "bc", "10%bc", "td"
LUCKY_ACTION = ACTIONS.index("left")
"""In the lucky map's start: towards the cell where the wind blows; the goal lies to the right."""
OVERESTIMATING: tuple[CriticObjective, ...] = ("td", "single-q")
"""Critics that can promise more than any policy earns, other than by an error of learning."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MazeComparison:
    """One dataset: its exact solutions, and what each method made of it."""

    study: MazeStudy
    outcomes: Mapping[str, Outcome]
    """By the names above."""
    expectiles: tuple[float, ...]
    """Of IQL, in their order."""
    value_errors: Mapping[float, Estimate]
    """Of IQL by expectile: mean |V - exact V| over visited states, as a share of V*'s maximum."""
    overestimates: Mapping[str, Mapping[str, Overestimate | None]]
    """By critic: over `all_actions`, and `outside_data` alone."""
    lucky_choices: Mapping[str, Estimate] = field(default_factory=dict)
    """How likely a method goes for the luck; of the lucky map alone."""

    @property
    def best_expectile(self) -> float:
        """Of IQL, by what its policy really earns."""
        return max(self.expectiles, key=lambda expectile: self.outcomes[iql(expectile)].earned.mean)

    def plain(self) -> dict[str, Any]:
        """By measure, as JSON types; empty or None where a dataset has no such measure."""
        return {
            "returns": {name: _plain_outcome(outcome) for name, outcome in self.outcomes.items()},
            "v_star_start": self.study.best,
            "value_error": {f"{expectile:g}": error.mean for expectile, error in self.value_errors.items()},
            "td_overestimate": self._plain_overestimates("td"),
            "single_q_overestimate": self._plain_overestimates("single-q"),
            "lucky_choice": {
                name: {"probability": choice.mean, "interval": [choice.low, choice.high]}
                for name, choice in self.lucky_choices.items()
            },
        }

    def _plain_overestimates(self, critic: str) -> dict[str, Any]:
        return {where: _plain_overestimate(found) for where, found in self.overestimates.get(critic, {}).items()}


def iql(expectile: float) -> str:
    """The name of implicit Q-learning at an expectile."""
    return f"iql-{expectile:g}"


def method_name(member: Member) -> str:
    """The name of the method that a member trains."""
    if member.inverse_temperature == 0:
        return CLONING
    if member.critic == "implicit":
        return iql(member.expectile)
    if member.critic == "single-q":
        return f"single-q-{member.expectile:g}"
    return {"sarsa": "sarsa", "td": "td-weighted"}[member.critic]


def compare(study: MazeStudy, learned: Learned, best_tenth: Learned | None = None) -> MazeComparison:
    """Measure every method that a run has trained.

    Args:
        learned: of a run whose members share all seeds; policies of inverse temperature 0 are all the same cloning.
        best_tenth: of a run that cloned the best tenth of the episodes.
    """
    methods: dict[str, Member] = {}
    for member in learned.members:
        methods.setdefault(method_name(member), member)
    outcomes = {name: study.outcome(learned, member) for name, member in methods.items()}
    if "td-weighted" in methods:
        outcomes[GREEDY_TD] = study.greedy_outcome(learned)
    if best_tenth is not None:
        outcomes[TENTH_CLONING] = study.outcome(best_tenth, best_tenth.members[0])
    expectiles = tuple(member.expectile for name, member in methods.items() if name == iql(member.expectile))
    return MazeComparison(
        study=study,
        outcomes=outcomes,
        expectiles=expectiles,
        value_errors={expectile: study.value_error(learned, expectile) for expectile in expectiles},
        overestimates=_overestimates(study, learned),
        lucky_choices=_lucky_choices(study, learned, methods),
    )


def _overestimates(study: MazeStudy, learned: Learned) -> dict[str, dict[str, Overestimate | None]]:
    critics = {member.critic for member in learned.members}
    return {
        critic: {
            "all_actions": study.overestimate(learned, critic, outside_data=False),
            "outside_data": study.overestimate(learned, critic, outside_data=True),
        }
        for critic in OVERESTIMATING
        if critic in critics
    }


def _lucky_choices(study: MazeStudy, learned: Learned, methods: Mapping[str, Member]) -> dict[str, Estimate]:
    if study.data.maze.lucky_cell is None:
        return {}
    return {name: study.choice(learned, member, LUCKY_ACTION) for name, member in methods.items()}


def _plain_outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "return": outcome.earned.mean,
        "interval": [outcome.earned.low, outcome.earned.high],
        "sampled_return": outcome.sampled.mean,
        "sampled_interval": [outcome.sampled.low, outcome.sampled.high],
    }


def _plain_overestimate(found: Overestimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"num_actions": found.num_actions, "mean": found.mean.mean, "highest": found.highest.mean}
