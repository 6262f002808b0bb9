"""Rows in memory are a source like any other, and a Minari dataset of them holds the same rows."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from iql_ray.data.actions import resolve_actions
from iql_ray.data.sources import Recorded, open_source
from iql_ray.data.sources.minari_export import write_minari
from iql_ray.data.sources.recorded_episodes import from_columns
from iql_ray.data.writing import WritingPlan, write_dataset
from iql_ray.experience import Spaces
from tests.data.examples import changed, example, prepare_here, tables_of, write_npz

DISCRETE = changed(actions=np.array([0, 1, 1, 0, 1]), episode=np.array([0, 0, 0, 1, 1]))
CARTPOLE = Recorded(environment_id="CartPole-v1", licence="CC0", details={"description": "two episodes"})


@pytest.fixture(autouse=True)
def _minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def wide(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CartPole's four observations, out of the example's two."""
    return {name: np.tile(values, 2) if "observations" in name else values for name, values in columns.items()}


def test_rows_in_memory_are_read_as_they_are():
    source = from_columns("made:here", example())
    assert (source.num_rows, source.files, source.layout.is_discrete) == (5, (), False)
    assert pa.concat_tables(tables_of(source)).to_pydict() == {k: v.tolist() for k, v in example().items()}
    assert source.locate(3) == "row 3 of made:here"


def test_integers_are_choices():
    layout = from_columns("made:here", DISCRETE).layout
    assert (layout.is_discrete, layout.action_dim, layout.has_episodes) == (True, 1, True)


def test_the_source_can_be_sent_to_another_process():
    source = pickle.loads(pickle.dumps(from_columns("made:here", example())))
    assert pa.concat_tables(tables_of(source)).num_rows == 5


def test_from_memory_or_from_a_file_the_dataset_is_the_same(tmp_path: Path):
    source = from_columns("made:here", example())
    actions = resolve_actions(source.layout, None, None, None)
    manifest = write_dataset(tables_of(source), WritingPlan(source=source, actions=actions, destination=tmp_path / "a"))
    from_file = prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "b")
    assert manifest.digest == from_file.digest
    assert manifest.provenance.files == ()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (changed(rewards=None), "source 'made:here' has no column rewards"),
        (changed(rewards=np.zeros(4)), "different numbers of rows"),
        ({name: values[:0] for name, values in example().items()}, "zero rows"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        from_columns("made:here", columns)


def test_a_minari_dataset_of_them_holds_the_same_rows():
    columns = wide(DISCRETE)
    write_minari("ours/two-v0", from_columns("made:here", columns, CARTPOLE))
    source = open_source("minari:ours/two-v0")
    rows = pa.concat_tables(tables_of(source)).to_pydict()
    assert rows == pa.concat_tables(tables_of(from_columns("made:here", columns))).to_pydict()
    assert source.recorded.environment_id == "CartPole-v1"
    assert source.recorded.licence == "CC0"
    assert source.recorded.details["description"] == "two episodes"
    assert source.recorded.spaces == Spaces(observation_dim=4, action_dim=1, num_actions=2)


BROKEN = wide(changed(actions=DISCRETE["actions"], next_observations=np.zeros((5, 2), np.float32)))
UNFINISHED = wide(changed(actions=DISCRETE["actions"], truncations=np.zeros(5, bool)))


@pytest.mark.parametrize(
    ("columns", "recorded", "message"),
    [
        (wide(DISCRETE), Recorded(), "needs an environment id"),
        (BROKEN, CARTPOLE, "what row 0 leads to is not what the row after it"),
        (UNFINISHED, CARTPOLE, "the last episode ends neither"),
    ],
)
def test_rows_that_minari_cannot_keep_are_refused(columns, recorded, message):
    with pytest.raises(ValueError, match=message):
        write_minari("ours/bad-v0", from_columns("made:here", columns, recorded))


def test_a_minari_dataset_is_not_overwritten():
    write_minari("ours/two-v0", from_columns("made:here", wide(DISCRETE), CARTPOLE))
    with pytest.raises(ValueError, match="already exists"):
        write_minari("ours/two-v0", from_columns("made:here", wide(DISCRETE), CARTPOLE))
