"""Logged episodes and what policies do in them, as the tensors that fitted Q evaluation takes.

Standardised observations, the agent's actions in [-1, 1], raw rewards. Nothing here learns or estimates anything.
"""

from __future__ import annotations

import numpy as np
import torch

from iql_ray.algorithm.action_support import ActionSupport, box_support, discrete_support, nearest_rows
from iql_ray.algorithm.fqe import PolicyAt
from iql_ray.data.transforms import TransformConfig, Transforms
from iql_ray.evaluation.logged_episodes import LoggedEpisodes
from iql_ray.experience import TransitionBatch
from iql_ray.policy import Policy

NUM_DRAWS = 8
"""Actions drawn per state from a Gaussian policy above temperature 0."""
ROWS_PER_ACT = 65_536
NUM_QUERIES, NUM_REFERENCES = 2_000, 20_000
"""Held-out states at which actions are looked at, and states among which similar ones are looked for."""


class FQEInputs:
    """Rows of logged episodes on a device.

    Args:
        logged: some of them held out.
    """

    def __init__(self, logged: LoggedEpisodes, device: torch.device) -> None:
        self._logged, self._device = logged, device
        self._num_actions = logged.manifest.spaces.num_actions
        self._transforms = Transforms.fit(TransformConfig(normalize_observations=True), logged.manifest)
        is_training = ~logged.is_held_out[logged.episodes]
        self.training_rows = np.flatnonzero(is_training)
        self.held_out_rows = np.flatnonzero(~is_training)
        self.initial_rows = logged.starts[:-1][logged.is_held_out]
        """Where the held-out episodes begin."""

    @property
    def continued_rows(self) -> np.ndarray:
        """Those to learn from after which it is known what was done next; where that is so of none, all of them, as if
        their own action were repeated."""
        rows = self.training_rows[self._logged.has_next_action[self.training_rows]]
        return rows if len(rows) else self.training_rows

    def transitions(self, rows: np.ndarray) -> TransitionBatch:
        """(rows, ...), rewards raw."""
        logged = self._logged
        return TransitionBatch(
            observations=self._observations(logged.observations[rows]),
            actions=self._actions(logged.actions[rows]),
            rewards=self.tensor(logged.rewards[rows]),
            next_observations=self._observations(logged.next_observations[rows]),
            terminations=self.tensor(logged.terminations[rows].astype(np.float32)),
        )

    def training_episodes(self, rows: np.ndarray) -> torch.Tensor:
        """(rows,) which of the episodes to learn from each row is of, 0, 1, ..."""
        numbers = np.cumsum(~self._logged.is_held_out) - 1
        return self.tensor(numbers[self._logged.episodes[rows]])

    def logged_at(self, rows: np.ndarray) -> PolicyAt:
        """What was done in these rows."""
        return self._at(rows, self._as_choices(self._logged.actions[rows]))

    def logged_after(self, rows: np.ndarray) -> torch.Tensor:
        """What was done after these rows, as `PolicyAt.choices`."""
        return self.tensor(self._as_choices(self._logged.next_actions[rows]))

    def policy_at(
        self, policy: Policy, rows: np.ndarray, temperature: float, generator: np.random.Generator
    ) -> PolicyAt:
        """What a policy does in these rows."""
        return self._at(rows, self._choices(policy, self._logged.observations[rows], temperature, generator))

    def policy_after(
        self, policy: Policy, rows: np.ndarray, temperature: float, generator: np.random.Generator
    ) -> torch.Tensor:
        """What a policy does in these rows' next states, as `PolicyAt.choices`."""
        return self.tensor(self._choices(policy, self._logged.next_observations[rows], temperature, generator))

    def support(self, policy: Policy, temperature: float, generator: np.random.Generator) -> ActionSupport:
        """Of the policy's actions in held-out states, among what was done in those to learn from."""
        references = _some(self.training_rows, NUM_REFERENCES, generator)
        queries = _some(self.held_out_rows, NUM_QUERIES, generator)
        states, among = (self._observations(self._logged.observations[rows]) for rows in (queries, references))
        actions, theirs = (self._actions(self._logged.actions[rows]) for rows in (queries, references))
        nearest_actions = theirs[nearest_rows(states, among)]
        choices = self.policy_at(policy, queries, temperature, generator).choices[0]
        measure = box_support if self._num_actions is None else discrete_support
        return measure(nearest_actions, choices, actions)

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        """On the device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    def _at(self, rows: np.ndarray, choices: np.ndarray) -> PolicyAt:
        return PolicyAt(observations=self._observations(self._logged.observations[rows]), choices=self.tensor(choices))

    def _observations(self, observations: np.ndarray) -> torch.Tensor:
        return self.tensor(self._transforms.observations(observations))

    def _actions(self, actions: np.ndarray) -> torch.Tensor:
        return self.tensor(self._transforms.agent_actions(actions))

    def _choices(
        self, policy: Policy, observations: np.ndarray, temperature: float, generator: np.random.Generator
    ) -> np.ndarray:
        """`PolicyAt.choices` in raw observations."""
        parts = [observations[start : start + ROWS_PER_ACT] for start in range(0, len(observations), ROWS_PER_ACT)]
        if self._num_actions is not None:
            probabilities = [policy.probabilities(part, temperature) for part in parts]
            return np.concatenate(probabilities)[None].astype(np.float32)
        draws = [
            np.concatenate([policy.act(part, temperature=temperature, generator=generator) for part in parts])
            for _ in range(NUM_DRAWS if temperature > 0 else 1)
        ]
        return self._transforms.agent_actions(np.stack(draws))

    def _as_choices(self, actions: np.ndarray) -> np.ndarray:
        """Logged actions as a policy's choices."""
        if self._num_actions is None:
            return self._transforms.agent_actions(actions)[None]
        return np.eye(self._num_actions, dtype=np.float32)[actions[:, 0].astype(np.int64)][None]


def _some(rows: np.ndarray, num_rows: int, generator: np.random.Generator) -> np.ndarray:
    return generator.permutation(rows)[:num_rows]
