"""How much of the logged actions the observations explain: an upper bound on the randomness of whoever acted.

Measured on a sample of the shuffled rows. Half of the episodes are held out; their actions are predicted three ways, of
which the best counts:

- the nearest neighbour: half the squared difference to the action at the nearest observation of the other half (two
  draws of one distribution differ by twice its variance);
- ridge regression on the observation;
- ridge regression on the observation and 256 random rectified features of it.

A share of the actions' variance is left; near 0 the data show one action per situation. It is an upper bound, for a
better model than these may explain more. Discrete choices count as one-hot vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_ROWS = 12_000
NUM_QUERIES = 2_000
NUM_FEATURES = 256
RIDGE = 1e-4
"""Of the number of rows; the features are standardised."""
ROWS_PER_CHUNK = 250
SMALLEST_HALF = 20
"""Rows in each half; below, nothing is measured."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Unexplained shares of the actions' variance, in [0, 1]."""

    by_dimension: tuple[float, ...]
    """Of each action dimension that varies, NaN for one that does not; one number where actions are discrete."""
    overall: float | None
    """Their mean; None where there was nothing to measure."""
    num_rows: int
    num_episodes: int


def measure_behaviour(
    observations: np.ndarray, actions: np.ndarray, episodes: np.ndarray, num_actions: int | None
) -> Behaviour:
    """From a random sample of the rows.

    Args:
        observations: (rows, observation_dim).
        actions: (rows, action_dim), indices in one column where discrete.
        episodes: (rows,) so that no episode is on both sides.
        num_actions: how many choices, None in a box.
    """
    numbers = np.unique(episodes)
    is_held_out = np.isin(episodes, np.random.default_rng(0).permutation(numbers)[: len(numbers) // 2])
    if min(is_held_out.sum(), (~is_held_out).sum()) < SMALLEST_HALF:
        return Behaviour(by_dimension=(), overall=None, num_rows=len(episodes), num_episodes=len(numbers))
    inputs = _standardised(observations)
    targets = _one_hot(actions, num_actions) if num_actions else actions.astype(np.float64)
    queries = np.flatnonzero(is_held_out)[:NUM_QUERIES]
    both = (inputs[queries], targets[queries]), (inputs[~is_held_out], targets[~is_held_out])
    features = _random_features(inputs)
    widened = (features[queries], targets[queries]), (features[~is_held_out], targets[~is_held_out])
    left = np.minimum.reduce([_neighbour_error(*both), _regression_error(*both), _regression_error(*widened)])
    variance = targets[queries].var(axis=0)
    if num_actions:
        left, variance = left.sum(keepdims=True), variance.sum(keepdims=True)
    varies = variance > 1e-12
    shares = np.where(varies, np.minimum(left / np.where(varies, variance, 1), 1), np.nan)
    return Behaviour(
        by_dimension=tuple(shares.tolist()),
        overall=float(shares[varies].mean()) if varies.any() else None,
        num_rows=len(episodes),
        num_episodes=len(numbers),
    )


def _standardised(observations: np.ndarray) -> np.ndarray:
    std = observations.std(axis=0, dtype=np.float64)
    # clipped: one glitch of a sensor would otherwise be what every distance and every weight is about
    return np.clip((observations - observations.mean(axis=0, dtype=np.float64)) / np.where(std > 0, std, 1), -10, 10)


def _one_hot(actions: np.ndarray, num_actions: int) -> np.ndarray:
    return (actions == np.arange(num_actions)).astype(np.float64)


def _random_features(inputs: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(1)
    weights = generator.standard_normal((inputs.shape[1], NUM_FEATURES)) / np.sqrt(inputs.shape[1])
    rectified = np.maximum(inputs @ weights + generator.uniform(-1, 1, NUM_FEATURES), 0)
    return np.concatenate([inputs, rectified], axis=1)


Pairs = tuple[np.ndarray, np.ndarray]
"""Inputs (rows, inputs) and targets (rows, targets)."""


def _neighbour_error(queries: Pairs, known: Pairs) -> np.ndarray:
    """(targets,) half the mean squared difference to the nearest known row's target."""
    squares = np.square(known[0]).sum(axis=1)
    nearest = np.concatenate(
        [
            (squares - 2 * queries[0][start : start + ROWS_PER_CHUNK] @ known[0].T).argmin(axis=1)
            for start in range(0, len(queries[0]), ROWS_PER_CHUNK)
        ]
    )
    return np.square(queries[1] - known[1][nearest]).mean(axis=0) / 2


def _regression_error(queries: Pairs, known: Pairs) -> np.ndarray:
    """(targets,) mean squared error of a ridge regression with an intercept."""
    inputs_mean, targets_mean = known[0].mean(axis=0), known[1].mean(axis=0)
    x = known[0] - inputs_mean
    gram = x.T @ x + RIDGE * len(x) * np.eye(x.shape[1])
    solution = np.linalg.solve(gram, x.T @ (known[1] - targets_mean))
    return np.square(queries[1] - targets_mean - (queries[0] - inputs_mean) @ solution).mean(axis=0)
