"""d3rlpy's `fit_online`: a peer to measure against, nothing else.

    python benchmarks/_d3rlpy_online_peer.py ENVIRONMENT NUM_STEPS

Needs d3rlpy, which the project does not. IQL of the paper's sizes, one update a step after a buffer has been filled,
one thread. The last line of stdout is environment steps per second, the filling and the first fifth left out.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import d3rlpy  # pyright: ignore[reportMissingImports]
import gymnasium
import torch
from d3rlpy.logging import NoopAdapterFactory  # pyright: ignore[reportMissingImports]

NUM_FIRST_STEPS = 1000


def main() -> int:
    environment_id, num_steps = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    environment = gymnasium.make(environment_id)
    encoder = d3rlpy.models.VectorEncoderFactory([256, 256])
    config = d3rlpy.algos.IQLConfig(
        batch_size=256, actor_encoder_factory=encoder, critic_encoder_factory=encoder, value_encoder_factory=encoder
    )
    algorithm = config.create(device="cpu")
    buffer = d3rlpy.dataset.create_fifo_replay_buffer(limit=100_000, env=environment)
    times: dict[int, float] = {}

    def note(algorithm: Any, epoch: int, total_step: int) -> None:
        times[total_step] = time.perf_counter()

    first = NUM_FIRST_STEPS + num_steps // 5
    algorithm.fit_online(
        environment,
        buffer,
        n_steps=NUM_FIRST_STEPS + num_steps,
        n_steps_per_epoch=NUM_FIRST_STEPS + num_steps,
        update_start_step=NUM_FIRST_STEPS,
        n_updates=1,
        callback=note,
        show_progress=False,
        logger_adapter=NoopAdapterFactory(),
    )
    last = max(times)
    print((last - first) / (times[last] - times[first]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
