"""What a policy would do on observations from a log, held against limits, before it is let at a system.

Nothing is sent to any environment. The observations are those that the logged actions led to, so that this is a look at
the policy where the data is, and no forecast of its episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from iql_ray.envs.action_limits import ActionLimits, Limiter
from iql_ray.evaluation.episodes import policy_spaces
from iql_ray.policy import Policy
from iql_ray.seeding import child_seed

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
SATURATED = 1e-4
"""This share of the environment's range away from a bound counts as being there: policies stay just inside."""
MEAN, EXPLORING = "mean", "exploring"
MOST_ROWS = 8
"""Of a table, for each way of acting."""


def check_actions(
    policy: Policy,
    episodes: Sequence[np.ndarray],
    limits: ActionLimits | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """How often and by how much limits would change the actions of a policy.

    Args:
        policy: Gaussian.
        episodes: the raw observations of each, (steps, observation_dim), in time order; empty ones are passed over.
        limits: without any, only the environment's own bounds are looked at.
        temperature: of the exploration noise.
        seed: of it.

    Returns:
        JSON types: num_actions, num_episodes, temperature; `mean` (without noise) and `exploring`, each with
        `clipped_share`, of actions that limits would change in any dimension, and `dimensions`, a list of

        - quantiles: of the actions asked for, those of QUANTILES;
        - saturated_share: how many are at a bound of the environment;
        - bounds_clipped_share, bounds_most: how many are outside the limits' bounds, and by how much at most;
        - rate_clipped_share, rate_most: how many would, put within these bounds, still be too far from the action
          executed before, which limits may have changed as well;
        - largest_change: of two successive actions asked for.

    Raises:
        ValueError: discrete actions, limits that do not fit, or no observations.
    """
    limiter = Limiter(limits or ActionLimits(), policy_spaces(policy), "the policy")
    episodes = [np.asarray(observations) for observations in episodes if len(observations)]
    if not episodes:
        raise ValueError("a check of actions needs logged observations, got none")
    found: dict[str, Any] = {
        "num_actions": sum(map(len, episodes)),
        "num_episodes": len(episodes),
        "temperature": temperature,
    }
    generator = np.random.default_rng(child_seed(seed, "action check"))
    for name, its_temperature in ((MEAN, 0.0), (EXPLORING, temperature)):
        wanted = [policy.act(each, temperature=its_temperature, generator=generator) for each in episodes]
        found[name] = _compared(wanted, limiter, policy)
    return found


def _compared(wanted: list[np.ndarray], limiter: Limiter, policy: Policy) -> dict[str, Any]:
    executed = np.concatenate(_executed(wanted, limiter))
    everything = np.concatenate(wanted)
    bounded = limiter.within_bounds(everything)
    by_bounds, by_rate = np.abs(everything - bounded), np.abs(bounded - executed)
    changes = np.concatenate([np.abs(np.diff(actions, axis=0)) for actions in wanted])
    own_low, own_high = np.array([policy.description.action_low, policy.description.action_high], np.float32)
    to_bound = np.minimum(everything - own_low, own_high - everything)
    columns = {
        "saturated_share": (to_bound <= SATURATED * (own_high - own_low)).mean(axis=0),
        "bounds_clipped_share": (by_bounds > 0).mean(axis=0),
        "bounds_most": by_bounds.max(axis=0),
        "rate_clipped_share": (by_rate > 0).mean(axis=0),
        "rate_most": by_rate.max(axis=0),
        "largest_change": changes.max(axis=0, initial=0),
    }
    quantiles = np.quantile(everything, QUANTILES, axis=0).T.tolist()
    dimensions = [
        {"quantiles": quantiles[index], **{name: float(values[index]) for name, values in columns.items()}}
        for index in range(len(own_low))
    ]
    return {"clipped_share": float((everything != executed).any(axis=1).mean()), "dimensions": dimensions}


def _executed(wanted: list[np.ndarray], limiter: Limiter) -> list[np.ndarray]:
    """What limits would let through of each episode: all episodes one step on at a time."""
    executed = [np.empty_like(actions) for actions in wanted]
    previous: np.ndarray | None = None
    running = sorted(range(len(wanted)), key=lambda episode: -len(wanted[episode]))
    for step in range(len(wanted[running[0]])):
        running = [episode for episode in running if step < len(wanted[episode])]
        actions = np.stack([wanted[episode][step] for episode in running])
        # The longest come first, so that those still running are the first rows of what was.
        previous = limiter.executed(actions, None if previous is None else previous[: len(running)])
        for episode, action in zip(running, previous, strict=True):
            executed[episode][step] = action
    return executed


def action_table(check: dict[str, Any]) -> str:
    """The result of `check_actions` as lines to read; of many dimensions the ones that limits change most."""
    lines = [
        f"{check['num_actions']:,} actions on logged observations of {check['num_episodes']:,} episodes; "
        "nothing was sent to an environment",
        f"{'':9} {'dim':>4} {'lowest':>8} {'middle':>8} {'highest':>8} {'at bound':>9} "
        f"{'outside limits':>16} {'too fast':>16} {'largest change':>15}",
    ]
    for name in (MEAN, EXPLORING):
        dimensions = list(enumerate(check[name]["dimensions"]))
        dimensions.sort(key=lambda each: -(each[1]["bounds_clipped_share"] + each[1]["rate_clipped_share"]))
        lines += [_row(name, index, dimension) for index, dimension in sorted(dimensions[:MOST_ROWS])]
        if len(dimensions) > MOST_ROWS:
            lines.append(f"{name:9}      ... and {len(dimensions) - MOST_ROWS} dimensions that limits change less")
        lines.append(f"{name:9}  all {check[name]['clipped_share']:.1%} of the actions would be changed")
    return "\n".join(lines)


def _row(name: str, index: int, dimension: dict[str, Any]) -> str:
    lowest, *_, highest = dimension["quantiles"]
    middle = dimension["quantiles"][QUANTILES.index(0.5)]
    outside = _clipped(dimension["bounds_clipped_share"], dimension["bounds_most"])
    too_fast = _clipped(dimension["rate_clipped_share"], dimension["rate_most"])
    return (
        f"{name:9} {index:4} {lowest:8.3g} {middle:8.3g} {highest:8.3g} {dimension['saturated_share']:9.1%} "
        f"{outside:>16} {too_fast:>16} {dimension['largest_change']:15.3g}"
    )


def _clipped(share: float, most: float) -> str:
    return f"{share:.1%} by {most:.2g}" if share else "none"
