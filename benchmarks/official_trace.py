"""Replay a trace of the authors' own IQL code and print how far our update strays from it.

    python benchmarks/official_trace.py [TRACE.npz] [--dtype float64]

Without an argument it replays the trace that the tests use. A trace holds initial parameters, a list of batches, the
losses of every update and the final parameters (flax names). Sizes, expectile, inverse temperature and schedule are
read from it; `hyper` is [expectile, inverse temperature, discount, target rate, learning rate, cosine length or 0 for
none]. The last line is JSON with `max_relative_error`, over every final tensor (by its largest element) and over the
losses of every update.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import IQLConfig
from iql_ray.experience import Spaces, TransitionBatch

Trace = dict[str, np.ndarray]

TESTED_TRACE = Path(__file__).parent.parent / "tests" / "data_files" / "official_iql_trace.npz"

LOSS_NAMES = {"value_loss": "value_loss", "policy_loss": "actor_loss", "critic_loss": "critic_loss"}


def replay(trace: Trace, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Relative errors of our update against the trace: `tensors`, `losses` and their maximum."""
    agent = agent_of(trace, dtype)
    load_networks(agent, trace, "initial")
    num_updates = trace["batch/rewards"].shape[0]
    metrics = [agent.update(batch_of(trace, index, dtype)) for index in range(num_updates)]
    losses = {
        name: relative_error(np.array([float(each[name]) for each in metrics]), trace[f"info/{theirs}"])
        for name, theirs in LOSS_NAMES.items()
    }
    tensors = {
        name: relative_error(ours.detach().double().numpy(), trace[f"final/{name}"])
        for name, ours in named_as_authors(agent, trace).items()
    }
    worst = {"tensors": max(tensors.values()), "losses": max(losses.values())}
    return {"max_relative_error": max(worst.values()), **worst, **losses}


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference over the largest magnitude."""
    return float(np.abs(ours.reshape(theirs.shape) - theirs).max() / np.abs(theirs).max())


def agent_of(trace: Trace, dtype: torch.dtype) -> IQLAgent:
    """An agent with the trace's sizes and hyperparameters."""
    expectile, inverse_temperature, discount, target_rate, learning_rate, cosine_length = trace["hyper"].tolist()
    kernels = [trace[f"initial/value/MLP_0/Dense_{layer}/kernel"] for layer in range(num_layers(trace))]
    action_dim = trace["batch/actions"].shape[-1]
    config = IQLConfig(
        expectile=expectile,
        inverse_temperature=inverse_temperature,
        discount=discount,
        target_update_rate=target_rate,
        learning_rate=learning_rate,
        policy_schedule="cosine" if cosine_length else "constant",
        hidden_sizes=tuple(kernel.shape[1] for kernel in kernels[:-1]),
    )
    spaces = Spaces(
        observation_dim=kernels[0].shape[0],
        action_dim=action_dim,
        action_low=(-1.0,) * action_dim,
        action_high=(1.0,) * action_dim,
    )
    return IQLAgent(config, spaces, num_updates=int(cosine_length) or 1, dtype=dtype)


def num_layers(trace: Trace) -> int:
    """Layers of V, the output layer included."""
    return sum(name.startswith("initial/value/") and name.endswith("/kernel") for name in trace)


def named_as_authors(agent: IQLAgent, trace: Trace) -> dict[str, Tensor]:
    """Our live parameters under the authors' names, each of one member."""
    last = num_layers(trace) - 1
    names: dict[str, Tensor] = {"actor/log_stds": agent.networks.parameters["policy"].views["log_std"][0]}
    for layer in range(last + 1):
        for ours, theirs in (("weight", "kernel"), ("bias", "bias")):
            key = f"{layer}.{ours}"
            policy_layer = f"actor/MLP_0/Dense_{layer}" if layer < last else "actor/Dense_0"
            names[f"{policy_layer}/{theirs}"] = agent.networks.parameters["policy"].views[key][0]
            names[f"value/MLP_0/Dense_{layer}/{theirs}"] = agent.networks.parameters["value"].views[key][0]
            for twin in (0, 1):
                path = f"Critic_{twin}/MLP_0/Dense_{layer}/{theirs}"
                names[f"critic/{path}"] = agent.networks.parameters["critic"].views[key][twin]
                names[f"target_critic/{path}"] = agent.networks.parameters["target_critic"].views[key][twin]
    return names


def load_networks(agent: IQLAgent, trace: Trace, when: str) -> None:
    """Copy the trace's parameters into the agent."""
    for name, view in named_as_authors(agent, trace).items():
        view.copy_(torch.from_numpy(trace[f"{when}/{name}"]).view(view.shape))


def batch_of(trace: Trace, index: int, dtype: torch.dtype) -> TransitionBatch:
    """One of the trace's batches."""
    fields = {
        name: torch.from_numpy(trace[f"batch/{name}"][index]).to(dtype)
        for name in ("observations", "actions", "rewards", "next_observations")
    }
    return TransitionBatch(**fields, terminations=1 - torch.from_numpy(trace["batch/masks"][index]).to(dtype))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path, nargs="?", default=TESTED_TRACE)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = replay(dict(np.load(arguments.trace)), getattr(torch, arguments.dtype))
    for name, error in result.items():
        print(f"{name:20} {error:.2e}")
    print(json.dumps({**result, "dtype": arguments.dtype, "trace": arguments.trace.name}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
