"""What a set of episodes says: means, the interquartile mean, bootstrap intervals, scores.

Plain numbers in, plain numbers out; it runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from iql_ray.envs.catalog import normalized_score
from iql_ray.experience import EpisodeResult

Statistic = Callable[..., Any]
"""Reduces an array along the keyword `axis`, as `numpy.mean` and `interquartile_mean` do."""


def interquartile_mean(values: ArrayLike, axis: int | None = None) -> Any:
    """The mean of the middle half: less noisy than the median, less bent by outliers than the mean.

    A quarter of the values, rounded down, is cut at each end (Agarwal et al. 2021, arXiv:2108.13264).
    """
    array = _checked(values)
    return stats.trim_mean(array.ravel() if axis is None else array, 0.25, axis=axis or 0)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Statistic = np.mean,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """A percentile bootstrap interval of `statistic`.

    Args:
        values: (values,), or (strata, values), for instance seeds x episodes: then every stratum is resampled by
            itself, and the statistic sees all of them as one sample (Agarwal et al. 2021).
        statistic: called once with (num_resamples, all values) and `axis=-1`.
        confidence: in (0, 1). With fewer than about 20 values the interval covers less than it says.
        seed: of the resampling.

    Raises:
        ValueError: no values, values that are not finite, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a value in (0, 1)")
    strata = np.atleast_2d(_checked(values))
    if strata.ndim != 2:
        raise ValueError(f"values have shape {strata.shape}, expected (values,) or (strata, values)")
    num_strata, num_values = strata.shape
    indices = np.random.default_rng(seed).integers(num_values, size=(num_resamples, num_strata, num_values))
    resamples = strata[np.arange(num_strata)[:, None], indices].reshape(num_resamples, -1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(resamples, axis=-1), [tail, 1 - tail])
    return float(low), float(high)


def summarize(results: Sequence[EpisodeResult], environment_id: str) -> dict[str, Any]:
    """The statistics of an evaluation, as plain JSON types.

    Returns:
        return_mean, return_std (over episodes), return_iqm, return_ci (95% bootstrap interval of the mean),
        episode_length_mean, num_episodes; normalized_score where D4RL has a reference for the environment;
        success_rate where the environment reported success or failure in any episode, out of all episodes.

    Raises:
        ValueError: no results, or a return that is not finite.
    """
    returns = _checked([result.episode_return for result in results])
    summary: dict[str, Any] = {
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_iqm": float(interquartile_mean(returns)),
        "return_ci": list(bootstrap_interval(returns)),
        "episode_length_mean": float(np.mean([result.length for result in results])),
        "num_episodes": len(results),
    }
    score = normalized_score(environment_id, summary["return_mean"])
    if score is not None:
        summary["normalized_score"] = score
    if any(result.is_success is not None for result in results):
        summary["success_rate"] = sum(bool(result.is_success) for result in results) / len(results)
    return summary


def _checked(values: ArrayLike) -> np.ndarray[Any, np.dtype[np.float64]]:
    """As float64, at least one value, all of them finite."""
    array = np.asarray(values, np.float64)
    if array.size == 0:
        raise ValueError("statistics need at least one value, got none")
    if not np.isfinite(array).all():
        raise ValueError(f"statistics need finite values, got {int((~np.isfinite(array)).sum())} that are not")
    return array
