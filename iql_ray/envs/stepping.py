"""Environments stepped side by side into one block of experience: the loop in which collecting spends its time.

Whose episodes end, begin the next ones at once, so that no transition crosses an episode:

    row of the block     0      1      2      3
    observations         a0     a1     b0     b1      a, b: two episodes of an environment; a2 is the last
    next_observations    a1     a2     b1     b2      observation of the first, b0 the first of the second
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iql_ray.envs.acting import Explorer
from iql_ray.envs.blocks import Block
from iql_ray.envs.running import RunningEnvironment
from iql_ray.experience import EpisodeResult


class BlockStepper:
    """Fills a block, one row of environments after another.

    Args:
        running: the environments, in the order of the block's columns; each has begun, or is quarantined.
        block: as long as there will be calls of `step`.
        explorer: acts for all of them.
    """

    def __init__(self, running: Sequence[RunningEnvironment], block: Block, explorer: Explorer) -> None:
        self._running, self._block, self._explorer = running, block, explorer
        self._observations = np.zeros(block.observations.shape[1:], np.float32)
        self._look_at(range(len(running)))

    def step(self, step: int) -> list[EpisodeResult]:
        """One step of every environment that lives, into that row of the block; results of episodes that ended."""
        block = self._block
        block.observations[step], block.is_recorded[step] = self._observations, self._is_living
        block.episodes[step] = [one.episode for one in self._running]
        block.steps[step] = [one.step_number for one in self._running]
        actions = self._act(step)
        ended, failed = self._step_environments(step, actions)
        failed |= self._not_finite(step, failed)
        self._observations[:] = block.next_observations[step]
        results = [self._end(column) for column in ended if column not in failed]
        for column, error in failed.items():
            self._fail(column, error, step)
        if ended or failed:
            self._look_at([*ended, *failed])
        return results

    def finish(self) -> None:
        """Leave every environment with the observation that it is to be acted on next."""
        for column, one in self._living:
            one.observation = self._observations[column].copy()

    def _act(self, step: int) -> np.ndarray:
        actions = self._explorer.act(self._observations)
        if not np.isfinite(actions).all():  # or the environments would be blamed
            raise ValueError(f"the policy's actions are not finite: {actions}; its weights are not")
        self._block.actions[step] = actions.reshape(len(actions), -1)
        return actions

    def _step_environments(self, step: int, actions: np.ndarray) -> tuple[list[int], dict[int, Exception]]:
        """Columns of episodes that ended, and what the environments of other columns raised."""
        block = self._block
        next_observations, rewards = block.next_observations[step], block.rewards[step]
        ended: list[int] = []
        failed: dict[int, Exception] = {}
        for column, one in self._living:
            try:
                observation, reward, is_terminated, is_truncated, executed_action = one.step(actions[column])
                next_observations[column] = observation
                rewards[column] = reward
                if executed_action is not None:
                    block.actions[step, column] = executed_action
            except Exception as error:
                failed[column] = error
                continue
            if is_terminated or is_truncated:
                block.terminations[step, column], block.truncations[step, column] = is_terminated, is_truncated
                ended.append(column)
        return ended, failed

    def _not_finite(self, step: int, failed: dict[int, Exception]) -> dict[int, Exception]:
        """The columns with observations that are not finite, and what is to be said of them."""
        next_observations = self._block.next_observations[step]
        found: dict[int, Exception] = {}
        if np.isfinite(next_observations).all():
            return found
        for column, one in self._living:
            if column not in failed:
                try:
                    one.check(next_observations[column])
                except ValueError as error:
                    found[column] = error
        return found

    def _end(self, column: int) -> EpisodeResult:
        result = self._running[column].result()
        self._running[column].begin(self._running[column].episode + 1)
        return result

    def _fail(self, column: int, error: Exception, step: int) -> None:
        self._running[column].fail(error)
        self._block.is_recorded[step, column] = False

    def _look_at(self, columns: Sequence[int]) -> None:
        """At environments that have begun an episode, or could not and are quarantined now."""
        self._living = [(column, one) for column, one in enumerate(self._running) if not one.is_quarantined]
        self._is_living = np.array([not one.is_quarantined for one in self._running])
        for column in columns:
            # What a quarantined one gave last need not be finite, and the policy acts on its row still.
            self._observations[column] = self._running[column].observation if self._is_living[column] else 0.0
