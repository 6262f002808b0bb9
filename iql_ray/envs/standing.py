"""Where the environments of a run stand, followed from outside, so that whoever steps them can be replaced.

It keeps the actions of unfinished episodes as blocks come in, and steps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from iql_ray.experience import Collected, Stand


class StandKeeper:
    """The stand of every environment, with the actions of its unfinished episode.

    Args:
        stands: at the beginning, with their actions; an environment without one is new.
        has_actions: False where nothing is ever replayed: then no actions are kept.
    """

    def __init__(self, stands: Sequence[Stand] = (), *, has_actions: bool = True) -> None:
        self._has_actions = has_actions
        self._stands = {stand.environment: replace(stand, actions=None) for stand in stands}
        self._actions = {
            stand.environment: [stand.actions] for stand in stands if has_actions and stand.actions is not None
        }

    def follow(self, collected: Collected) -> None:
        """Go where its environments stand now. The blocks of an environment must come in their order."""
        rows = collected.experience
        for stand in collected.stands:
            if self._has_actions:
                if stand.episode != self.stand(stand.environment).episode:
                    self._actions[stand.environment] = []
                of_episode = (rows.environments == stand.environment) & (rows.episodes == stand.episode)
                self._actions.setdefault(stand.environment, []).append(rows.actions[of_episode])
            self._stands[stand.environment] = stand

    def move(self, stand: Stand) -> None:
        """The environment stands somewhere else, at the beginning of an episode."""
        self._stands[stand.environment] = stand
        self._actions.pop(stand.environment, None)

    def stand(self, environment: int) -> Stand:
        """Without its actions."""
        return self._stands.get(environment, Stand(environment=environment))

    def stands(self, environments: Sequence[int]) -> tuple[Stand, ...]:
        """With their actions."""
        return tuple(
            replace(self.stand(environment), actions=np.concatenate(actions))
            if (actions := self._actions.get(environment))
            else self.stand(environment)
            for environment in environments
        )
