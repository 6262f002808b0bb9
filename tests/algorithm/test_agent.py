"""The agent: one update in the authors' order, its schedule, target and state, and several learners in step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.experience import Spaces, TransitionBatch
from tests.algorithm.plain_iql import SPACES, PlainIQL, random_batch

SMALL = IQLConfig(hidden_sizes=(8, 8), learning_rate=1e-2, target_update_rate=0.1)
Tensors = dict[str, Tensor]


def agent_of(config: IQLConfig = SMALL, **options) -> IQLAgent:
    return IQLAgent(config, SPACES, **{"dtype": torch.float64, "num_updates": 20, **options})


def after(agent: IQLAgent, num_updates: int, first_batch: int = 0) -> Tensors:
    """Copies of its tensors after that many updates, batches numbered from `first_batch`."""
    dtype = agent.tensors()["value.0.weight"].dtype
    for index in range(first_batch, first_batch + num_updates):
        agent.update(random_batch(index, dtype=dtype))
    return {name: value.clone() for name, value in agent.tensors().items()}


def networks_in(tensors: Tensors, *names: str) -> Tensors:
    return {name: value for name, value in tensors.items() if name.split(".")[0] in names}


def are_equal(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, expectile=0.9, inverse_temperature=10.0)])
def test_five_updates_are_those_of_a_plain_implementation(config: IQLConfig):
    """V first; the policy by the target Q and the new V; the critic by the new V; then the target."""
    agent = agent_of(config)
    plain = PlainIQL(agent.tensors(), config, num_updates=20)
    for index in range(5):
        agent.update(random_batch(index))
        plain.update(random_batch(index))
    expected = {"value": [plain.value], "policy": [plain.policy], "critic": plain.twins, "target_critic": plain.targets}
    tensors = agent.tensors()
    for network, members in expected.items():
        for member, layers in enumerate(members):
            for index, layer in enumerate(layers):
                name = f"{network}.{index // 2}.{('weight', 'bias')[index % 2]}"
                torch.testing.assert_close(tensors[name][member], layer.detach(), rtol=1e-10, atol=1e-10, msg=name)
    torch.testing.assert_close(tensors["policy.log_std"][0], plain.log_std.detach(), rtol=1e-10, atol=1e-10)


def test_n_polyak_steps_shrink_the_gap_by_one_minus_the_rate_to_the_n():
    """With a learning rate too small to move a float64, the critic stands and its target comes."""
    agent = agent_of(replace(SMALL, learning_rate=1e-300))
    tensors = agent.tensors()
    tensors["target_critic.0.weight"] += 1.0
    for index in range(7):
        agent.update(random_batch(index))
    gap = tensors["target_critic.0.weight"] - tensors["critic.0.weight"]
    torch.testing.assert_close(gap, torch.full_like(gap, 0.9**7), rtol=1e-12, atol=0)


def test_the_target_begins_as_the_critic_and_the_twins_begin_different():
    tensors = agent_of().tensors()
    assert torch.equal(tensors["target_critic.0.weight"], tensors["critic.0.weight"])
    assert not torch.equal(tensors["critic.0.weight"][0], tensors["critic.0.weight"][1])


def test_the_cosine_schedule_touches_only_the_policy():
    cosine, constant = (after(agent_of(replace(SMALL, policy_schedule=each)), 5) for each in ("cosine", "constant"))
    others = ("value", "critic", "target_critic")
    assert are_equal(networks_in(cosine, *others), networks_in(constant, *others))
    assert not are_equal(networks_in(cosine, "policy"), networks_in(constant, "policy"))


def test_at_the_end_of_the_schedule_the_policy_stands_and_the_critic_goes_on():
    agent = agent_of(num_updates=3)
    at_end = after(agent, 3)
    later = after(agent, 2, first_batch=3)
    assert are_equal(networks_in(at_end, "policy"), networks_in(later, "policy"))
    assert not are_equal(networks_in(at_end, "critic"), networks_in(later, "critic"))


def test_the_policys_first_step_is_a_whole_learning_rate():
    """Adam's first step moves every parameter that has a gradient by the rate itself."""
    agent = agent_of()
    before = agent.tensors()["policy.log_std"].clone()
    agent.update(random_batch(0))
    moved = (agent.tensors()["policy.log_std"] - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, SMALL.learning_rate), rtol=1e-5, atol=0)


def test_behaviour_cloning_does_not_see_the_rewards():
    """At inverse temperature 0 the policy depends on states and actions alone."""

    def policy(reward: float) -> Tensors:
        agent = agent_of(replace(SMALL, inverse_temperature=0.0))
        for index in range(3):
            batch = random_batch(index)
            agent.update(replace(batch, rewards=batch.rewards + reward))
        return {name: value.clone() for name, value in networks_in(agent.tensors(), "policy").items()}

    assert are_equal(policy(0.0), policy(100.0))


