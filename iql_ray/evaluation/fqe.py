"""A verdict on policies from a prepared dataset alone: fitted Q evaluation, and where not to trust it.

The behaviour policy, which made the data, is evaluated first and in the same way (SARSA: pi(s') is what was done
next); every other policy's Q goes on from there. Members see the same episodes and minibatches in both, so that their
difference is sharper than either.

    episodes   |<------- to learn from ------->|<- held out ->|
                member k: drawn with replacement   first observations s0: the estimate is the mean of Q_k(s0, pi(s0))

A truncation does not end the task: values are of going on for ever, in raw rewards, at the given discount. It runs no
environment and needs no Ray; the equations are `algorithm/fqe.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from iql_ray.algorithm.denormals import flushed_denormals
from iql_ray.algorithm.fqe import (
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
from iql_ray.evaluation.episodes import policy_spaces
from iql_ray.evaluation.fqe_inputs import FQEInputs
from iql_ray.evaluation.fqe_warnings import warnings_of
from iql_ray.evaluation.logged_episodes import LoggedEpisodes, read_episodes
from iql_ray.evaluation.statistics import bootstrap_interval
from iql_ray.experience import Spaces
from iql_ray.policy import Policy
from iql_ray.seeding import child_seed

CONFIDENCE = 0.95
RANGE_TOLERANCE = 0.1
"""Of the returns' standard deviation: a value this far out of range is still none that rewards rule out."""


