"""Observations of dict, tuple and other spaces as one vector, in the order of `gymnasium.spaces.flatten`.

So `gymnasium.wrappers.FlattenObservation` makes the same vector of what the environment says. It works on whole
episodes, where gymnasium's function takes one observation at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iql_ray.experience import ObservationPart


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A part of a nested space that holds numbers."""

    keys: tuple[str | int, ...]
    """The way to it: keys of dicts and indices of tuples; empty where the space is no nest."""
    width: int
    shape: tuple[int, ...]
    """Of one observation of it."""
    choices: tuple[tuple[int, int], ...] = ()
    """(first, number) of each discrete entry, which becomes as many zeros and a one; empty for plain numbers."""

    @property
    def name(self) -> str:
        return "/".join(map(str, self.keys))

    def described(self) -> ObservationPart:
        """The same for whoever acts on such observations later."""
        return ObservationPart(keys=self.keys, shape=self.shape, choices=self.choices)

    def flatten(self, values: Any) -> np.ndarray:
        """(rows, width) of the nested (rows, ...) values that an episode holds.

        Raises:
            ValueError: values of another width, or an index that is no choice.
        """
        for key in self.keys:
            values = values[key]
        matrix = np.asarray(values)
        matrix = matrix.reshape(len(matrix), -1)
        if self.choices and matrix.shape[1] == len(self.choices):
            matrix = np.concatenate([self._one_hot(matrix[:, i], *entry) for i, entry in enumerate(self.choices)], 1)
        if matrix.shape[1] != self.width:
            raise ValueError(f"observation {self.name} has {matrix.shape[1]} numbers, its space has {self.width}")
        return matrix

    def _one_hot(self, indices: np.ndarray, first: int, number: int) -> np.ndarray:
        if not ((indices >= first) & (indices < first + number)).all():
            raise ValueError(f"observation {self.name} holds an index outside {first} to {first + number - 1}")
        return (indices[:, None] == np.arange(first, first + number)).astype(np.float32)


def leaves(space: Any) -> list[Leaf]:
    """The parts of a space in gymnasium's order.

    Raises:
        ValueError: a part holds no fixed number of numbers: text, graphs, sequences, images.
    """
    return list(_leaves(space, ()))


def _leaves(space: Any, keys: tuple[str | int, ...]) -> Iterator[Leaf]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, (*keys, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _leaves(part, (*keys, index))
    elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        firsts, numbers = (space.start, space.n) if isinstance(space, spaces.Discrete) else (space.start, space.nvec)
        choices = tuple(zip(np.ravel(firsts).tolist(), np.ravel(numbers).tolist(), strict=True))
        yield Leaf(keys=keys, width=sum(number for _, number in choices), shape=space.shape or (), choices=choices)
    elif isinstance(space, (spaces.Box, spaces.MultiBinary)) and not _is_image(space):
        yield Leaf(keys=keys, width=int(np.prod(space.shape)), shape=space.shape)
    else:
        where = f" at {'/'.join(map(str, keys))}" if keys else ""
        raise ValueError(f"{space}{where}, expected boxes of numbers, discrete spaces, and dicts or tuples of them")


def _is_image(space: Any) -> bool:
    return len(space.shape) > 1 and space.dtype == np.uint8


def selected(parts: Sequence[Leaf], wanted: str) -> list[Leaf]:
    """The parts that a user names, in the user's order: `observation,desired_goal`; a name may stand for a whole nest.

    Raises:
        ValueError: a name that no part has.
    """
    chosen: list[Leaf] = []
    for name in wanted.split(","):
        found = [part for part in parts if part.name == name or part.name.startswith(f"{name}/")]
        if not found:
            known = ", ".join(part.name for part in parts if part.name) or "one vector without names"
            raise ValueError(f"--columns observations={wanted}: there is no '{name}', the observations are {known}")
        chosen += found
    return chosen


def flatten(parts: Sequence[Leaf], values: Any) -> np.ndarray:
    """(rows, width) of an episode's nested observations."""
    pieces = [part.flatten(values) for part in parts]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
