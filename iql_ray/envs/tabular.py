"""Exact solutions of small Markov decision processes by dynamic programming: the yardstick of what is learned.

Plain arrays in and out, float64: S states, A actions. It knows no environment, draws nothing and trains nothing.

A behaviour is (S, A) probabilities whose row is zero where there are no data. Such a state is worth 0, as a terminal
one is, and a policy made here is uniform there: nothing is known, and nothing is made up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-12
"""Fixed points are iterated until no value moves by more; the error is then at most discount / (1 - discount) times
this."""

MAX_ITERATIONS = 100_000

MAX_WEIGHT = 100.0
"""The cap on exp(inverse temperature * advantage), as in the learned policy."""

TIE = 1e-12
"""Probabilities this close to the largest, relatively, count as equally likely."""


@dataclass(frozen=True, kw_only=True)
class TabularModel:
    """What follows a state and an action. Rows of terminal states are never used."""

    transitions: np.ndarray
    """(S, A, S) probabilities; a row is zero where an empirical model has no data."""
    rewards: np.ndarray
    """(S, A, S) reward of each transition."""
    is_terminal: np.ndarray
    """(S,) bool: nothing is worth anything once such a state is entered."""
    discount: float

    def __post_init__(self) -> None:
        num_states = len(self.is_terminal)
        shape = (num_states, self.transitions.shape[1], num_states)
        if self.transitions.shape != shape or self.rewards.shape != shape:
            shapes = f"{self.transitions.shape} and {self.rewards.shape}"
            raise ValueError(f"transitions and rewards have shapes {shapes}, expected (S, A, S) with S = {num_states}")
        if not 0 <= self.discount < 1:
            raise ValueError(f"discount is {self.discount}, expected at least 0 and below 1: then fixed points exist")

    @property
    def num_states(self) -> int:
        return len(self.is_terminal)

    @property
    def num_actions(self) -> int:
        return self.transitions.shape[1]

    @property
    def expected_rewards(self) -> np.ndarray:
        """(S, A)."""
        return (self.transitions * self.rewards).sum(axis=-1)


def empirical_model(
    states: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    next_states: np.ndarray,
    terminations: np.ndarray,
    *,
    num_states: int,
    num_actions: int,
    discount: float,
) -> TabularModel:
    """The model that the data's own frequencies are; every argument is (rows,), states and actions are indices.

    Raises:
        ValueError: a state is terminal in one row and left in another.
    """
    counts, sums = np.zeros((2, num_states, num_actions, num_states))
    triples = (states, actions, next_states)
    np.add.at(counts, triples, 1.0)
    np.add.at(sums, triples, np.asarray(rewards, np.float64))
    is_terminal = np.zeros(num_states, bool)
    is_terminal[next_states[np.asarray(terminations, bool)]] = True
    both = np.intersect1d(states, np.flatnonzero(is_terminal))
    if both.size:
        raise ValueError(f"state {both[0]} ends one episode and is left in another; expected one or the other")
    totals = counts.sum(axis=-1, keepdims=True)
    return TabularModel(
        transitions=counts / np.maximum(totals, 1.0),
        rewards=sums / np.maximum(counts, 1.0),
        is_terminal=is_terminal,
        discount=discount,
    )


def behaviour_probabilities(
    states: np.ndarray, actions: np.ndarray, *, num_states: int, num_actions: int
) -> np.ndarray:
    """(S, A) the data's action frequencies in each state, a zero row where a state was never left."""
    counts = np.zeros((num_states, num_actions))
    np.add.at(counts, (states, actions), 1.0)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)


def action_values(model: TabularModel, values: np.ndarray) -> np.ndarray:
    """(S, A) Q(s, a) = E[r + discount * V(s')], nothing bootstrapped from terminal states; values is (S,)."""
    continuation = model.discount * np.where(model.is_terminal, 0.0, values)
    return model.expected_rewards + model.transitions @ continuation


def optimal_values(model: TabularModel, allowed_actions: np.ndarray | None = None) -> np.ndarray:
    """(S,) V*, the maximum over allowed actions only.

    Args:
        allowed_actions: (S, A) bool, e.g. `behaviour > 0`: the data's actions; all of them by default.
    """
    shape = (model.num_states, model.num_actions)
    allowed = np.ones(shape, bool) if allowed_actions is None else np.asarray(allowed_actions, bool)
    is_known = allowed.any(axis=1) & ~model.is_terminal

    def backup(values: np.ndarray) -> np.ndarray:
        best = np.where(allowed, action_values(model, values), -np.inf).max(axis=1)
        return np.where(is_known, best, 0.0)

    return _fixed_point(backup, np.zeros(model.num_states))


def policy_values(model: TabularModel, policy: np.ndarray) -> np.ndarray:
    """(S,) the exact value of a policy, by one linear solve.

    Args:
        policy: (S, A) probabilities; a zero row makes a state worth 0.
    """
    weights = np.where(model.is_terminal[:, None], 0.0, policy)
    chain = np.einsum("sa,san->sn", weights, model.transitions)
    matrix = np.eye(model.num_states) - model.discount * np.where(model.is_terminal, 0.0, chain)
    return np.linalg.solve(matrix, (weights * model.expected_rewards).sum(axis=1))


def behaviour_values(model: TabularModel, behaviour: np.ndarray) -> np.ndarray:
    """(S,) V of the policy that made the data: what SARSA and the expectile 0.5 converge to."""
    return policy_values(model, behaviour)


