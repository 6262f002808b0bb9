"""Following where environments stand: the actions of the unfinished episode, and no others."""

from __future__ import annotations

import numpy as np

from iql_ray.envs.collecting import EnvironmentSet
from iql_ray.envs.standing import StandKeeper
from iql_ray.experience import Stand
from tests.envs.collecting_toys import CountingEnv
from tests.evaluation.toys import zero_policy


def test_actions_are_kept_until_their_episode_ends():
    keeper, environments = StandKeeper(), EnvironmentSet(lambda: CountingEnv(5), [3], seed=0)
    collected = [environments.collect(zero_policy(), 0, num_steps) for num_steps in (2, 2, 1, 7)]
    lengths = []
    for block in collected:
        keeper.follow(block)
        (stand,) = keeper.stands([3])
        assert stand.actions is not None
        lengths.append((stand.episode, len(stand.actions)))
    # 2 and 4 steps of the first; nothing of the second; the third after 12 steps of episodes of 5.
    assert lengths == [(0, 2), (0, 4), (1, 0), (2, 2)]
    np.testing.assert_array_equal(stand.actions, collected[-1].experience.actions[-2:])


def test_an_environment_nobody_has_heard_of_is_new():
    assert StandKeeper().stands([1, 2]) == (Stand(environment=1), Stand(environment=2))


def test_a_moved_environment_has_no_actions():
    keeper = StandKeeper([Stand(environment=0, actions=np.ones((2, 1), np.float32))])
    keeper.move(Stand(environment=0, episode=1))
    assert keeper.stands([0]) == (Stand(environment=0, episode=1),)
