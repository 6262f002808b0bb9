"""The authors' IQL update, rewritten in a few lines of jitted JAX: a peer to measure against, nothing else.

    python benchmarks/_jax_peer.py [cuda]

Needs jax and optax, which the project does not. One thread; sampling included, which on a GPU is part of the update.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
import optax  # pyright: ignore[reportMissingImports]

OBSERVATION_DIM, ACTION_DIM, HIDDEN, BATCH_SIZE, NUM_ROWS = 17, 6, 256, 256, 100_000
OPTIMISER = optax.adam(3e-4)


def initial(key: Any, sizes: tuple[int, ...]) -> list[tuple[Any, Any]]:
    keys = jax.random.split(key, len(sizes))
    orthogonal = jax.nn.initializers.orthogonal(2**0.5)
    return [(orthogonal(k, (i, o)), jnp.zeros(o)) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=False)]


def mlp(layers: Any, x: Any) -> Any:
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


twin = jax.vmap(lambda layers, x: mlp(layers, x)[..., 0], (0, None))


def step(loss: Any, parameters: Any, moments: Any) -> tuple[Any, Any]:
    changes, moments = OPTIMISER.update(jax.grad(loss)(parameters), moments)
    return optax.apply_updates(parameters, changes), moments


@jax.jit
def update(state: Any, batch: Any) -> Any:
    value, policy, critic, target, value_moments, policy_moments, critic_moments = state
    observations, actions, rewards, next_observations, masks = batch
    pairs = jnp.concatenate([observations, actions], -1)
    target_values = twin(target, pairs).min(0)

    def value_loss(layers: Any) -> Any:
        advantages = target_values - mlp(layers, observations)[..., 0]
        return (jnp.where(advantages > 0, 0.7, 0.3) * advantages**2).mean()

    value, value_moments = step(value_loss, value, value_moments)
    weights = jnp.minimum(jnp.exp(3 * (target_values - mlp(value, observations)[..., 0])), 100.0)

    def policy_loss(parameters: Any) -> Any:
        layers, log_stds = parameters
        standardised = (actions - jnp.tanh(mlp(layers, observations))) / jnp.exp(jnp.clip(log_stds, -5, 2))
        return (weights * (0.5 * standardised**2 + jnp.clip(log_stds, -5, 2)).sum(-1)).mean()

    policy, policy_moments = step(policy_loss, policy, policy_moments)
    targets = rewards + 0.99 * masks * mlp(value, next_observations)[..., 0]
    critic, critic_moments = step(
        lambda layers: ((twin(layers, pairs) - targets) ** 2).mean(1).sum(), critic, critic_moments
    )
    target = jax.tree.map(lambda old, new: old * 0.995 + new * 0.005, target, critic)
    return value, policy, critic, target, value_moments, policy_moments, critic_moments


@jax.jit
def drawn_update(state: Any, key: Any, columns: Any) -> Any:
    """An update whose minibatch is drawn on the device too."""
    key, own = jax.random.split(key)
    indices = jax.random.randint(own, (BATCH_SIZE,), 0, NUM_ROWS)
    return update(state, tuple(column[indices] for column in columns)), key


def initial_state() -> Any:
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    pair_sizes = (OBSERVATION_DIM + ACTION_DIM, HIDDEN, HIDDEN, 1)
    value = initial(keys[0], (OBSERVATION_DIM, HIDDEN, HIDDEN, 1))
    policy = (initial(keys[1], (OBSERVATION_DIM, HIDDEN, HIDDEN, ACTION_DIM)), jnp.zeros(ACTION_DIM))
    critic = jax.tree.map(lambda *each: jnp.stack(each), *(initial(key, pair_sizes) for key in keys[2:]))
    return value, policy, critic, critic, *(OPTIMISER.init(each) for each in (value, policy, critic))


def random_columns() -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(0)
    observations = generator.standard_normal((NUM_ROWS, OBSERVATION_DIM), np.float32)
    actions = np.clip(generator.standard_normal((NUM_ROWS, ACTION_DIM), np.float32), -1, 1)
    rewards = generator.standard_normal(NUM_ROWS, np.float32)
    return observations, actions, rewards, np.roll(observations, 1, 0), np.ones(NUM_ROWS, np.float32)


def main() -> int:
    """Say "ready" once it is compiled; then, for every number of updates read from stdin, print updates per second."""
    state, columns, generator = initial_state(), random_columns(), np.random.default_rng(1)
    is_drawn_on_device, key = sys.argv[1:] == ["cuda"], jax.random.PRNGKey(1)
    if is_drawn_on_device:
        columns = tuple(map(jnp.asarray, columns))

    def run(num_updates: int) -> float:
        nonlocal state, key
        started = time.perf_counter()
        for _ in range(num_updates):
            if is_drawn_on_device:
                state, key = drawn_update(state, key, columns)
                continue
            indices = generator.integers(NUM_ROWS, size=BATCH_SIZE)
            state = update(state, tuple(column[indices] for column in columns))
        jax.block_until_ready(state)
        return num_updates / (time.perf_counter() - started)

    run(50)
    print("ready", flush=True)
    for line in sys.stdin:
        print(run(int(line)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
