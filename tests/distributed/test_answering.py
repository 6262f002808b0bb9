"""Questions that came together are answered each as if it had come alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from iql_ray.distributed.answering import MAX_BODY_BYTES, Question, answer, read
from iql_ray.tracking.following import ServedPolicy
from tests.evaluation.toys import balancing_policy
from tests.tracking.examples import small_policy

SERVED = ServedPolicy(policy=small_policy(), name="small", version="3", digest="")
CHOOSING = ServedPolicy(policy=balancing_policy(), name="pole", version="1", digest="")


def question(observations, **params) -> Question:
    return read(json.dumps({"inputs": observations, "params": params}).encode())


def predictions(said) -> list:
    assert isinstance(said, bytes), said
    message = json.loads(said)
    assert message.keys() == {"predictions", "model", "version"}
    return message["predictions"]


def test_single_observations_and_batches_are_answered_in_their_own_shape():
    one, two, three = answer(SERVED, [question([1, 2, 3]), question([[4, 5, 6], [7, 8, 9]]), question([[0, 0, 0]])])
    expected = small_policy().act([[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]])
    np.testing.assert_allclose(predictions(one), expected[0], rtol=1e-6)
    np.testing.assert_allclose(predictions(two), expected[1:3], rtol=1e-6)
    np.testing.assert_allclose(predictions(three), expected[3:], rtol=1e-6)


def test_an_answer_names_the_model_and_its_version():
    (said,) = answer(SERVED, [question([1, 2, 3])])
    assert isinstance(said, bytes)
    assert {"model": "small", "version": "3"}.items() <= json.loads(said).items()


def test_choices_are_numbers():
    one, two = answer(CHOOSING, [question([0, 0, 0.1, 0]), question([[0, 0, -0.1, 0], [0, 0, 0.1, 0]])])
    assert predictions(one) == 1
    assert predictions(two) == [0, 1]


def test_a_wrong_question_costs_the_others_nothing():
    wrong_width, right, not_finite, ragged = answer(
        SERVED,
        [question([1, 2]), question([1, 2, 3]), question([1, 2, float("nan")]), question([[1, 2, 3], [1]])],
    )
    assert "observations have shape (2,), expected (3,) or (batch, 3)" in str(wrong_width)
    assert "observations are not finite numbers" in str(not_finite)
    assert isinstance(ragged, ValueError)
    np.testing.assert_allclose(predictions(right), small_policy().act([1, 2, 3]), rtol=1e-6)


def test_a_wrong_question_alone_gets_its_reason():
    (said,) = answer(SERVED, [question([1, 2])])
    assert "observations have shape (2,)" in str(said)


def test_each_temperature_has_its_own_noise():
    still, noisy = answer(SERVED, [question([1, 2, 3]), question([[1, 2, 3]] * 50, deterministic=False)])
    assert predictions(still) == pytest.approx(small_policy().act([1, 2, 3]).tolist(), rel=1e-6)
    assert np.std(predictions(noisy), axis=0).min() > 0
    (colder,) = answer(SERVED, [question([[1, 2, 3]] * 50, deterministic=False, temperature=1e-3)])
    assert np.std(predictions(colder), axis=0).max() < 0.1 * np.std(predictions(noisy), axis=0).min()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the request is no JSON"),
        (b"[[1, 2, 3]]", 'expected {"inputs"'),
        (b'{"instances": [[1, 2, 3]]}', 'expected {"inputs"'),
        (b'{"inputs": [1], "parameters": {}}', 'expected {"inputs"'),
        (b'{"inputs": [1], "params": {"temprature": 1}}', '"params" takes'),
        (b'{"inputs": [1], "params": {"temperature": 0.5}}', "temperature is 0.5 and deterministic is true"),
        (b'{"inputs": [1], "params": {"temperature": "hot"}}', "temperature a number"),
        (b'{"inputs": [1], "params": {"deterministic": false, "temperature": -1}}', "expected 0 or more"),
        (b" " * (MAX_BODY_BYTES + 1), "send fewer observations"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_by_reason(body, message):
    with pytest.raises(ValueError, match=message):
        read(body)
