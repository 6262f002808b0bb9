"""The loop of fine-tuning: what is collected goes into replay, the agent is updated, again and again.

    Director   on the first learner: asks environments, keeps the ratio, says what is due (`director.py`)
       | Turn  the same for every learner
    finetune   on every learner: its share of the rows into its ring, its part of the updates, checkpoints

Plain Python: it runs without Ray as with it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from iql_ray.data.replay import ReplayRing
from iql_ray.distributed import collective
from iql_ray.distributed.background_writer import BackgroundWriter
from iql_ray.distributed.director import Director, OnlineRecorder, Turn
from iql_ray.distributed.learner import Learner, Recorder, save
from iql_ray.distributed.stopping import never


def finetune(
    learner: Learner,
    share: Share,
    director: Director | None,
    recorder: OnlineRecorder,
    is_stop_ordered: Callable[[], bool] = never,
) -> None:
    """Fine-tune until the director says that it is over; every learner runs it in step.

    Args:
        learner: whose minibatches draw from the share's ring.
        director: on the first learner alone.
        is_stop_ordered: asked of the first learner; once it says so, all save where they stand and return.
    """
    agent, updates = learner.agent, learner.updates(learner.sampler)
    with BackgroundWriter() as writer:
        if agent.update_count == 0 and share.num_seen == 0:
            _save(learner, recorder, writer, director, num_env_steps=0, is_evaluated=True)
        is_over = False
        while not is_over:
            turn = collective.from_first(director and _next_turn(director, agent.update_count, is_stop_ordered()))
            share.add(turn.rows, turn.policy_versions)
            for _ in range(turn.num_updates):
                updates.run(1)
            if turn.is_logged:
                metrics = updates.means.take() if updates.means.num_updates else {}
                if director is not None:
                    numbers = director.point(turn, agent.update_count, share.ring)
                    recorder.record(turn.num_env_steps, {**metrics, **numbers})
            if turn.is_saved:
                _save(learner, recorder, writer, director, turn.num_env_steps, turn.is_evaluated)
            elif director is not None and director.is_spill_due():
                writer.wait()
                writer.submit(director.write_experience())
            is_over = turn.is_over


def _next_turn(director: Director, num_updates: int, is_stopped: bool) -> Turn:
    return director.last_turn(num_updates) if is_stopped else director.next_turn(num_updates)


class Share:
    """One learner's part of what all take in: every num_learners-th row, by its number in the run.

    Args:
        ring: of this learner.
        num_seen: rows of the run before the first one that is added.
    """

    def __init__(self, rank: int, num_learners: int, ring: ReplayRing, num_seen: int = 0) -> None:
        self._rank, self._num_learners = rank, num_learners
        self.ring, self.num_seen = ring, num_seen

    def add(self, rows: np.ndarray, policy_versions: np.ndarray) -> None:
        """Take one's own of (new rows, width) packed rows, and of their policies' versions."""
        first = (self._rank - self.num_seen) % self._num_learners
        self.num_seen += len(rows)
        if len(rows) > first:
            self.ring.add(rows[first :: self._num_learners], policy_versions[first :: self._num_learners])


def _save(
    learner: Learner,
    recorder: Recorder,
    writer: BackgroundWriter,
    director: Director | None,
    num_env_steps: int,
    is_evaluated: bool,
) -> None:
    """A checkpoint and the experience that it relies on; what is to be evaluated is on the disk when this returns."""
    save(
        learner,
        recorder,
        writer,
        is_to_be_evaluated=is_evaluated,
        online=director.online_state(num_env_steps) if director else None,
        write_experience=director.write_experience() if director else None,
    )
