"""The repairs that `prepare --fix` makes: each changes exactly what it says, records it, and refuses what it can't."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iql_ray.data.actions import resolve_actions
from iql_ray.data.fixes import RULES, SURVEYED_RULES, Changes, Rule, end_at_success, find_time_limit
from iql_ray.data.intake import WritingPlan, survey
from iql_ray.data.prepared import AppliedFix, Manifest, read_manifest
from iql_ray.data.schema import record_dtype
from iql_ray.data.sources import Fragment, Layout, Source, open_source
from iql_ray.data.writing import write_dataset
from iql_ray.experience import Spaces
from pipelines import prepare
from tests.data.examples import changed, example, read_rows, tables_of, with_value, write_npz


def fixed(folder: Path, columns: dict[str, np.ndarray], *rules: Rule) -> Manifest:
    """Prepare with these repairs, without Ray, into folder/out."""
    return write_fixed(open_source(write_npz(folder / "a.npz", columns)), folder, rules)


def write_fixed(source: Source, folder: Path, rules: Sequence[Rule]) -> Manifest:
    actions = resolve_actions(source.layout, source.recorded.spaces, None, None)
    plan = WritingPlan(source=source, actions=actions, destination=folder / "out", fixes=tuple(rules), overwrite=True)
    if set(rules) & set(SURVEYED_RULES):
        plan = replace(plan, facts=survey(tables_of(source), plan))
    return write_dataset(tables_of(source), plan)


def column(folder: Path, name: str) -> list:
    return [row[name] for row in read_rows(folder / "out")]


def goal_columns(rewards: Sequence[float], num_rows: Sequence[int] = (5, 5)) -> dict[str, np.ndarray]:
    """Episodes of so many rows, all cut at their end; row i observes i."""
    total = sum(num_rows)
    is_end = np.zeros(total, bool)
    is_end[np.cumsum(num_rows) - 1] = True
    return {
        "observations": np.arange(total, dtype=np.float32)[:, None],
        "actions": np.zeros((total, 1), np.float32),
        "rewards": np.array(rewards, np.float32),
        "next_observations": np.arange(1, total + 1, dtype=np.float32)[:, None],
        "terminations": np.zeros(total, bool),
        "truncations": is_end,
    }


def test_an_episode_ends_at_its_first_success(tmp_path: Path) -> None:
    columns = goal_columns([0, 0, 1, 1, 1, 0, 0, 0, 0, 0])
    before = fixed(tmp_path, columns)
    after = fixed(tmp_path, columns, "end-at-success")
    assert column(tmp_path, "observations") == [[0], [1], [2], [5], [6], [7], [8], [9]]
    assert column(tmp_path, "terminations") == [False, False, True, False, False, False, False, False]
    assert column(tmp_path, "truncations") == [False, False, False, False, False, False, False, True]
    assert (after.episode_returns.max, before.episode_returns.max) == (1, 3)
    assert (after.episode_lengths.min, after.num_episodes) == (3, 2)
    assert after.digest != before.digest
    (fix,) = after.provenance.fixes
    assert (fix.rule, fix.num_rows, fix.num_episodes) == ("end-at-success", 3, 1)
    assert "reward 1.0" in fix.description


def test_a_reward_of_minus_one_and_zero_succeeds_at_zero(tmp_path: Path) -> None:
    fixed(tmp_path, goal_columns([-1, 0, 0, 0, 0, -1, -1, -1, 0, 0]), "end-at-success")
    assert column(tmp_path, "rewards") == [-1, 0, -1, -1, -1, 0]


def test_without_next_observations_the_success_row_keeps_itself(tmp_path: Path) -> None:
    columns = goal_columns([0, 0, 1, 1, 1, 0, 0, 0, 0, 0])
    del columns["next_observations"]
    fixed(tmp_path, columns, "end-at-success")
    assert column(tmp_path, "next_observations") == [[1], [2], [2], [6], [7], [8], [9]]


def with_success(columns: dict[str, np.ndarray], success: Sequence[bool]) -> Source:
    """A source whose tables have a success column beside the canonical ones."""

    def read(fragment: Fragment, layout: Layout) -> Iterator[pa.Table]:
        lists = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(columns[name][:, 0]), 1)
            for name in ("observations", "actions", "next_observations")
        }
        flat = {name: pa.array(columns[name]) for name in ("rewards", "terminations", "truncations")}
        yield pa.table({**lists, **flat, "success": pa.array(success)})

    return Source(
        spec="test:success",
        layout=Layout(observation_dim=1, action_dim=1, is_discrete=False, columns={name: (name,) for name in columns}),
        fragments=(Fragment(path="t", start=0, stop=1, first_row=0, num_rows=len(success)),),
        files=(),
        read_fragment=read,
    )


def test_a_success_column_says_it_whatever_the_reward(tmp_path: Path) -> None:
    columns = goal_columns([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    source = with_success(columns, [False, True, False, True, False, False, False, False, False, True])
    manifest = write_fixed(source, tmp_path, ["end-at-success"])
    assert column(tmp_path, "observations") == [[0], [1], [5], [6], [7], [8], [9]]
    assert column(tmp_path, "terminations") == [False, True, False, False, False, False, True]
    assert manifest.provenance.fixes[0].num_rows == 5  # three left out, two flags
    assert manifest.provenance.fixes[0].num_episodes == 2


def test_a_success_column_changes_nothing_unasked(tmp_path: Path) -> None:
    columns = goal_columns([0.1] * 10)
    manifest = write_fixed(with_success(columns, [True] * 10), tmp_path, [])
    assert manifest.digest == fixed(tmp_path, columns).digest


@pytest.mark.parametrize(
    ("rewards", "why"),
    [
        ([0, 0.5, 1, 1, 1, 0, 0, 0, 0, 0], "takes more than two values"),
        ([1, 1, 1, 1, 0, 1, 1, 1, 1, 1], "already at the first row of most episodes"),
    ],
)
def test_where_nothing_says_what_success_is_the_rule_is_refused(tmp_path: Path, rewards: list, why: str) -> None:
    with pytest.raises(ValueError, match=f"--fix end-at-success cannot tell .* {why}"):
        fixed(tmp_path, goal_columns(rewards), "end-at-success")
    assert not (tmp_path / "out").exists()


def limited_columns(lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Every episode terminates."""
    columns = goal_columns(np.linspace(0, 1, sum(lengths)).tolist(), lengths)
    return {**columns, "terminations": columns["truncations"], "truncations": np.zeros(sum(lengths), bool)}


