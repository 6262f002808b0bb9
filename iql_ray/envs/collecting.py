"""Collecting experience: environments stepped side by side in one process under one policy.

The same environments give the same experience, to the last bit, in one set or in several, in one call or in many.
Nothing is learned or kept here, and no Ray is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import gymnasium

from iql_ray.envs.acting import Explorer
from iql_ray.envs.blocks import Block, merge
from iql_ray.envs.running import RunningEnvironment
from iql_ray.envs.stepping import BlockStepper
from iql_ray.experience import Collected, Stand
from iql_ray.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Busy:
    """What a set of environments is doing right now: one step, or one reset, of one of them."""

    environment: int
    episode: int
    step: int
    seconds: float
    """For how long it has been at it."""


class EnvironmentSet:
    """Some of a run's environments.

    An environment that ends an episode begins its next one at once, so no transition crosses an episode. One that
    raises or gives a value that is not finite loses that step, is made anew and begins its next episode; after
    `max_failures` it is quarantined.

    Args:
        make: makes an environment; the first ones when they are first needed.
        environments: their numbers in the run. Seeds and noise depend on these and on `seed` alone.
        seed: of the run.
        temperature: of `Policy.act`.
        epsilon: how likely a discrete action is drawn from all choices instead.
        max_failures: after so many an environment is quarantined.
        is_replayed: whether `restore` goes through unfinished episodes again, as a simulator can; otherwise it begins
            the next ones.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env],
        environments: Sequence[int],
        *,
        seed: int,
        temperature: float = 1.0,
        epsilon: float = 0.0,
        max_failures: int = 3,
        is_replayed: bool = True,
    ) -> None:
        self._running = [
            RunningEnvironment(make, number, seed=seed, max_failures=max_failures) for number in environments
        ]
        self._temperature, self._epsilon, self._is_replayed = temperature, epsilon, is_replayed
        self._has_begun = False

    @property
    def busy(self) -> Busy | None:
        """Which environment is being stepped, to be asked from another thread; None between two steps."""
        for running in self._running:
            if (since := running.since) is not None:
                return Busy(
                    environment=running.number,
                    episode=running.episode,
                    step=running.step_number,
                    seconds=monotonic() - since,
                )
        return None

    def restore(self, stands: Sequence[Stand]) -> None:
        """Bring every environment to its stand, or to its first episode; stands of others are passed over.

        Failures are reported by the next `collect`.
        """
        by_environment = {stand.environment: stand for stand in stands}
        for running in self._running:
            stand = by_environment.get(running.number, Stand(environment=running.number))
            running.restore(stand, is_replayed=self._is_replayed)
        self._has_begun = True

    def collect(self, policy: Policy, policy_version: int, num_steps: int) -> Collected:
        """Step every environment `num_steps` times.

        Args:
            policy: of the environments' spaces.
            policy_version: the updates behind it.

        Returns:
            Rows by step, then by environment. Fewer where environments failed, none where all are quarantined.

        Raises:
            ValueError: the policy's actions are not finite, or an epsilon above 0 for a policy over a box of actions.
        """
        if not self._has_begun:
            self.restore(())
        block = self._block(policy, num_steps)
        stepper = BlockStepper(self._running, block, self._explorer(policy, num_steps))
        finished = [result for step in range(num_steps) for result in stepper.step(step)]
        stepper.finish()
        collected = Collected(
            experience=block.experience(policy_version),
            finished=tuple(finished),
            failures=tuple(failure for running in self._running for failure in running.take_failures()),
            stands=tuple(running.stand() for running in self._running),
            quarantined=tuple(running.number for running in self._running if running.is_quarantined),
        )
        return collected if block.is_recorded.all() else merge([collected])

    def close(self) -> None:
        for running in self._running:
            running.close()

    def _block(self, policy: Policy, num_steps: int) -> Block:
        description = policy.description
        numbers = [running.number for running in self._running]
        return Block(num_steps, numbers, description.observation_dim, len(description.action_low) or 1)

    def _explorer(self, policy: Policy, num_steps: int) -> Explorer:
        generators = {running.number: running.generator for running in self._running}
        return Explorer(policy, generators, temperature=self._temperature, epsilon=self._epsilon, num_steps=num_steps)