def test_float32_and_float64_runs_agree():
    single, double = (after(agent_of(dtype=each), 20) for each in (torch.float32, torch.float64))
    for name in networks_in(double, "value", "policy", "critic", "target_critic"):
        torch.testing.assert_close(single[name].double(), double[name], rtol=1e-4, atol=1e-5, msg=name)


def test_metrics_are_one_number_for_each_critic_or_policy():
    metrics = agent_of().update(random_batch(0))
    assert {"value_loss", "critic_loss", "policy_loss"} <= metrics.keys()
    assert {tuple(value.shape) for value in metrics.values()} == {(1,)}
    assert all(torch.isfinite(value).all() for value in metrics.values())


def test_the_update_that_is_loaded_goes_on_as_if_nothing_had_happened():
    agent = agent_of(replace(SMALL, dropout_rate=0.3))
    tensors = after(agent, 3)
    random_states = {name: state.clone() for name, state in agent.random_states().items()}
    expected = after(agent, 3, first_batch=3)
    other = agent_of(replace(SMALL, dropout_rate=0.3), seed=9)
    other.load(tensors, random_states, 3)
    assert other.update_count == 3
    assert are_equal(after(other, 3, first_batch=3), expected)


def test_tensors_hold_networks_optimisers_and_steps():
    tensors = after(agent_of(), 4)
    assert {name.rsplit(".", 1)[0] for name in tensors if name.startswith("optimiser.")} == {
        "optimiser.value",
        "optimiser.policy",
        "optimiser.critic",
    }
    assert [float(tensors[f"optimiser.{name}.step"]) for name in ("value", "policy", "critic")] == [4.0, 4.0, 4.0]


@pytest.mark.parametrize(
    ("hidden_sizes", "message"), [((8, 9), r"has shape"), ((8,), r"are not in both"), ((8, 8, 8), r"are not in both")]
)
def test_loading_another_architecture_is_refused_and_changes_nothing(hidden_sizes: tuple[int, ...], message: str):
    other, agent = agent_of(replace(SMALL, hidden_sizes=hidden_sizes), seed=5), agent_of()
    before = after(agent, 1)
    with pytest.raises(ValueError, match=f"another architecture: .*{message}"):
        agent.load(other.tensors(), other.random_states(), 10)
    assert agent.update_count == 1
    assert are_equal({name: value.clone() for name, value in agent.tensors().items()}, before)


def test_a_discrete_policy_has_logits_and_no_log_std():
    agent = IQLAgent(SMALL, Spaces(observation_dim=3, action_dim=1, num_actions=4))
    weights = agent.policy_weights()
    assert weights["logits.weight"].shape == (SMALL.hidden_sizes[-1], 4)
    assert "log_std" not in weights
    assert not any(name.endswith("log_std") for name in agent.tensors())


def test_policy_weights_act_as_the_network_does():
    agent = agent_of(dtype=torch.float32)
    weights = agent.policy_weights()
    assert set(weights) == {
        *(f"{layer}.{kind}" for layer in ("hidden.0", "hidden.1", "mean") for kind in ("weight", "bias")),
        "log_std",
    }
    assert all(value.dtype == torch.float32 for value in weights.values())
    assert np.array_equal(weights["mean.weight"].numpy(), agent.tensors()["policy.2.weight"][0].numpy())


def test_dropout_masks_differ_between_learners_and_not_between_runs():
    config = replace(SMALL, dropout_rate=0.5)
    first, again, other = (networks_in(after(agent_of(config, rank=rank), 1), "policy") for rank in (0, 0, 1))
    assert are_equal(first, again)
    assert not are_equal(first, other)


class MeanOfTwo:
    """Averages over two threads that call it in step: what an all-reduce does over two processes."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=30)
        self._buffers: dict[int, Tensor] = {}

    def of_rank(self, rank: int) -> Callable[[Tensor], None]:
        def average(gradients: Tensor) -> None:
            self._buffers[rank] = gradients.clone()
            self._barrier.wait()
            mean = (self._buffers[0] + self._buffers[1]) / 2
            self._barrier.wait()
            gradients.copy_(mean)

        return average


def half(batch: TransitionBatch, rank: int) -> TransitionBatch:
    return batch.map(lambda tensor: tensor.chunk(2)[rank])


def test_two_learners_on_half_batches_equal_one_on_the_whole():
    mean = MeanOfTwo()
    learners = [agent_of(rank=rank, average_gradients=mean.of_rank(rank)) for rank in (0, 1)]

    def work(rank: int) -> None:
        for index in range(20):
            learners[rank].update(half(random_batch(index), rank))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = after(agent_of(), 20)
    first, second = (learner.tensors() for learner in learners)
    assert are_equal(first, second)
    for name, value in whole.items():
        torch.testing.assert_close(first[name], value, rtol=1e-8, atol=1e-10, msg=name)