def test_terminations_at_the_time_limit_become_truncations(tmp_path: Path) -> None:
    columns = limited_columns([12, 5, 12, 12])
    manifest = fixed(tmp_path, columns, "time-limit-is-truncation")
    assert np.flatnonzero(column(tmp_path, "terminations")).tolist() == [16]
    assert np.flatnonzero(column(tmp_path, "truncations")).tolist() == [11, 28, 40]
    assert (manifest.num_terminations, manifest.num_truncations, manifest.num_rows) == (1, 3, 41)
    assert manifest.provenance.fixes == (
        AppliedFix(
            rule="time-limit-is-truncation",
            num_rows=3,
            num_episodes=3,
            description="terminations at step 12 became truncations",
        ),
    )


def test_a_row_cut_by_the_time_limit_needs_a_next_observation(tmp_path: Path) -> None:
    columns = limited_columns([12, 5, 12, 12])
    del columns["next_observations"]
    manifest = fixed(tmp_path, columns, "time-limit-is-truncation")
    assert (manifest.num_rows, manifest.num_dropped_rows) == (38, 3)
    assert manifest.num_truncations == 3


def test_a_rule_with_nothing_to_do_says_so(tmp_path: Path) -> None:
    columns = limited_columns([12, 5, 11, 7])
    manifest = fixed(tmp_path, columns, "time-limit-is-truncation", "clip-actions")
    assert [(fix.rule, fix.num_rows, fix.num_episodes) for fix in manifest.provenance.fixes] == [
        ("clip-actions", 0, 0),
        ("time-limit-is-truncation", 0, 0),
    ]
    assert manifest.digest == fixed(tmp_path, columns).digest


def test_what_a_time_limit_is() -> None:
    every = np.ones(5, bool)
    assert find_time_limit(np.array([20, 20, 20, 7, 9]), every) == 20
    assert find_time_limit(np.array([20, 20, 11, 7, 9]), every) is None, "two may be chance"
    assert find_time_limit(np.array([20, 20, 20, 19, 19]), every) is None, "episodes end around there anyway"
    assert find_time_limit(np.array([8, 8, 8, 7, 2]), every) is None, "a task may be so short"
    assert find_time_limit(np.array([20, 20, 20, 7, 9]), np.array([True, False, False, True, True])) is None


def test_actions_are_clipped_where_asked(tmp_path: Path) -> None:
    columns = changed(actions=np.array([[-1.5], [0.5], [1.0], [1.25], [3.0]], np.float32))
    with pytest.raises(ValueError, match=r"action -1\.5 at row 0"):
        fixed(tmp_path, columns)
    manifest = fixed(tmp_path, columns, "clip-actions")
    assert column(tmp_path, "actions") == [[-1], [0.5], [1], [1], [1]]
    assert (manifest.provenance.fixes[0].num_rows, manifest.provenance.fixes[0].num_episodes) == (3, 2)
    assert manifest.provenance.num_clipped_actions == 0


def test_choices_cannot_be_clipped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clip-actions is for actions in a box"):
        fixed(tmp_path, changed(actions=np.array([0, 1, 1, 0, 2])), "clip-actions")


