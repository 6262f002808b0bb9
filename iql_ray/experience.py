"""The words every floor shares: a batch of transitions, the spaces they live in, the result of an episode, and what
rollout workers bring back from their environments.

Nothing here computes; neither torch nor numpy is imported with it, so that reading a manifest stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TransitionBatch:
    """A batch of transitions in the agent's own units: transformed rewards, actions in [-1, 1].

    Shapes are (..., batch, dim) or (..., batch). Leading axes, where there are any, are one batch per seed.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminations: Tensor
    """1 where the task ended, so that nothing is bootstrapped; a truncation stays 0. Floating point."""
    next_actions: Tensor | None = None
    """The actions taken after these, in the same episodes, where a critic asks for them; 0 after a termination."""

    def map(self, function: Callable[[Tensor], Tensor]) -> TransitionBatch:
        """The same function of every tensor there is."""
        return TransitionBatch(**{name: function(tensor) for name, tensor in vars(self).items() if tensor is not None})


@dataclass(frozen=True, kw_only=True)
class ObservationPart:
    """A part of an environment's nested observation, as `gymnasium.spaces.flatten` puts it into the vector."""

    keys: tuple[str | int, ...]
    """The way to it: keys of dicts and indices of tuples."""
    shape: tuple[int, ...]
    """Of what the environment gives there; empty for one number."""
    choices: tuple[tuple[int, int], ...] = ()
    """(first, number) of each discrete entry, which becomes as many zeros and a one; empty for plain numbers."""

    def plain(self) -> dict[str, Any]:
        """As a policy's description has it, and JSON."""
        return {"keys": list(self.keys), "shape": list(self.shape), "choices": [list(each) for each in self.choices]}


@dataclass(frozen=True, kw_only=True)
class Spaces:
    """What an environment takes and gives: flat float32 observations, and box or discrete actions.

    Where the environment's own observations are nested, their parts are named in the vector's order. A discrete action
    is stored as its index in one column, so `action_dim` is then 1 and the bounds are empty.
    """

    observation_dim: int
    action_dim: int
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    num_actions: int | None = None
    observation_parts: tuple[ObservationPart, ...] = ()

    def __post_init__(self) -> None:
        if self.is_discrete:
            if self.action_dim != 1 or self.action_low or self.action_high:
                raise ValueError(f"discrete actions are one index without bounds, got {self}")
        elif not len(self.action_low) == len(self.action_high) == self.action_dim:
            raise ValueError(f"action bounds need {self.action_dim} numbers each, got {self}")
        elif not all(low < high for low, high in zip(self.action_low, self.action_high, strict=True)):
            raise ValueError(f"every lower action bound must be below its upper bound, got {self}")

    @property
    def is_discrete(self) -> bool:
        return self.num_actions is not None


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One finished evaluation episode: raw return, undiscounted where nothing else was asked for; length in steps."""

    seed: int
    episode_return: float
    length: int
    is_success: bool | None = None
    """What the environment reported, None where it reports nothing."""


@dataclass(frozen=True, kw_only=True)
class Stand:
    """Where one environment stands between two steps: enough to bring a simulator back there.

    A new environment has the first episode, no actions and no noise state.
    """

    environment: int
    """Which of all environments of the run, counted from 0 over all workers."""
    episode: int = 0
    """Which episode of this environment; its seed follows from both."""
    actions: np.ndarray | None = None
    """(steps, action_dim) taken in the unfinished episode so far; None or no rows at its beginning."""
    noise_state: dict[str, Any] | None = None
    """Of the generator that the environment's exploration draws from; None: fresh from the run's seed."""
    num_failures: int = 0
    """So far: an environment that failed too often is not stepped any more."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentFailure:
    """An environment that raised, hung, or gave a value that is not finite; it began a new episode, if it still can."""

    environment: int
    episode: int
    step: int
    message: str
    """Names the environment, the episode's seed, the step and the cause."""


@dataclass(frozen=True, kw_only=True)
class Experience:
    """Transitions as environments gave them, in their own units: rows by step, then by environment.

    No transition crosses an episode: where one ends, `next_observations` has its last observation.
    """

    observations: np.ndarray
    """(rows, observation_dim) float32."""
    actions: np.ndarray
    """(rows, action_dim) float32, as executed; a discrete one is its index."""
    rewards: np.ndarray
    """(rows,) float32."""
    next_observations: np.ndarray
    """(rows, observation_dim) float32."""
    terminations: np.ndarray
    """(rows,) bool."""
    truncations: np.ndarray
    """(rows,) bool."""
    environments: np.ndarray
    """(rows,) int32: which of all environments of the run."""
    episodes: np.ndarray
    """(rows,) int32: which episode of that environment."""
    steps: np.ndarray
    """(rows,) int32: counted from 0 in the episode."""
    policy_versions: np.ndarray
    """(rows,) int64: the updates behind the policy that acted."""

    def __len__(self) -> int:
        return len(self.rewards)

    def rows(self, chosen: slice | np.ndarray) -> Experience:
        """Some of the rows, as numpy selects them."""
        return Experience(**{name: values[chosen] for name, values in vars(self).items()})

    @classmethod
    def joined(cls, parts: Sequence[Experience]) -> Experience:
        """All rows of each, one after the other; at least one part."""
        import numpy as np

        if len(parts) == 1:
            return parts[0]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a call of collecting brings back."""

    experience: Experience
    finished: tuple[EpisodeResult, ...] = ()
    """Episodes that ended in it, with exploration noise."""
    failures: tuple[EnvironmentFailure, ...] = ()
    stands: tuple[Stand, ...] = ()
    """Of every environment afterwards, without its actions, which whoever keeps the experience knows."""
    quarantined: tuple[int, ...] = ()
    """Environments that failed too often and give no experience any more; all failures are in `failures`, once."""
