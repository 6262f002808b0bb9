"""A population's networks in flat buffers that last as long as the agent, moved by Adam in place.

What an update does with them is `update_rule.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.algorithm.networks import EnsembleMLP, FlatParameters, Workspace, named_views

TRAINED = ("value", "policy", "critic")
"""Networks with an optimiser; the target critic follows by Polyak averaging."""

AverageGradients = Callable[[Tensor], None]
"""Replaces a flat gradient buffer by its mean over all learners, in place."""


class HeldNetworks:
    """Every network in a flat buffer; policy and critic share one for gradients, so that one average does.

    Args:
        initial: parameters by network and name; they are copied.
        average: called on each flat gradient before its optimiser step, where there are several learners.
    """

    def __init__(
        self, initial: Mapping[str, Mapping[str, Tensor]], config: IQLConfig, average: AverageGradients | None
    ) -> None:
        sizes = [sum(tensor.numel() for tensor in initial[name].values()) for name in ("policy", "critic")]
        like = next(iter(initial["policy"].values()))
        gradients = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
        policy_gradients, critic_gradients = gradients.split(sizes)
        self.parameters = {
            "value": FlatParameters(initial["value"]),
            "policy": FlatParameters(initial["policy"], policy_gradients),
            "critic": FlatParameters(initial["critic"], critic_gradients),
            "target_critic": FlatParameters(initial["critic"]),
        }
        self._gradients: dict[tuple[str, ...], Tensor] = {(name,): self.parameters[name].gradients for name in TRAINED}
        self._gradients["policy", "critic"] = gradients
        self.num_layers, workspace = len(config.hidden_sizes) + 1, Workspace()
        self.value, self.policy, self.critic, self.target = (
            EnsembleMLP(each, self.num_layers, workspace) for each in self.parameters.values()
        )
        self.config = config
        self.average = average
        self.optimisers = {name: self._adam(self.parameters[name]) for name in TRAINED}

    def step(self, *names: str, policy_learning_rate: float = 0.0) -> None:
        """Along the average of their gradients over the learners: one average of what lies together."""
        if self.average is not None:
            self.average(self._gradients[names])
        self.optimisers["policy"].param_groups[0]["lr"] = policy_learning_rate
        for name in names:
            self.optimisers[name].step()
        if "critic" in names:
            target, critic = self.parameters["target_critic"], self.parameters["critic"]
            target.values.lerp_(critic.values, self.config.target_update_rate)

    def adopt(self, name: str, source: HeldNetworks, members: Sequence[int]) -> None:
        """Member k of a network becomes member `members[k]` of the source's, its optimiser's moments too."""
        for own, theirs in zip(self._by_member(name), source._by_member(name), strict=True):
            own.copy_(theirs[list(members)])
        if name in TRAINED:
            self.moments(name)["step"].copy_(source.moments(name)["step"])

    def moments(self, name: str) -> dict[str, Tensor]:
        """Adam's state of a network: exp_avg and exp_avg_sq, flat, and step."""
        (moments,) = self.optimisers[name].state.values()
        return moments

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name: networks, target, optimiser moments and steps; the live ones."""
        state = {
            f"{network}.{name}": view
            for network in (*TRAINED, "target_critic")
            for name, view in self.parameters[network].views.items()
        }
        for network in TRAINED:
            state |= {f"optimiser.{network}.{key}": value for key, value in self.moments(network).items()}
        return state

    def _by_member(self, name: str) -> Iterator[Tensor]:
        """A network's parameters, and its moments where it has some, each (members, ...)."""
        views = self.parameters[name].views
        yield from views.values()
        shapes = {each: view.shape for each, view in views.items()}
        for key in ("exp_avg", "exp_avg_sq") if name in TRAINED else ():
            yield from named_views(self.moments(name)[key], shapes).values()

    def _adam(self, parameters: FlatParameters) -> torch.optim.Adam:
        """Adam over one flat buffer; a first step on zero gradients moves nothing and creates its state."""
        optimiser = torch.optim.Adam([parameters.values], lr=self.config.learning_rate, fused=True)
        parameters.values.grad = parameters.gradients
        optimiser.step()
        (moments,) = optimiser.state.values()
        moments["step"].zero_()
        return optimiser
