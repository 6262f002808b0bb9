"""The figure of fine-tuning shows what was evaluated, the offline score as the zero point, the drop and its end."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.text import Annotation

from iql_ray.evaluation.online_curve import OnlineCurve
from iql_ray.report.online_figure import TrainingEpisodes, draw_online_figure, neighbour_means, online_figure


def curve(*scores: float) -> OnlineCurve:
    """Evaluated every 1,000 steps, with an interval of 5 to both sides."""
    return OnlineCurve(
        num_env_steps=tuple(1000 * index for index in range(len(scores))),
        scores=scores,
        lower=tuple(score - 5 for score in scores),
        upper=tuple(score + 5 for score in scores),
    )


def draw(*curves: OnlineCurve, training_episodes: TrainingEpisodes | None = None) -> Axes:
    return draw_online_figure(curves, "Pendulum-v1", "return", training_episodes).axes[0]


def texts(axes: Axes) -> set[str]:
    return {text.get_text() for text in axes.texts} - {""}


def num_lines(axes: Axes, heights: tuple[float, ...]) -> int:
    """How many lines go through exactly these heights."""
    return sum(np.array_equal(np.asarray(line.get_ydata(), float), heights) for line in axes.lines)


def test_one_run_is_a_line_with_its_interval_above_or_below_the_offline_score():
    axes = draw(curve(100, 80, 120))
    assert num_lines(axes, (100, 80, 120)) == 1
    (band,) = [each for each in axes.collections if isinstance(each, PolyCollection)]
    assert {75.0, 125.0} <= set(np.asarray(band.get_paths()[0].vertices)[:, 1].tolist())
    (offline,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert set(np.asarray(offline.get_ydata()).tolist()) == {100.0}
    assert {"offline 100", "fine-tuned 120"} <= texts(axes)
    assert axes.get_xlabel() == "environment steps"


def test_the_drop_and_where_it_was_made_good_are_marked():
    axes = draw(curve(100, 80, 60, 110, 120))
    assert {"drop 40", "made good after 3,000 steps"} <= texts(axes)
    (arrow,) = [text for text in axes.texts if isinstance(text, Annotation) and text.get_text() == ""]
    assert (arrow.xy, arrow.xyann) == ((2000, 60), (2000, 100))
    assert num_lines(axes, (110,)) == 1


def test_a_drop_that_lasts_says_so():
    assert "drop 40, not made good" in texts(draw(curve(100, 60, 90)))


def test_where_there_is_no_drop_none_is_marked():
    assert texts(draw(curve(100, 101, 120))) == {"offline 100", "fine-tuned 120", "return; shaded: 95% interval"}


def test_several_seeds_are_their_interquartile_mean_with_each_seed_behind_it():
    axes = draw(curve(0, 10, 40), curve(0, 20, 20), curve(0, 30, 90))
    assert num_lines(axes, (0, 20, 50)) == 1
    for seed in ((0, 10, 40), (0, 20, 20), (0, 30, 90)):
        assert num_lines(axes, seed) == 1
    assert "return; shaded: 95% interval over 3 seeds, line: interquartile mean" in texts(axes)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=6))
def test_everything_that_was_evaluated_is_in_the_picture(scores):
    low, high = draw(curve(*scores)).get_ylim()
    assert low < min(scores) - 5
    assert high > max(scores) + 5


def test_training_episodes_are_a_light_line_of_means_in_full_view():
    episodes = TrainingEpisodes(num_env_steps=[200, 400, 1500], returns=[-300.0, 50.0, 40.0])
    axes = draw(curve(100, 90, 95), training_episodes=episodes)
    assert num_lines(axes, (-300, 50, 40)) == 1
    assert axes.get_ylim()[0] < -300
    assert "exploring 40" in texts(axes)
    assert draw(curve(1, 2), training_episodes=TrainingEpisodes(num_env_steps=[], returns=[]))


def test_many_training_episodes_are_drawn_as_means_of_neighbours():
    steps, returns = neighbour_means(TrainingEpisodes(num_env_steps=range(1, 121), returns=[0.0, 1.0] * 60))
    assert len(steps) == len(returns) == 30
    assert steps[:2] == [2.5, 6.5]
    assert returns[1] == 0.5


def test_training_episodes_that_end_together_are_one_point():
    episodes = TrainingEpisodes(num_env_steps=[100, 100, 200, 200], returns=[0.0, 2.0, 4.0, 6.0])
    assert neighbour_means(episodes) == ([100.0, 200.0], [1.0, 5.0])


def test_training_episodes_that_end_one_after_the_other_in_a_step_of_all_environments_are_one_point():
    episodes = TrainingEpisodes(num_env_steps=[99, 101, 300], returns=[0.0, 2.0, 4.0])
    assert neighbour_means(episodes) == ([100.0, 300.0], [1.0, 4.0])


def test_an_episode_has_one_return():
    with pytest.raises(ValueError, match="got 2 ends and 1 returns"):
        TrainingEpisodes(num_env_steps=[1, 2], returns=[0.0])


def test_no_curve_is_no_picture():
    with pytest.raises(ValueError, match="at least one fine-tuning curve"):
        draw()


@pytest.mark.parametrize("scores", [(1.0,), (100, 80, 120)])
def test_the_picture_is_wide_enough_for_a_page_and_not_blank(tmp_path, scores):
    path = online_figure(tmp_path / "online.png", [curve(*scores)], "Pendulum-v1")
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (675, 1200)
    assert 0.01 < (pixels[..., :3].min(axis=-1) < 0.9).mean() < 0.5
