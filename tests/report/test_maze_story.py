"""The story's rows show what was learned, and its sentences say what was earned, good or bad."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from iql_ray.envs.umaze_data import maze_data
from iql_ray.evaluation.maze_comparison import MazeComparison, compare
from iql_ray.evaluation.maze_study import Estimate, MazeStudy
from iql_ray.report.maze_figure import draw_maze_figure
from iql_ray.report.maze_story import lucky_panel, maze_row
from tests.evaluation.maze_examples import grid, learned_exactly

IQL = [("implicit", 0.5), ("implicit", 0.9), ("implicit", 0.95)]
CRITICS = {
    "paper": [*IQL, ("sarsa", 0.5), ("single-q", 0.9), ("td", 0.9)],
    "narrow": [*IQL, ("td", 0.9)],
    "lucky": [("implicit", 0.95), ("single-q", 0.95)],
}


def compared(name: str) -> MazeComparison:
    study = MazeStudy(data=maze_data(name))
    best_tenth = learned_exactly(study, grid([("implicit", 0.9)], [0.0]))
    return compare(study, learned_exactly(study, grid(CRITICS[name])), best_tenth)


@pytest.fixture(scope="module")
def comparisons() -> dict[str, MazeComparison]:
    return {name: compared(name) for name in CRITICS}


def earning(comparison: MazeComparison, name: str, mean: float) -> MazeComparison:
    """The same, but for what one method earns."""
    outcome = replace(comparison.outcomes[name], earned=Estimate(mean, mean, mean))
    return replace(comparison, outcomes={**comparison.outcomes, name: outcome})


def test_a_row_shows_the_rivals_then_iql_at_each_expectile(comparisons):
    row = maze_row(comparisons["paper"])
    titles = [each.title for each in row.maps]
    assert titles[:5] == ["Behaviour", "SARSA", "TD with max", "Single-Q 0.9", "V*, exact"]
    assert titles[5:] == ["IQL 0.5", "IQL 0.9", "IQL 0.95"]
    assert max(len(each.saying_lines) for each in row.maps) <= 2
    assert (row.best, row.ceiling) == (pytest.approx(0.572, abs=5e-4), pytest.approx(9.7, abs=0.05))


def test_a_map_has_each_cells_value_in_its_place(comparisons):
    comparison = comparisons["paper"]
    exact = maze_row(comparison).maps[4]
    values, maze = comparison.study.optimal_values, comparison.study.data.maze
    assert exact.values[0, 0] == values[maze.start_state] == exact.earned
    assert exact.values[8, 4] == values[maze.state_of[8, 4]]
    assert exact.ceilings is not None
    assert np.isnan(exact.values).sum() == np.isnan(exact.ceilings).sum() == 81 - 46
    assert exact.arrows[8, 4] == 1


def test_the_sentence_above_says_what_was_earned(comparisons):
    finding = maze_row(earning(comparisons["paper"], "iql-0.5", 0.0)).finding
    assert finding == "From 1 good and 99 random trajectories: IQL earns 0.57 of 0.57, one-step learning 0.00"
    failed = comparisons["paper"]
    for name in ("iql-0.5", "iql-0.9", "iql-0.95"):
        failed = earning(failed, name, 0.01)
    assert "IQL earns 0.01 of 0.57, one-step learning 0.01" in maze_row(failed).finding


def test_td_is_said_to_do_fine_only_where_it_does(comparisons):
    saying = maze_row(comparisons["narrow"]).maps[0].saying
    assert saying == "135 of 180 actions unseen: fine here"
    assert maze_row(earning(comparisons["narrow"], "td", 0.1)).maps[0].saying.endswith("unseen: trusts them")


def test_curves_are_learned_sampled_and_exact_and_references_name_the_rest(comparisons):
    row = maze_row(comparisons["paper"])
    assert [curve.label for curve in row.curves] == ["IQL, most likely action", "IQL, sampled", "exact solution"]
    assert row.curves[0].returns == pytest.approx(np.interp([0.5, 0.9, 0.95], *_points(row.curves[2])))
    assert row.references.keys() == {"V*", "BC", "10% BC", "TD", "best data"}
    assert row.references["best data"] == pytest.approx(0.203, abs=5e-4)


def _points(curve):
    return curve.expectiles, curve.returns


def test_narrow_data_need_one_line_of_maps_and_one_curve(comparisons):
    row = maze_row(comparisons["narrow"])
    assert [each.title for each in row.maps] == ["TD with max", "IQL 0.5", "IQL 0.9", "IQL 0.95", "V*, exact"]
    assert [curve.label for curve in row.curves] == ["IQL, most likely action"]
    assert "best data" not in row.references


def test_the_foot_shows_who_goes_for_the_luck(comparisons):
    panel = lucky_panel(comparisons["lucky"])
    assert panel.finding == "Luck that no action brings about: IQL earns 7.37 of 7.37, single-Q 4.40"
    assert [each.saying for each in panel.maps] == ["goes for the luck", "goes for the goal"]
    assert [each.lucky for each in panel.maps] == [(0, 0), (0, 0)]
    single, implicit = panel.methods
    assert single.probability[0] > 0.9 > 0.1 > implicit.probability[0]


def test_the_story_is_drawn(comparisons):
    rows = [maze_row(comparisons[name]) for name in ("paper", "narrow")]
    figure = draw_maze_figure(rows, lucky_panel(comparisons["lucky"]))
    assert sum(text.get_text().count("IQL earns") for text in figure.texts) == 3