class FittedQEvaluator:
    """Evaluates any number of policies on one dataset.

    Args:
        logged: the episodes, some of them held out.
        config: what a fit spends.
        discount: in [0, 1).
        seed: of everything drawn; equal seeds give equal numbers on one machine.

    Raises:
        ValueError: a discount outside [0, 1).
    """

    def __init__(
        self,
        logged: LoggedEpisodes,
        config: FQEConfig,
        *,
        discount: float,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0.0 <= discount < 1.0:
            raise ValueError(f"discount is {discount}, expected a number in [0, 1)")
        self.logged, self.config, self.discount, self.seed = logged, config, discount, seed
        self._device = torch.device(device)
        self._inputs = FQEInputs(logged, self._device)
        self._returns = logged.returns_to_go(discount)
        rows = self._inputs.training_rows
        self._scale = ValueScale.of(
            torch.from_numpy(self._returns[rows]),
            torch.from_numpy(logged.rewards[rows]),
            discount,
            has_terminations=bool(logged.terminations[rows].any()),
        )

    def evaluate(self, policy: Policy, temperature: float = 0.0) -> dict[str, Any]:
        """The verdict on a policy, as plain JSON types.

        Args:
            temperature: as in `Policy.act`. Discrete policies are evaluated by their probabilities, exactly; of a
                Gaussian one above 0, eight actions per state are drawn.

        Returns:
            value, value_ci: the mean discounted value of held-out first observations, its 95% interval.
            behaviour_value, behaviour_ci: of what made the data, in the same way.
            improvement, improvement_ci: the difference, member by member.
            logged_return, logged_return_ci: of all episodes, discounted, as they were logged; truncated_share of them
                were cut, truncated_weight is the mean weight discount^length of what would have followed.
            discount, temperature, num_episodes (held out), num_training_episodes, num_rows (learned from).
            disagreement, drift: standard deviation of the members' values, and how far the mean moved in the last
                fifth of the updates, both over the standard deviation of returns-to-go.
            remaining_share: how much of a wrong start is still in the estimate, see `algorithm.fqe.remaining_share`.
            policy_unsupported_share, data_unsupported_share, policy_distance: see `ActionSupport`.
            out_of_range_share: held-out values beyond what rewards can add up to.
            warnings: what speaks against trusting it, as {kind, message}.

        Raises:
            ValueError: the policy does not fit the dataset.
        """
        return self.judge(policy, temperature)[0]

    def judge(self, policy: Policy, temperature: float = 0.0) -> tuple[dict[str, Any], np.ndarray]:
        """The verdict, and the values that it rests on: (members, held-out episodes).

        Values of two policies are paired: member by member, they learned from the same episodes with the same seed.
        """
        self.check(policy)
        behaviour, behaviour_values = self._behaviour
        inputs, generator = self._inputs, np.random.default_rng(child_seed(self.seed, "fqe", "actions"))
        after = inputs.policy_after(policy, inputs.training_rows, temperature, generator)
        initial = inputs.policy_at(policy, inputs.initial_rows, temperature, generator)
        fitted = self._fit(inputs.training_rows, after, initial, behaviour.ensemble)
        values = fitted.ensemble.values(initial).cpu().numpy()
        support = inputs.support(policy, temperature, generator)
        verdict = {
            **estimate("value", "value_ci", values),
            **estimate("behaviour_value", "behaviour_ci", behaviour_values),
            **estimate("improvement", "improvement_ci", values - behaviour_values),
            **self._logged_returns,
            "discount": self.discount,
            "temperature": temperature,
            "num_episodes": len(inputs.initial_rows),
            "num_training_episodes": self.logged.num_episodes - len(inputs.initial_rows),
            "num_rows": len(inputs.training_rows),
            "disagreement": float(values.mean(1).std(ddof=1)) / self._scale.spread,
            "drift": _drift(fitted) / self._scale.spread,
            "remaining_share": remaining_share(self.config, self.discount),
            **vars(support),
            "out_of_range_share": _out_of_range_share(values, self._scale),
        }
        return {**verdict, "warnings": warnings_of(verdict, self._scale)}, values

    @cached_property
    def _behaviour(self) -> tuple[Fit, np.ndarray]:
        """Q of what made the data, and its (members, held-out episodes) values; fitted once."""
        inputs = self._inputs
        rows, initial = inputs.continued_rows, inputs.logged_at(inputs.initial_rows)
        fitted = self._fit(rows, inputs.logged_after(rows), initial, None)
        return fitted, fitted.ensemble.values(initial).cpu().numpy()

    @cached_property
    def _logged_returns(self) -> dict[str, Any]:
        logged = self.logged
        returns, lengths = self._returns[logged.starts[:-1]], np.diff(logged.starts)
        weights = self.discount ** lengths[logged.is_truncated].astype(np.float64)
        return {
            "logged_return": float(returns.mean()),
            "logged_return_ci": list(bootstrap_interval(returns)),
            "truncated_share": float(logged.is_truncated.mean()),
            "truncated_weight": float(weights.mean()) if len(weights) else 0.0,
        }

    def _fit(self, rows: np.ndarray, after: torch.Tensor, initial: PolicyAt, start: QEnsemble | None) -> Fit:
        """Fit to these rows; a fit that goes on from another sees the same bootstrap."""
        num_training = int((~self.logged.is_held_out).sum())
        episodes = self._inputs.training_episodes(rows)
        bootstrap = EpisodeBootstrap(episodes, num_training, self.config.fqe_members, self.seed)
        spaces = self.logged.manifest.spaces
        ensemble = QEnsemble(spaces, self.config, self._scale, self.seed, self._device, start)
        packed = PackedTransitions(self._inputs.transitions(rows), after)
        with flushed_denormals():
            return fit(ensemble, packed, bootstrap, initial, config=self.config, discount=self.discount)

    def check(self, policy: Policy) -> None:
        """Refuse a policy that acts in other spaces.

        Raises:
            ValueError: names both.
        """
        got, expected = policy_spaces(policy), self.logged.manifest.spaces
        sizes, boxes = zip(
            *((_sizes(each), (each.action_low, each.action_high)) for each in (got, expected)), strict=True
        )
        if sizes[0] != sizes[1] or not np.allclose(*boxes):
            raise ValueError(
                f"the policy acts in {got}, the dataset has {expected}; give data of the policy's own kind"
            )


def _sizes(spaces: Spaces) -> tuple[int | None, ...]:
    return spaces.observation_dim, spaces.action_dim, spaces.num_actions


def fqe_summary(evaluator: FittedQEvaluator, policy: Policy) -> dict[str, Any]:
    """A verdict as a training run records it, beside what `statistics.summarize` says where there is an environment.

    Returns:
        The verdict, and under the names by which checkpoints are ranked and shown: return_mean and return_ci, which are
        discounted here, and num_episodes, those held out.
    """
    verdict = evaluator.evaluate(policy)
    return {"return_mean": verdict["value"], "return_ci": verdict["value_ci"], "method": "fqe", **verdict}


def fitted_evaluation(
    dataset: str | Path, config: FQEConfig, discount: float, seed: int
) -> Callable[[Policy], dict[str, Any]]:
    """From a policy to its `fqe_summary`; the dataset is read at the first one, and serves all."""

    @cache
    def evaluator() -> FittedQEvaluator:
        logged = read_episodes(
            dataset, held_out_share=config.fqe_held_out_share, max_rows=config.fqe_max_rows, seed=seed
        )
        return FittedQEvaluator(logged, config, discount=discount, seed=seed)

    return lambda policy: fqe_summary(evaluator(), policy)


def estimate(name: str, interval_name: str, values: np.ndarray) -> dict[str, Any]:
    """Mean and 95% interval of (members, episodes) values.

    Each member is a whole estimate from resampled episodes, so the members' spread is the estimate's standard error;
    the first observations add theirs. Few members: Student's t.
    """
    num_members, num_episodes = values.shape
    mean = float(values.mean())
    variance = values.mean(1).var(ddof=1) * (1 + 1 / num_members)
    if num_episodes > 1:
        variance += values.mean(0).var(ddof=1) / num_episodes
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, num_members - 1) * np.sqrt(variance))
    return {name: mean, interval_name: [mean - reach, mean + reach]}


def _out_of_range_share(values: np.ndarray, scale: ValueScale) -> float:
    """Of values beyond the limits by more than a network's own error."""
    tolerance = RANGE_TOLERANCE * scale.spread
    return float(((values < scale.low - tolerance) | (values > scale.high + tolerance)).mean())


def _drift(fitted: Fit) -> float:
    """How far the estimate moved in the last fifth of the updates."""
    means = fitted.curve.mean(1)
    return float((means[-1] - means[(4 * len(means)) // 5 - 1]).abs())
