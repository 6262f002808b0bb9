"""A prepared dataset read back as whole episodes in order, some of them held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iql_ray.evaluation.logged_episodes import LoggedEpisodes, read_episodes
from tests.data.examples import example
from tests.distributed.examples import tiny_columns
from tests.evaluation.fqe_examples import logged, prepared


@pytest.fixture
def two_episodes(tmp_path: Path) -> LoggedEpisodes:
    """`tests.data.examples.example`: rows 0-2 terminate, rows 3-4 are cut."""
    columns = {**example(), "actions": example()["actions"] / 2}
    return read_episodes(prepared(tmp_path, columns), held_out_share=0.5, max_rows=100, seed=0)


def test_episodes_come_back_whole_and_in_order(two_episodes: LoggedEpisodes):
    assert two_episodes.starts.tolist() == [0, 3, 5]
    assert two_episodes.rewards.tolist() == [1, 2, 3, 4, 5]
    assert two_episodes.observations[:, 0].tolist() == [0, 1, 2, 10, 11]
    assert two_episodes.next_observations[:, 1].tolist() == [10, 20, 30, 10, 20]
    assert two_episodes.actions[:, 0].tolist() == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert two_episodes.episodes.tolist() == [0, 0, 0, 1, 1]
    assert two_episodes.is_truncated.tolist() == [False, True]


def test_the_last_row_of_a_cut_episode_has_no_next_action(two_episodes: LoggedEpisodes):
    assert two_episodes.has_next_action.tolist() == [True, True, True, True, False]
    assert two_episodes.next_actions[two_episodes.has_next_action, 0].tolist() == [-0.25, 0.0, 0.25, 0.5]


def test_returns_to_go_stop_at_the_end_of_their_episode(two_episodes: LoggedEpisodes):
    """1 + 2/2 + 3/4, 2 + 3/2, 3 | 4 + 5/2, 5."""
    assert two_episodes.returns_to_go(0.5).tolist() == [2.75, 3.5, 3.0, 6.5, 5.0]


def test_one_of_two_episodes_is_held_out_whatever_the_share(two_episodes: LoggedEpisodes):
    assert sorted(two_episodes.is_held_out.tolist()) == [False, True]


def test_a_share_of_the_episodes_is_held_out_by_seed(tmp_path: Path):
    dataset = prepared(tmp_path, tiny_columns(500))
    first, again, other = (logged(dataset, seed).is_held_out for seed in (0, 0, 1))
    assert first.sum() == 10
    assert first.tolist() == again.tolist() != other.tolist()


def test_a_row_budget_keeps_whole_episodes(tmp_path: Path):
    dataset = prepared(tmp_path, tiny_columns(500))
    everything, some = logged(dataset), logged(dataset, max_rows=105)
    assert (everything.num_episodes, some.num_episodes) == (50, 10)
    assert np.diff(some.starts).tolist() == [10] * 10
    places = [
        np.flatnonzero((everything.observations == each).all(1))[0] for each in some.observations[some.starts[:-1]]
    ]
    assert all(place % 10 == 0 for place in places)
    rewards = np.concatenate([everything.rewards[place : place + 10] for place in places])
    assert rewards.tolist() == some.rewards.tolist()


def test_two_episodes_are_read_however_long(tmp_path: Path):
    assert logged(prepared(tmp_path, tiny_columns(100)), max_rows=3).num_episodes == 2


def test_one_episode_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"has 1 episodes; .* needs at least 2"):
        logged(prepared(tmp_path, tiny_columns(10)))