def test_a_row_that_is_not_finite_goes_and_nothing_links_over_the_gap(tmp_path: Path) -> None:
    columns = goal_columns([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    del columns["next_observations"]
    columns["observations"][2] = np.nan
    columns["rewards"][9] = np.inf
    manifest = fixed(tmp_path, columns, "drop-nonfinite-rows")
    # 0 1 * 3 4 | 5 6 7 8 *: three episodes, whose last rows have nothing after them
    rows = [(row["observations"][0], row["next_observations"][0]) for row in read_rows(tmp_path / "out")]
    assert rows == [(0, 1), (3, 4), (5, 6), (6, 7), (7, 8)]
    assert column(tmp_path, "truncations") == [True, True, False, False, True]
    assert column(tmp_path, "episode") == [0, 1, 2, 2, 2]
    assert column(tmp_path, "step") == [0, 0, 0, 1, 2]
    assert (manifest.num_episodes, manifest.num_dropped_rows) == (3, 3)
    assert (manifest.provenance.fixes[0].num_rows, manifest.provenance.fixes[0].num_episodes) == (2, 2)


def test_an_action_of_a_dropped_row_need_not_fit_the_box(tmp_path: Path) -> None:
    manifest = fixed(tmp_path, with_value("actions", 1, np.inf), "drop-nonfinite-rows")
    assert column(tmp_path, "rewards") == [1, 3, 4, 5]
    assert manifest.num_episodes == 3
    assert column(tmp_path, "terminations") == [False, True, False, False]


def test_rules_work_together_in_their_own_order(tmp_path: Path) -> None:
    columns = goal_columns([0] * 10 + [0, 0, 1, 1, 1, 1, 1, 1, 1, 1] + [0] * 20, [10] * 4)
    columns["terminations"], columns["truncations"] = columns["truncations"], columns["terminations"]
    columns["actions"][0] = 7
    columns["observations"][21] = np.nan
    wanted: tuple[Rule, ...] = ("end-at-success", "drop-nonfinite-rows", "clip-actions", "time-limit-is-truncation")
    manifest = fixed(tmp_path, columns, *wanted)
    counts = [(fix.rule, fix.num_rows) for fix in manifest.provenance.fixes]
    # the second episode's end is a success: the time limit leaves it alone
    assert counts == [
        ("clip-actions", 1),
        ("time-limit-is-truncation", 3),
        ("end-at-success", 8),
        ("drop-nonfinite-rows", 1),
    ]
    assert manifest.episode_lengths.min == 1
    assert (manifest.num_episodes, manifest.num_terminations, manifest.num_truncations) == (5, 1, 4)
    assert read_manifest(tmp_path / "out") == manifest


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(1, 7))
def test_how_the_stream_is_cut_changes_no_repair(episodes: list[list[bool]], size: int) -> None:
    success = np.concatenate([np.array(each) for each in episodes])
    lengths = [len(each) for each in episodes]
    rows = np.zeros(len(success), record_dtype(1, 1))
    rows["rewards"], rows["observations"][:, 0] = success, np.arange(len(rows))
    rows["episode"] = np.repeat(np.arange(len(episodes)), lengths)
    rows["step"] = np.concatenate([np.arange(length) for length in lengths])
    rows["truncations"] = rows["step"] == np.repeat(lengths, lengths) - 1
    changes = Changes()
    blocks = (rows[start : start + size].copy() for start in range(0, len(rows), size))
    kept = np.concatenate(list(end_at_success(blocks, 1.0, changes)))
    firsts = [each.index(True) + 1 if True in each else len(each) for each in episodes]
    expected = rows[rows["step"] < np.repeat(firsts, lengths)]
    assert kept["observations"].tolist() == expected["observations"].tolist()
    assert (kept["terminations"] == (expected["rewards"] == 1)).all()
    assert not (kept["terminations"] & kept["truncations"]).any()
    assert changes.num_rows == len(rows) - len(kept) + int(kept["terminations"].sum())
    assert changes.num_episodes == sum(True in each for each in episodes)


def test_the_command_knows_the_same_rules() -> None:
    assert get_args(prepare.Rule) == RULES


def test_a_manifest_from_before_there_were_fixes_is_read(tmp_path: Path) -> None:
    manifest = fixed(tmp_path, example())
    path = tmp_path / "out" / "manifest.json"
    values = json.loads(path.read_text())
    del values["provenance"]["fixes"], values["provenance"]["git_commit"]
    path.write_text(json.dumps(values))
    assert read_manifest(tmp_path / "out").provenance.fixes == ()
    assert read_manifest(tmp_path / "out").digest == manifest.digest


def test_environment_bounds_are_what_is_clipped_to(tmp_path: Path) -> None:
    source = open_source(write_npz(tmp_path / "a.npz", changed(actions=np.array([[-3.0], [1], [2], [2.5], [0]]))))
    pendulum = Spaces(observation_dim=2, action_dim=1, action_low=(-2.0,), action_high=(2.0,))
    plan = WritingPlan(
        source=source,
        actions=resolve_actions(source.layout, None, pendulum, None),
        destination=tmp_path / "out",
        fixes=("clip-actions",),
    )
    write_dataset(tables_of(source), plan)
    assert column(tmp_path, "actions") == [[-2], [1], [2], [2], [0]]
