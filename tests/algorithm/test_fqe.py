"""Fitted Q evaluation on the chain of `test_chain.py`, whose values are known for every policy.

    state 0 --right--> 1 --right--> 2 --right--> end, reward 1         left, from anywhere: end, reward 0

Going right with probability p is worth p in state 2, p^2 discount in 1, p^3 discount^2 in 0.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from iql_ray.algorithm.fqe import (
    CURVE_POINTS,
    EpisodeBootstrap,
    Fit,
    PackedTransitions,
    PolicyAt,
    QEnsemble,
    ValueScale,
    fit,
    remaining_share,
)
from iql_ray.algorithm.fqe_config import FQEConfig
from iql_ray.experience import Spaces, TransitionBatch
from tests.algorithm.test_chain import DISCOUNT, STATES, chain

BOX = Spaces(observation_dim=3, action_dim=1, action_low=(-1.0,), action_high=(1.0,))
CHOICES = Spaces(observation_dim=3, action_dim=1, num_actions=2)
COPIES = 20
NUM_ROWS = 6 * COPIES
CONFIG = FQEConfig(
    fqe_members=3,
    fqe_updates=400,
    fqe_batch_size=64,
    fqe_hidden_sizes=(32, 32),
    fqe_learning_rate=5e-3,
    fqe_target_rate=0.2,
)
SCALE = ValueScale(center=0.0, spread=1.0, low=0.0, high=1.0 / (1 - DISCOUNT))


def copies(spaces: Spaces) -> TransitionBatch:
    """Every transition of the chain, each an episode of its own; right is +0.5 in the box, or the choice 1."""
    batch = chain().map(lambda tensor: tensor.repeat(COPIES, *[1] * (tensor.dim() - 1)))
    return replace(batch, actions=(batch.actions > 0).float()) if spaces.is_discrete else batch


def fitted(spaces: Spaces, choice: Tensor, config: FQEConfig = CONFIG, seed: int = 0, **changes: Tensor) -> Fit:
    """Of the policy that does `choice`, (samples, width), in every state."""
    ensemble = QEnsemble(spaces, config, SCALE, seed)
    packed = PackedTransitions(replace(copies(spaces), **changes), choice.unsqueeze(1).expand(-1, NUM_ROWS, -1))
    bootstrap = EpisodeBootstrap(torch.arange(NUM_ROWS), NUM_ROWS, config.fqe_members, seed)
    return fit(ensemble, packed, bootstrap, states(choice), config=config, discount=DISCOUNT)


def states(choice: Tensor) -> PolicyAt:
    return PolicyAt(observations=STATES, choices=choice.unsqueeze(1).expand(-1, 3, -1))


def values_of(spaces: Spaces, choice: Tensor) -> list[float]:
    return fitted(spaces, choice).ensemble.values(states(choice)).mean(0).tolist()


def expected(probability: float) -> list[float]:
    return [probability**3 * DISCOUNT**2, probability**2 * DISCOUNT, probability]


@pytest.mark.parametrize(("action", "probability"), [(0.5, 1.0), (-0.5, 0.0)])
def test_a_box_policy_is_worth_what_the_chain_says(action: float, probability: float):
    assert values_of(BOX, torch.tensor([[action]])) == pytest.approx(expected(probability), abs=0.04)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_discrete_policy_is_worth_its_exact_expectation(probability: float):
    choice = torch.tensor([[1 - probability, probability]])
    assert values_of(CHOICES, choice) == pytest.approx(expected(probability), abs=0.04)


def test_a_policy_that_draws_is_worth_the_mean_over_its_draws():
    """Right in one of two draws: a fair coin."""
    assert values_of(BOX, torch.tensor([[0.5], [-0.5]])) == pytest.approx(expected(0.5), abs=0.04)


def test_equal_seeds_give_equal_numbers_and_others_do_not():
    choice, short = torch.tensor([[0.5]]), replace(CONFIG, fqe_updates=30)
    first, again, other = (fitted(BOX, choice, short, seed).ensemble.target.values for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_members_start_and_end_apart():
    members = fitted(BOX, torch.tensor([[0.5]]), replace(CONFIG, fqe_updates=30)).ensemble.values(
        states(torch.tensor([[0.5]]))
    )
    assert members.shape == (3, 3)
    assert members.std(0).min() > 0


def test_the_curve_ends_with_the_estimate():
    choice = torch.tensor([[0.5]])
    result = fitted(BOX, choice, replace(CONFIG, fqe_updates=50))
    assert result.curve.shape == (CURVE_POINTS, 3)
    assert torch.equal(result.curve[-1], result.ensemble.values(states(choice)).mean(-1))


def test_a_fit_goes_on_from_another():
    choice = torch.tensor([[0.5]])
    first = fitted(BOX, choice, replace(CONFIG, fqe_updates=30)).ensemble
    following = QEnsemble(BOX, CONFIG, SCALE, seed=5, start=first)
    assert torch.equal(following.values(states(choice)), first.values(states(choice)))
    assert following.critic.values.data_ptr() != first.critic.values.data_ptr()


def test_targets_stay_within_what_rewards_can_add_up_to():
    """A termination that never comes and a reward of 1 for ever: 10 at discount 0.9, however wrong Q is meanwhile."""
    ensemble = QEnsemble(BOX, CONFIG, SCALE, seed=0)
    ensemble.target.values.mul_(100.0)
    batch = copies(BOX).map(lambda tensor: tensor.expand(3, *tensor.shape))
    targets = ensemble._targets(batch, torch.full((3, NUM_ROWS, 1), 0.5), DISCOUNT)
    assert targets.min() >= 0.0
    assert targets.max() <= 1.0 / (1 - DISCOUNT)


def test_units_do_not_matter():
    """Rewards 1000 times as large, in units 1000 times as large: the same numbers, 1000 times as large."""
    large = ValueScale(center=0.0, spread=1000.0, low=0.0, high=1000.0 / (1 - DISCOUNT))
    choice, short = torch.tensor([[0.5]]), replace(CONFIG, fqe_updates=20)
    plain = fitted(BOX, choice, short).ensemble.values(states(choice))
    ensemble = QEnsemble(BOX, short, large, seed=0)
    scaled = replace(copies(BOX), rewards=copies(BOX).rewards * 1000)
    packed = PackedTransitions(scaled, choice.unsqueeze(1).expand(-1, NUM_ROWS, -1))
    bootstrap = EpisodeBootstrap(torch.arange(NUM_ROWS), NUM_ROWS, 3, 0)
    fit(ensemble, packed, bootstrap, states(choice), config=short, discount=DISCOUNT)
    assert torch.allclose(ensemble.values(states(choice)), 1000 * plain, rtol=1e-3, atol=1e-1)


def test_the_range_of_values_follows_from_the_rewards():
    """Discount 0.9, rewards 1 and 2: 10 to 20 for ever; what may end after one step is worth 1 at least."""
    returns, rewards = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])
    endless = ValueScale.of(returns, rewards, 0.9, has_terminations=False)
    ending = ValueScale.of(returns, rewards, 0.9, has_terminations=True)
    assert (endless.center, endless.spread) == (2.0, 1.0)
    assert (endless.low, endless.high) == pytest.approx((10.0, 20.0))
    assert (ending.low, ending.high) == pytest.approx((1.0, 20.0))


def test_equal_returns_still_have_a_unit():
    assert ValueScale.of(torch.ones(3), torch.ones(3), 0.0, has_terminations=True).spread == 1.0


def test_every_member_draws_whole_episodes_of_its_own():
    """Ten episodes of three rows: a member that has one row of an episode has all three, equally often."""
    episodes = torch.arange(10).repeat_interleave(3)
    bootstrap = EpisodeBootstrap(episodes, 10, num_members=4, seed=0)
    counts = [torch.bincount(rows, minlength=30).view(10, 3) for rows in bootstrap._rows]
    for each in counts:
        assert (each == each[:, :1]).all()
        assert each.sum() == 30
    assert len({tuple(each[:, 0].tolist()) for each in counts}) == 4
    drawn = bootstrap.draw(64)
    assert drawn.shape == (4, 64)
    assert all(set(drawn[member].tolist()) <= set(bootstrap._rows[member].tolist()) for member in range(4))


def test_fewer_rows_of_the_same_episodes_are_drawn_from_the_same_episodes():
    episodes = torch.arange(10).repeat_interleave(3)
    whole, thinned = (EpisodeBootstrap(each, 10, 2, seed=3) for each in (episodes, episodes[::3]))
    for all_rows, some_rows in zip(whole._rows, thinned._rows, strict=True):
        assert set(episodes[all_rows].tolist()) == set(episodes[::3][some_rows].tolist())


def test_a_long_horizon_needs_more_updates():
    """Rate 0.2, discount 0.9: 50 updates are one time constant; at 0.99 they are a tenth of one."""
    short = replace(CONFIG, fqe_updates=50)
    assert remaining_share(short, 0.9) == pytest.approx(0.3679, abs=1e-4)
    assert remaining_share(short, 0.99) == pytest.approx(0.9048, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fqe_members": 1}, "fqe_members = 1: expected at least 2"),
        ({"fqe_updates": 0}, "fqe_updates = 0"),
        ({"fqe_hidden_sizes": ()}, "fqe_hidden_sizes"),
        ({"fqe_learning_rate": float("nan")}, "fqe_learning_rate = nan"),
        ({"fqe_target_rate": 0.0}, "fqe_target_rate = 0.0"),
        ({"fqe_held_out_share": 1.0}, "fqe_held_out_share = 1.0"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        FQEConfig(**changes)
