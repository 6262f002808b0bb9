"""How far a policy's actions are from the data's, on a handful of states that can be counted."""

from __future__ import annotations

import pytest
import torch

from iql_ray.algorithm.action_support import box_support, discrete_support, nearest_rows


def test_the_nearest_rows_are_found():
    among = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
    assert nearest_rows(torch.tensor([[0.4], [5.9]]), among, 2).tolist() == [[0, 1], [3, 2]]


def test_more_neighbours_than_rows_are_all_rows():
    assert nearest_rows(torch.zeros(3, 1), torch.zeros(2, 1), 5).shape == (3, 2)


def test_a_discrete_action_that_no_similar_state_saw_is_unsupported():
    """Two states; action 2 was never taken in the first, actions 0 and 1 never in the second."""
    nearest = torch.tensor([[[0.0], [1.0]], [[2.0], [2.0]]])
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    support = discrete_support(nearest, probabilities, torch.tensor([[0.0], [1.0]]))
    assert support.policy_unsupported_share == pytest.approx((0.25 + 1.0) / 2)
    assert support.data_unsupported_share == pytest.approx(0.5)
    assert support.policy_distance is None


def test_a_box_action_further_than_the_datas_own_is_unsupported():
    """The data's own actions are 0.1 from their nearest; the policy's are 0.05 from it in one state, 1 in the other."""
    nearest = torch.zeros(2, 3, 1)
    support = box_support(nearest, torch.tensor([[0.05], [1.0]]), torch.tensor([[0.1], [-0.1]]))
    assert support.policy_unsupported_share == 0.5
    assert support.data_unsupported_share == 0.0
    assert support.policy_distance == pytest.approx(0.525 / 0.1)


def test_the_datas_own_actions_are_as_near_as_themselves():
    generator = torch.Generator().manual_seed(0)
    nearest, own = torch.rand(400, 5, 2, generator=generator), torch.rand(400, 2, generator=generator)
    support = box_support(nearest, own, own)
    assert support.policy_distance == pytest.approx(1.0)
    assert support.policy_unsupported_share == support.data_unsupported_share == pytest.approx(0.05, abs=0.01)
