"""The update rule compiled: products, losses, gradients, Adam and the target's step, fused where it pays.

    one learner         gradients of V, V's step, gradients of policy and critic, all steps: one graph
    several learners    gradients of V  | average |  V's step, gradients of policy and critic  | average |  all steps

It computes on the very tensors of the held networks, so an agent can change between both from one update to the next.
What no graph can hold is outside: the masks of dropout are made before, and averages are taken between graphs.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from iql_ray.algorithm.held_networks import TRAINED, AverageGradients, HeldNetworks
from iql_ray.algorithm.networks import MakeMask
from iql_ray.algorithm.traced_networks import AdamScales, State, TracedNetworks
from iql_ray.algorithm.update_rule import UpdateRule
from iql_ray.experience import TransitionBatch

Precision = Literal["float32", "tf32", "bf16"]
"""Of the factors of matrix products; tf32 is a switch of the whole process, on a GPU."""

COMPILERS = ("g++", "clang++", "c++")


def check_compilable() -> None:
    """Refuse to compile where nothing can.

    Raises:
        ValueError: no C++ compiler on PATH; says what to do.
    """
    if not any(map(shutil.which, COMPILERS)):
        raise ValueError(
            f"the update cannot be compiled: no C++ compiler on PATH ({', '.join(COMPILERS)}); use --compile off"
        )


class CompiledUpdate:
    """One update of the held networks; compiled at its first call, which takes some ten seconds.

    Where the compiler fails (no headers, no room on the disk, ...), that call warns, and it and all others run plain.

    Args:
        make_mask: of the policy's dropout; None: no unit is dropped.
        precision: bf16 rounds the factors of all matrix products to bfloat16; parameters, their sums and everything
            else stay as they are.
    """

    def __init__(
        self,
        rule: UpdateRule,
        networks: HeldNetworks,
        make_mask: MakeMask | None = None,
        precision: Precision = "float32",
    ) -> None:
        self._rule, self._networks, self._make_mask = rule, networks, make_mask
        self._config, self._num_layers = networks.config, networks.num_layers
        self._shapes = {
            name: {each: view.shape for each, view in parameters.views.items()}
            for name, parameters in networks.parameters.items()
        }
        self._state: State = {
            name: {"values": parameters.values.detach(), **(networks.moments(name) if name in TRAINED else {})}
            for name, parameters in networks.parameters.items()
        }
        values = self._state["value"]["values"]
        self._products = torch.bfloat16 if precision == "bf16" else values.dtype
        self._moved = [*(["value"] if rule.moves_value else []), *rule.moved_together]
        rate = networks.config.learning_rate
        self._learning_rates = torch.full((len(TRAINED),), rate, dtype=torch.float64, device=values.device)
        from torch._inductor import config as inductor  # heavy, and most agents are never compiled

        inductor.compile_threads = 1  # a pool of compilers would stay in memory, several hundred megabytes of it
        stages = (self._whole, self._until_value, self._until_others, self._others)
        compiled = [torch.compile(stage, fullgraph=True, dynamic=False) for stage in stages]
        self._compiled: Sequence[Callable[..., Any]] = compiled
        self._works: bool | None = None

    @property
    def is_one_graph(self) -> bool:
        """Whether it has been compiled, and nothing leaves the device in its middle: it can be captured."""
        return bool(self._works) and self._networks.average is None

    def __call__(self, batch: TransitionBatch, policy_learning_rate: float | Tensor) -> dict[str, Tensor]:
        """See `UpdateRule`; a rate on the device, (), is never read by the CPU."""
        self._learning_rates[TRAINED.index("policy")].fill_(policy_learning_rate)
        if self._works is None:
            self._works = self._try(batch)
        if not self._works:
            return self._rule(self._networks, batch, float(policy_learning_rate))
        return self._run(self._state, batch, self._masks(batch, self._make_mask), self._networks.average)

    def _try(self, batch: TransitionBatch) -> bool:
        """Compile, by an update of copies: whether that worked is known before anything has moved or been averaged."""
        copies = {name: {key: value.clone() for key, value in tensors.items()} for name, tensors in self._state.items()}
        average = self._networks.average and (lambda gradients: None)
        try:
            self._run(copies, batch, self._masks(batch, self._make_mask and torch.ones_like), average)
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException  # heavy

            if not isinstance(error, TorchDynamoException):
                raise
            reason = " ".join(str(error).split("\n")[:2])
            warnings.warn(f"the update could not be compiled and runs plain: {reason}", RuntimeWarning, stacklevel=3)
            return False
        return True

    def _run(
        self, state: State, batch: TransitionBatch, masks: Sequence[Tensor], average: AverageGradients | None
    ) -> dict[str, Tensor]:
        whole, until_value, until_others, others = self._compiled
        scales = self._counted_step(state)
        if average is None:
            return whole(state, batch, masks, scales)
        metrics, target_values, gradients = until_value(state, batch)
        if gradients is not None:
            average(gradients)
        more_metrics, other_gradients = until_others(state, batch, masks, scales, target_values, gradients)
        average(other_gradients)
        others(state, other_gradients, scales)
        return metrics | more_metrics

    def _counted_step(self, state: State) -> AdamScales:
        """Count a step of every network that moves."""
        for name in self._moved:
            state[name]["step"].add_(1)
        steps = torch.stack([state[name]["step"] for name in TRAINED]).double()
        return AdamScales.of(steps, self._learning_rates, state["value"]["values"].dtype)

    def _whole(
        self, state: State, batch: TransitionBatch, masks: Sequence[Tensor], scales: AdamScales
    ) -> dict[str, Tensor]:
        return self._rule(self._traced(state, masks, scales), batch, 0.0)

    def _until_value(self, state: State, batch: TransitionBatch) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        networks = self._traced(state)
        metrics, target_values = self._rule.value_gradients(networks, batch)
        return metrics, target_values, networks.gradients("value") if self._rule.moves_value else None

    def _until_others(
        self,
        state: State,
        batch: TransitionBatch,
        masks: Sequence[Tensor],
        scales: AdamScales,
        target_values: Tensor,
        gradients: Tensor | None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        networks = self._traced(state, masks, scales)
        if gradients is not None:
            networks.take_gradients(gradients, "value")
            networks.step("value")
        metrics = self._rule.other_gradients(networks, batch, target_values)
        return metrics, networks.gradients(*self._rule.moved_together)

    def _others(self, state: State, gradients: Tensor, scales: AdamScales) -> None:
        networks, names = self._traced(state, scales=scales), self._rule.moved_together
        networks.take_gradients(gradients, *names)
        networks.step(*names)

    def _traced(self, state: State, masks: Sequence[Tensor] = (), scales: AdamScales | None = None) -> TracedNetworks:
        return TracedNetworks(state, self._shapes, self._num_layers, self._config, self._products, masks, scales)

    def _masks(self, batch: TransitionBatch, make_mask: MakeMask | None) -> list[Tensor]:
        """Of each hidden layer of the policy, in the order in which the plain update draws them."""
        if make_mask is None or "policy" not in self._rule.moved_together:
            return []
        biases = [self._shapes["policy"][f"{layer}.bias"] for layer in range(self._num_layers - 1)]
        batch_size, like = batch.rewards.shape[-1], self._state["policy"]["values"]
        return [make_mask(like.new_empty((members, batch_size, units))) for members, units in biases]
