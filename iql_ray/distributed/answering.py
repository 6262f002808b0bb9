"""What a policy server says to requests for actions, several at a time. No Ray here, and no HTTP.

A request is JSON as MLflow's own servers take it, so that clients need not know which of them answers:

    {"inputs": [[0.1, -0.2, 0.3]], "params": {"deterministic": false, "temperature": 0.5}}
    {"predictions": [[1.25]], "model": "pendulum", "version": "3"}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iql_ray.tracking.following import ServedPolicy

MAX_BODY_BYTES = 16 * 1024 * 1024
PARAMETERS = {"deterministic", "temperature"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """Observations that somebody wants actions for."""

    observations: Any
    """(observation_dim,) or (batch, observation_dim), or what `Policy.act` takes beside."""
    temperature: float = 0.0


def read(body: bytes) -> Question:
    """A request's body.

    Raises:
        ValueError: what is wrong with it, for its sender.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"the request has {len(body)} bytes, at most {MAX_BODY_BYTES}; send fewer observations")
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ValueError(f"the request is no JSON: {error}") from error
    if not isinstance(message, dict) or not {"inputs"} <= message.keys() <= {"inputs", "params"}:
        raise ValueError('expected {"inputs": [[...], ...]}, with "params" or without')
    return Question(observations=message["inputs"], temperature=_temperature(message.get("params") or {}))


def _temperature(params: Any) -> float:
    """As the model's own `predict` takes its parameters."""
    if not isinstance(params, dict) or not params.keys() <= PARAMETERS:
        raise ValueError(f'"params" takes {sorted(PARAMETERS)}, got {params}')
    is_deterministic, temperature = params.get("deterministic", True), params.get("temperature")
    if not isinstance(is_deterministic, bool) or not isinstance(temperature, int | float | None):
        raise ValueError(f"deterministic is true or false and temperature a number, got {params}")
    if is_deterministic and temperature:
        raise ValueError(f"temperature is {temperature} and deterministic is true; give deterministic = false with it")
    if is_deterministic:
        return 0.0
    temperature = 1.0 if temperature is None else float(temperature)
    if not 0.0 <= temperature < np.inf:
        raise ValueError(f"temperature is {temperature}, expected 0 or more, and finite")
    return temperature


def answer(served: ServedPolicy, questions: Sequence[Question]) -> list[bytes | ValueError]:
    """One answer per question, all by this very policy: one product for those of one temperature.

    A question that is wrong gets its error, and the others their actions.
    """
    answers: dict[int, bytes | ValueError] = {}
    groups: dict[float, list[tuple[int, np.ndarray]]] = {}
    for index, question in enumerate(questions):
        try:
            vectors = _vectors(served, question)
        except (ValueError, TypeError) as error:
            answers[index] = ValueError(str(error))
        else:
            groups.setdefault(question.temperature, []).append((index, vectors))
    for temperature, group in groups.items():
        answers |= _together(served, temperature, group)
    return [answers[index] for index in range(len(questions))]


def _together(served: ServedPolicy, temperature: float, group: Sequence[tuple[int, np.ndarray]]) -> dict[int, bytes]:
    """By their places, the answers to vectors that want one temperature."""
    rows = np.concatenate([np.atleast_2d(vectors) for _, vectors in group])
    actions, answers, first = served.policy.act(rows, temperature=temperature), {}, 0
    for index, vectors in group:
        last = first + (1 if vectors.ndim == 1 else len(vectors))
        answers[index] = _said(served, actions[first] if vectors.ndim == 1 else actions[first:last])
        first = last
    return answers


def _vectors(served: ServedPolicy, question: Question) -> np.ndarray:
    vectors = served.policy.inputs(question.observations)
    if not np.isfinite(vectors).all():
        raise ValueError("observations are not finite numbers")
    return vectors


def _said(served: ServedPolicy, actions: Any) -> bytes:
    message = {"predictions": actions.tolist(), "model": served.name, "version": served.version}
    return json.dumps(message).encode()