def expectile_values(model: TabularModel, behaviour: np.ndarray, expectile: float) -> np.ndarray:
    """(S,) IQL's fixed point: V(s) is the expectile over the data's actions of Q(s, a) = E[r + discount * V(s')]."""

    def backup(values: np.ndarray) -> np.ndarray:
        expectiles = expectile_of(action_values(model, values), behaviour, expectile)
        return np.where(model.is_terminal, 0.0, expectiles)

    return _fixed_point(backup, np.zeros(model.num_states))


def single_q_values(model: TabularModel, behaviour: np.ndarray, expectile: float) -> np.ndarray:
    """(S, A) the fixed point of an expectile taken directly on the TD target of Q, without V (IQL, eq. 5).

    Q(s, a) is the expectile of r + discount * Q(s', a') over next states *and* next actions, so that luck in s' counts
    as much as a choice in a'.
    """
    likely = _most_likely_successors(model)
    probabilities = np.take_along_axis(model.transitions, likely, axis=-1)[..., None]
    rewards = np.take_along_axis(model.rewards, likely, axis=-1)[..., None]
    is_end = model.is_terminal | (behaviour.sum(axis=1) == 0)
    next_behaviour = np.where(is_end[:, None], 1.0 / model.num_actions, behaviour)
    shape = (model.num_states, model.num_actions, -1)
    weights = (probabilities * next_behaviour[likely]).reshape(shape)

    def backup(values: np.ndarray) -> np.ndarray:
        continuation = model.discount * np.where(is_end[:, None], 0.0, values)
        return expectile_of((rewards + continuation[likely]).reshape(shape), weights, expectile)

    return _fixed_point(backup, np.zeros((model.num_states, model.num_actions)))


def _most_likely_successors(model: TabularModel) -> np.ndarray:
    """(S, A, K) next states, K the largest number that any action can lead to; the rest has probability 0."""
    largest = max(1, int((model.transitions > 0).sum(axis=-1).max()))
    return np.argsort(-model.transitions, axis=-1, kind="stable")[..., :largest]


def expectile_of(values: np.ndarray, weights: np.ndarray, expectile: float) -> np.ndarray:
    """The expectile of discrete distributions, exactly: e with tau E[(x - e)+] = (1 - tau) E[(e - x)+].

    With the values sorted, e is a mean that weighs those below a split by 1 - tau and those above by tau; of all
    splits the right one gives the largest such mean for tau >= 0.5, the smallest below.

    Args:
        values, weights: (..., atoms) along the last axis; weights need not sum to 1. Where all are 0 the result is 0.
        expectile: tau in (0, 1).

    Raises:
        ValueError: tau outside (0, 1).
    """
    if not 0 < expectile < 1:
        raise ValueError(f"expectile is {expectile}, expected a number between 0 and 1, both excluded")
    order = np.argsort(values, axis=-1)
    weights = np.take_along_axis(np.broadcast_to(weights, values.shape), order, axis=-1)
    masses = weights * np.take_along_axis(values, order, axis=-1)
    numerators = _weighed_by_split(masses, expectile)
    denominators = _weighed_by_split(weights, expectile)
    means = numerators / np.where(denominators > 0, denominators, 1.0)
    return means.max(axis=-1) if expectile >= 0.5 else means.min(axis=-1)


def _weighed_by_split(terms: np.ndarray, expectile: float) -> np.ndarray:
    """(..., atoms) sums of (1 - tau) times the terms below position k and tau times those from k on, for every k."""
    below = np.cumsum(terms, axis=-1) - terms
    return (1 - expectile) * below + expectile * (terms.sum(axis=-1, keepdims=True) - below)


def advantage_weighted_policy(
    values: np.ndarray, action_values: np.ndarray, behaviour: np.ndarray, inverse_temperature: float
) -> np.ndarray:
    """(S, A) the exact optimum of advantage-weighted regression: behaviour * min(exp(beta * (Q - V)), 100), normalised.

    Args:
        values: (S,) V.
        action_values: (S, A) Q.
        inverse_temperature: beta; 0 gives the behaviour itself.
    """
    exponents = inverse_temperature * (action_values - values[:, None])
    weights = behaviour * np.exp(np.minimum(exponents, np.log(MAX_WEIGHT)))
    return _normalised(weights)


def greedy_policy(action_values: np.ndarray, allowed_actions: np.ndarray | None = None) -> np.ndarray:
    """(S, A) the best allowed action of each state; uniform over ties, and where none is allowed."""
    allowed = np.ones(action_values.shape, bool) if allowed_actions is None else np.asarray(allowed_actions, bool)
    best = np.where(allowed, action_values, -np.inf).max(axis=1, keepdims=True)
    return _normalised((allowed & (action_values >= best)).astype(np.float64))


def most_likely_policy(policy: np.ndarray) -> np.ndarray:
    """(S, A) the most likely action of each state for certain; uniform over ties."""
    return _normalised((policy >= policy.max(axis=1, keepdims=True) * (1 - TIE)).astype(np.float64))


def _normalised(weights: np.ndarray) -> np.ndarray:
    """Rows that sum to 1, uniform where all weights are 0."""
    totals = weights.sum(axis=1, keepdims=True)
    return np.where(totals > 0, weights / np.where(totals > 0, totals, 1.0), 1.0 / weights.shape[1])


def _fixed_point(backup: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """Iterate a contraction until it moves nothing by more than `TOLERANCE`."""
    for _ in range(MAX_ITERATIONS):
        following = backup(values)
        if np.abs(following - values).max() <= TOLERANCE:
            return following
        values = following
    raise AssertionError(f"no fixed point within {MAX_ITERATIONS} iterations")
