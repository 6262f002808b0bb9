"""From the maze's comparisons to the picture's rows: which maps stand where, and what is said above them.

Every sentence with a result in it is made from that result, so that a picture of a bad run says so. How maps and curves
are drawn is `value_maps.py` and `return_panels.py`, where they stand `maze_figure.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from iql_ray.envs.maze_map import MazeMap
from iql_ray.envs.tabular import action_values
from iql_ray.evaluation.maze_comparison import CLONING, GREEDY_TD, TENTH_CLONING, MazeComparison, iql
from iql_ray.evaluation.maze_study import Estimate
from iql_ray.report.maze_figure import LuckyPanel, MazeRow
from iql_ray.report.return_panels import LuckyMethod, ReturnCurve
from iql_ray.report.value_maps import ValueMap

ONE_STEP = iql(0.5)
EXACT_EXPECTILES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
"""Enough for a smooth curve of what perfect learning earns."""
FINE_SHARE = 0.9
"""Of the best return: whose policy earns it was not misled."""
INVERSE_TEMPERATURE = 10.0
"""Of the exact policies, as in recipe umaze."""
IQL_SAYINGS = {0.5: "one step, as SARSA", 0.99: "nearly the maximum over seen actions"}
NARROW_SAYINGS = {0.5: "asks for no action it has not seen"}
LUCKY_EXPLANATION = (
    "Right leads to the goal (10). Left leads to the diamond, where a rare wind (5%) carries the agent to a reward of"
    " 20 whatever it does. Single-Q takes its expectile over outcomes too, as if the wind could be chosen; IQL only"
    " over actions."
)


def maze_row(comparison: MazeComparison) -> MazeRow:
    """The row of a dataset on the big maze: all critics, or where the data are narrow, TD and IQL alone."""
    study = comparison.study
    maps = _narrow_maps(comparison) if _is_narrow(comparison) else _all_maps(comparison)
    return MazeRow(
        finding=_finding(comparison),
        maps=maps,
        curves=_curves(comparison),
        references=_references(comparison),
        best=study.best,
        ceiling=float(study.optimal_values.max()),
    )


def lucky_panel(comparison: MazeComparison) -> LuckyPanel:
    """The foot of the picture: single-Q and IQL at one expectile on the lucky map."""
    names = {"single-q-0.95": "Single-Q 0.95", iql(0.95): "IQL 0.95"}
    outcomes = comparison.outcomes
    single, implicit = (outcomes[name].earned.mean for name in names)
    return LuckyPanel(
        finding=(
            f"Luck that no action brings about: IQL earns {implicit:.2f} of {comparison.study.best:.2f},"
            f" single-Q {single:.2f}"
        ),
        explanation=LUCKY_EXPLANATION,
        choice="probability of going left, for the luck",
        # the bars say what is earned: the little wall between the arms has no room for it
        maps=[replace(_lucky_map(comparison, name, title), earned=None) for name, title in names.items()],
        methods=[
            LuckyMethod(label=title, probability=comparison.lucky_choices[name], earned=outcomes[name].earned)
            for name, title in names.items()
        ],
        best=comparison.study.best,
    )


def _is_narrow(comparison: MazeComparison) -> bool:
    return comparison.study.data.maze.name == "narrow"


def _lucky_map(comparison: MazeComparison, name: str, title: str) -> ValueMap:
    is_lured = comparison.lucky_choices[name].mean > 0.5
    return _learned_map(comparison, name, title, "goes for the luck" if is_lured else "goes for the goal")


def _finding(comparison: MazeComparison) -> str:
    """What the data are, and what IQL and its rival earn from them."""
    outcomes, best = comparison.outcomes, comparison.study.best
    data, rival, rivals_name = {
        "paper": ("From 1 good and 99 random trajectories", ONE_STEP, "one-step learning"),
        "stitching": ("No trajectory goes all the way", ONE_STEP, "one-step learning"),
        "narrow": ("One action of each cell in the data", GREEDY_TD, "TD's maximum"),
    }[comparison.study.data.maze.name]
    implicit = outcomes[iql(comparison.best_expectile)].earned.mean
    return f"{data}: IQL earns {implicit:.2f} of {best:.2f}, {rivals_name} {outcomes[rival].earned.mean:.2f}"


def _all_maps(comparison: MazeComparison) -> list[ValueMap]:
    """Five that are compared with, and under them IQL at each expectile."""
    others = [
        _behaviour_map(comparison),
        _learned_map(comparison, "sarsa", "SARSA", "stays at the behaviour's value"),
        _td_map(comparison),
        _learned_map(comparison, "single-q-0.9", "Single-Q 0.9", "counts lucky moves too: see the foot"),
        _best_map(comparison),
    ]
    return [*others, *_iql_maps(comparison, IQL_SAYINGS)]


def _narrow_maps(comparison: MazeComparison) -> list[ValueMap]:
    return [_td_map(comparison), *_iql_maps(comparison, NARROW_SAYINGS), _best_map(comparison)]


def _iql_maps(comparison: MazeComparison, sayings: Mapping[float, str]) -> list[ValueMap]:
    return [
        _learned_map(comparison, iql(expectile), f"IQL {expectile:g}", sayings.get(expectile, ""))
        for expectile in comparison.expectiles
    ]


def _td_map(comparison: MazeComparison) -> ValueMap:
    """The maximum over all actions is what TD believes and what it acts by; fine where nearly all were seen."""
    study = comparison.study
    num_actions = study.is_action.sum()
    num_unseen = num_actions - study.is_shown.sum()
    is_fine = comparison.outcomes[GREEDY_TD].earned.mean >= FINE_SHARE * study.best
    saying = f"{num_unseen} of {num_actions} actions unseen: {'fine here' if is_fine else 'trusts them'}"
    return _learned_map(comparison, GREEDY_TD, "TD with max", saying)


def _learned_map(comparison: MazeComparison, name: str, title: str, saying: str) -> ValueMap:
    outcome = comparison.outcomes[name]
    return _map(comparison, title, saying, outcome.values, outcome.actions, outcome.earned.mean)


def _behaviour_map(comparison: MazeComparison) -> ValueMap:
    study = comparison.study
    no_actions = np.full(len(study.behaviour_values), -1)
    earned = float(study.behaviour_values[study.start])
    return _map(comparison, "Behaviour", "exact value of what the data do", study.behaviour_values, no_actions, earned)


def _best_map(comparison: MazeComparison) -> ValueMap:
    study = comparison.study
    actions = action_values(study.model, study.optimal_values).argmax(axis=1)
    return _map(comparison, "V*, exact", "the best that can be done", study.optimal_values, actions, study.best)


def _map(
    comparison: MazeComparison, title: str, saying: str, values: np.ndarray, actions: np.ndarray, earned: float
) -> ValueMap:
    maze = comparison.study.data.maze
    return ValueMap(
        title=title,
        saying=saying,
        values=_on_grid(maze, values, np.nan),
        arrows=_on_grid(maze, actions, -1),
        start=maze.start,
        goal=maze.goal,
        lucky=maze.lucky_cell,
        ceilings=_on_grid(maze, comparison.study.optimal_values, np.nan),
        earned=earned,
    )


def _on_grid(maze: MazeMap, of_states: np.ndarray, of_walls: float) -> np.ndarray:
    """(size, size) from (S,)."""
    grid = np.full((maze.size, maze.size), of_walls, np.asarray(of_states).dtype)
    grid[tuple(np.array(maze.cells).T)] = of_states
    return grid


def _curves(comparison: MazeComparison) -> list[ReturnCurve]:
    """What IQL earns at its most likely action, sampled, and by perfect learning of the same data.

    Narrow data have one action a cell, so that the last two are the first.
    """
    study, expectiles = comparison.study, comparison.expectiles
    outcomes = [comparison.outcomes[iql(expectile)] for expectile in expectiles]
    earned = _curve("IQL, most likely action", expectiles, [outcome.earned for outcome in outcomes])
    if _is_narrow(comparison):
        return [earned]
    sampled = _curve("IQL, sampled", expectiles, [outcome.sampled for outcome in outcomes])
    exact = [study.earned(study.exact_policy(expectile, INVERSE_TEMPERATURE)) for expectile in EXACT_EXPECTILES]
    return [earned, sampled, ReturnCurve(label="exact solution", expectiles=EXACT_EXPECTILES, returns=exact)]


def _curve(label: str, expectiles: Sequence[float], estimates: Sequence[Estimate]) -> ReturnCurve:
    means, lower, upper = zip(*estimates, strict=True)
    return ReturnCurve(label=label, expectiles=expectiles, returns=means, lower=lower, upper=upper)


def _references(comparison: MazeComparison) -> dict[str, float]:
    """What the curves are held against; on narrow data, whose best trajectory was lucky, TD and not that."""
    names = {CLONING: "BC", TENTH_CLONING: "10% BC", GREEDY_TD: "TD"}
    references = {"V*": comparison.study.best}
    references |= {
        label: comparison.outcomes[name].earned.mean for name, label in names.items() if name in comparison.outcomes
    }
    if not _is_narrow(comparison):
        references["best data"] = comparison.study.best_data
    return references
