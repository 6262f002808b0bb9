"""The follower has a whole policy at hand, whatever happens: the alias moves, a version is bad, the store is away."""

from __future__ import annotations

import numpy as np
import pytest

from iql_ray.tracking import following
from iql_ray.tracking.following import Follower
from tests.evaluation.toys import balancing_policy
from tests.tracking.examples import small_policy
from tests.tracking.registered import NAME, Registry

ROW = np.array([1.0, -1.0, 0.5])


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Version 1 and 2 fit each other, 3 is of another environment, 4 was changed after it was registered."""
    made = Registry(tmp_path_factory.mktemp("registry"), tmp_path_factory)
    for policy in (small_policy(0), small_policy(1), balancing_policy(), small_policy(2)):
        made.register(policy)
    weights = made.files_of("4") / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    return made


@pytest.fixture
def follower(registry):
    registry.crown("1")
    return Follower(f"models:/{NAME}@champion", registry.tracking_uri)


def test_it_changes_over_where_the_alias_went(registry, follower):
    before = follower.current
    registry.crown("2")
    follower.refresh()
    assert follower.current.version == "2"
    np.testing.assert_array_equal(follower.current.policy.act(ROW), small_policy(1).act(ROW))
    np.testing.assert_array_equal(before.policy.act(ROW), small_policy(0).act(ROW))  # still whole for who holds it
    assert follower.status()["problem"] is None


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3", "version 3 takes and gives 4 observations -> one of 2, version 1 3 observations -> 2 numbers"),
        ("4", "was changed since it was registered"),
    ],
)
def test_a_version_that_will_not_do_leaves_the_one_before(registry, follower, version, reason):
    registry.crown(version)
    follower.refresh()
    assert follower.current.version == "1"
    assert f"still version 1 of '{NAME}'" in follower.status()["problem"]
    assert reason in follower.status()["problem"]
    registry.crown("2")
    follower.refresh()
    assert follower.status() == {**follower.status(), "version": "2", "problem": None}


def test_a_store_that_is_away_leaves_the_one_before_and_is_said(follower, monkeypatch):
    def away(uri):
        raise ConnectionError("connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(following, "open_client", away)
        follower.refresh()
        assert follower.status()["problem"] == f"still version 1 of '{NAME}': ConnectionError: connection refused"
    follower.refresh()
    assert follower.status()["problem"] is None


def test_a_version_by_number_never_moves(registry):
    registry.crown("2")
    fixed = Follower(f"models:/{NAME}/1", registry.tracking_uri)
    fixed.refresh()
    assert fixed.current.version == "1"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"models:/{NAME}@best", f"no version of '{NAME}' has the alias 'best' on sqlite.*iql-ray promote"),
        ("models:/nobody@champion", "no version of 'nobody' has the alias 'champion'"),
        (f"models:/{NAME}/9", "does not exist: 'small' has the versions 1, 2, 3, 4 and the aliases champion"),
        (
            f"models:/{NAME}/4",
            "model models:/small/4 was changed since it was registered",
        ),
        ("runs:/1/policy", "expected models:/NAME/VERSION or models:/NAME@ALIAS"),
    ],
)
def test_what_cannot_be_served_is_said_at_the_start(registry, follower, uri, message):
    with pytest.raises(ValueError, match=message):
        Follower(uri, registry.tracking_uri)


def test_a_store_that_does_not_exist_is_said_at_the_start(tmp_path):
    with pytest.raises(ValueError, match=r"tracking store .* does not exist"):
        Follower("models:/m@champion", f"sqlite:///{tmp_path}/none.db")


def test_a_server_that_does_not_answer_is_said_at_the_start(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError, match=r"the registry http://127.0.0.1:9 does not say what 'models:/m@champion' is"):
        Follower("models:/m@champion", "http://127.0.0.1:9")


@pytest.mark.parametrize("uri", ["models:/pen", "models:/pen/new", "models:/@champion", "models:/a/b@c"])
def test_what_names_no_version_cannot_be_followed(uri, tmp_path):
    with pytest.raises(ValueError, match="expected models:/NAME/VERSION or models:/NAME@ALIAS"):
        Follower(uri, f"sqlite:///{tmp_path}/none.db")
