"""Each flaw is found in a dataset that has it, with its numbers and places, and nothing is found in one without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iql_ray.data.inspection import inspect_dataset
from iql_ray.data.inspection.finding import Finding
from iql_ray.data.prepared import shard_paths
from tests.data.examples import CARTPOLE_COLUMNS, DATA_FILES, changed, example, prepare_here, write_npz
from tests.data.inspected import LENGTH, NUM_EPISODES, clean_columns, inspected, kinds, steps_of

ALL_LONG = np.full(NUM_EPISODES, LENGTH)


def only_finding(folder: Path, columns: dict[str, np.ndarray], **options: object) -> Finding:
    (finding,) = inspected(folder, columns, **options).findings
    return finding


def test_nothing_is_found_in_clean_data(tmp_path: Path) -> None:
    inspection = inspected(tmp_path, clean_columns())
    assert inspection.findings == ()
    assert inspection.repair == []


def test_episodes_are_counted_as_they_were_logged(tmp_path: Path) -> None:
    episodes = inspected(tmp_path, example()).facts.episodes
    assert episodes.lengths.tolist() == [3, 2]
    assert episodes.returns.tolist() == [6, 9]
    assert episodes.is_terminated.tolist() == [True, False]
    assert (episodes.first_rewards.tolist(), episodes.last_rewards.tolist()) == ([1, 4], [3, 5])
    assert (episodes.first_peaks.tolist(), episodes.num_peaks.tolist()) == ([3, 1], [0, 1])
    assert episodes.reward_counts == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1}


def test_a_look_does_not_depend_on_how_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = clean_columns()
    columns["next_observations"][7] += 1
    whole = inspected(tmp_path, columns)
    monkeypatch.setattr("iql_ray.data.prepared.ROWS_PER_READ", 17)
    pieces = inspect_dataset(tmp_path / "a")
    assert pieces.findings == whole.findings
    assert (pieces.facts.rows.rewards.counts == whole.facts.rows.rewards.counts).all()
    assert (pieces.facts.rows.actions.at_low == whole.facts.rows.actions.at_low).all()
    assert pieces.facts.behaviour == whole.facts.behaviour


def test_a_time_limit_that_terminates_is_found(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["terminations"] |= columns["truncations"]
    columns["truncations"][:] = False
    finding = only_finding(tmp_path, columns)
    assert (finding.kind, finding.severity, finding.rule) == (
        "time-limit-as-termination",
        "problem",
        "time-limit-is-truncation",
    )
    assert finding.evidence == {"time_limit": 40, "num_at_limit": 16, "num_terminated": 24}
    assert finding.examples == ((1, 39), (2, 39), (4, 39), (5, 39), (7, 39))


def test_the_cartpole_logs_terminate_at_their_time_limit(tmp_path: Path) -> None:
    prepare_here(f"parquet:{DATA_FILES / 'cartpole-rllib'}", tmp_path / "a", CARTPOLE_COLUMNS)
    inspection = inspect_dataset(tmp_path / "a")
    assert kinds(inspection) == ["time-limit-as-termination", "constant-reward"]
    assert inspection.findings[0].evidence == {"time_limit": 200, "num_at_limit": 20, "num_terminated": 21}
    repair = " ".join(inspection.repair)
    assert "--columns observations=obs next_observations=new_obs terminations=dones episode=eps_id" in repair
    assert "--fix time-limit-is-truncation" in repair


def goal_reaching(is_cut_at_success: bool = False) -> dict[str, np.ndarray]:
    """Every episode earns 1 from step 30 on, or ends there."""
    lengths = np.full(NUM_EPISODES, 31) if is_cut_at_success else ALL_LONG
    columns = clean_columns(lengths)
    return {**columns, "rewards": (steps_of(columns) >= 30).astype(np.float32)}


def test_data_that_stand_at_the_goal_are_found(tmp_path: Path) -> None:
    finding = only_finding(tmp_path, goal_reaching())
    assert (finding.kind, finding.severity, finding.rule) == ("goes-on-after-success", "problem", "end-at-success")
    assert finding.evidence == {
        "num_rows_after_success": 9 * NUM_EPISODES,
        "num_successful_episodes": NUM_EPISODES,
        "median_first_success_step": 30,
    }
    assert finding.examples[0] == (0, 30)
    assert "22% of the rows" in finding.sentence  # 9 of 40


def test_success_at_one_step_is_no_time_limit(tmp_path: Path) -> None:
    assert inspected(tmp_path, goal_reaching(is_cut_at_success=True)).findings == ()


def test_a_reward_for_staying_alive_is_no_success(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["rewards"] = np.where(columns["terminations"], 0, 1).astype(np.float32)
    inspection = inspected(tmp_path, columns)
    assert inspection.findings == ()
    assert inspection.facts.episodes.success_reward is None


def test_a_next_observation_that_does_not_follow_is_found_and_placed(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["next_observations"][[2, 50]] += 1
    finding = only_finding(tmp_path, columns)
    assert (finding.kind, finding.severity) == ("next-does-not-follow", "warning")
    assert finding.evidence["num_broken"] == 2
    assert finding.evidence["num_pairs"] == len(columns["rewards"]) - NUM_EPISODES
    assert finding.examples == ((0, 2), (1, 38))  # episode 0 has 12 rows


def test_next_observations_of_another_column_are_a_problem(tmp_path: Path) -> None:
    columns = clean_columns()
    finding = only_finding(tmp_path, {**columns, "next_observations": columns["observations"]})
    assert (finding.kind, finding.severity) == ("next-does-not-follow", "problem")


def test_the_last_next_observation_of_an_episode_may_be_anything(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["next_observations"][columns["terminations"] | columns["truncations"]] = 9
    assert inspected(tmp_path, columns).findings == ()


def test_float_noise_between_observations_is_none(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["next_observations"] *= 1 + 1e-6
    assert inspected(tmp_path, columns).findings == ()


def test_constant_and_equal_columns_are_named(tmp_path: Path) -> None:
    columns = clean_columns()
    for name in ("observations", "next_observations"):
        walk = columns[name]
        columns[name] = np.column_stack([walk, np.full(len(walk), 1.5), walk[:, 1]])
    inspection = inspected(tmp_path, columns)
    assert kinds(inspection) == ["constant-columns", "duplicated-columns"]
    assert "observations[3] = 1.5" in inspection.findings[0].sentence
    assert "observations[1] = observations[4]" in inspection.findings[1].sentence


def test_an_observation_that_holds_the_action_is_a_warning(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["observations"][:, 2] = columns["actions"][:, 0]
    columns["next_observations"][:-1, 2] = columns["actions"][1:, 0]
    finding = only_finding(tmp_path, columns)
    assert (finding.kind, finding.severity) == ("duplicated-columns", "warning")
    assert "observations[2] = actions[0]" in finding.sentence


def test_an_action_that_never_varies_is_a_warning(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["actions"][:, 1] = 0.25
    finding = only_finding(tmp_path, columns)
    assert (finding.kind, finding.severity) == ("constant-columns", "warning")


def test_a_behaviour_that_follows_from_the_observation_is_found(tmp_path: Path) -> None:
    columns = clean_columns()
    slopes = np.array([[1, 0], [0, 1], [1, -1]])
    actions = columns["observations"] @ slopes
    columns["actions"] = (actions / np.abs(actions).max(axis=0)).astype(np.float32)
    inspection = inspected(tmp_path, columns)
    assert kinds(inspection) == ["nearly-deterministic"]
    assert inspection.facts.behaviour.overall is not None
    assert inspection.facts.behaviour.overall < 0.005


def test_noise_is_not_explained_by_observations(tmp_path: Path) -> None:
    overall = inspected(tmp_path, clean_columns()).facts.behaviour.overall
    assert overall is not None
    assert overall > 0.8


def test_actions_in_other_units_are_found(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["actions"] *= 0.05
    inspection = inspected(tmp_path, columns)
    assert kinds(inspection) == ["narrow-actions", "assumed-bounds"]
    assert "dimensions 0, 1" in inspection.findings[0].sentence


@pytest.mark.parametrize(("largest", "expected"), [(1.0, ["scaled-actions"]), (1.5, []), (0.9, [])])
def test_actions_that_end_at_1_in_a_wider_box_look_scaled(tmp_path: Path, largest: float, expected: list[str]) -> None:
    columns = clean_columns()
    columns["actions"] *= largest / np.abs(columns["actions"]).max(axis=0)
    columns["actions"][0], columns["actions"][1] = largest, -largest
    inspection = inspected(tmp_path, columns, bounds=(-2.0, 2.0))
    assert kinds(inspection) == expected


def test_actions_at_bounds_are_counted_per_dimension(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["actions"][:, 0] = np.where(columns["actions"][:, 0] > 0, 0.985, -1)  # within 1% of the box's width of 2
    inspection = inspected(tmp_path, columns)
    actions = inspection.facts.rows.actions
    assert kinds(inspection) == ["saturated-actions"]
    assert actions.at_high[0] == pytest.approx((columns["actions"][:, 0] > 0).mean())
    assert actions.at_low[0] + actions.at_high[0] == 1
    assert actions.at_high[1] == pytest.approx((columns["actions"][:, 1] >= 0.98).mean())


def test_actions_outside_their_bounds_are_found(tmp_path: Path) -> None:
    """Preparing refuses or clips them; a dataset made by something else may have them."""
    manifest = tmp_path / "a" / "manifest.json"
    inspected(tmp_path, clean_columns())
    text = manifest.read_text()
    narrowed = text.replace('"action_low": [\n      -1.0', '"action_low": [\n      -0.5', 1)
    assert narrowed != text
    manifest.write_text(narrowed)
    finding = inspect_dataset(tmp_path / "a").findings[0]
    assert (finding.kind, finding.severity) == ("actions-outside-bounds", "problem")
    assert finding.evidence["num_rows"] == (clean_columns()["actions"][:, 0] < -0.5).sum()


def test_choices_never_taken_are_named(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["actions"] = np.random.default_rng(1).choice([0, 3, 4], len(columns["rewards"]))
    inspection = inspected(tmp_path, columns)
    assert kinds(inspection) == ["unused-choices"]
    assert "2 of 5 choices never occur: 1, 2" in inspection.findings[0].sentence


@pytest.mark.parametrize(("column", "element"), [("rewards", 0), ("observations", 1)])
def test_a_glitch_is_placed(tmp_path: Path, column: str, element: int) -> None:
    columns = clean_columns(np.full(200, LENGTH))
    columns[column].reshape(8000, -1)[85, element] = -1e6
    columns["next_observations"][84] = columns["observations"][85]
    finding = only_finding(tmp_path, columns)
    assert (finding.kind, finding.examples) == ("outliers", ((2, 5),))
    assert "-1e+06" in finding.sentence


def test_a_rare_reward_is_no_glitch(tmp_path: Path) -> None:
    columns = clean_columns(np.full(200, LENGTH))
    columns["rewards"] = np.zeros(8000, np.float32)
    columns["rewards"][85:88] = 1
    assert "outliers" not in kinds(inspected(tmp_path, columns))


@pytest.mark.parametrize(("reward", "severity"), [(0.0, "problem"), (1.0, "note")])
def test_a_reward_that_never_varies_is_found(tmp_path: Path, reward: float, severity: str) -> None:
    columns = clean_columns()
    finding = only_finding(tmp_path, {**columns, "rewards": np.full_like(columns["rewards"], reward)})
    assert (finding.kind, finding.severity) == ("constant-reward", severity)


def test_an_episode_logged_twice_is_found(tmp_path: Path) -> None:
    columns = {name: np.concatenate([values, values[:12]]) for name, values in clean_columns().items()}
    finding = only_finding(tmp_path, columns)
    assert (finding.kind, finding.evidence["first_pair"]) == ("duplicated-episodes", f"{NUM_EPISODES} repeats 0")


def test_rows_without_episodes_are_found(tmp_path: Path) -> None:
    columns = clean_columns(np.array([LENGTH]))
    assert kinds(inspected(tmp_path, columns)) == ["single-episode"]


def test_rows_lost_in_linking_are_told(tmp_path: Path) -> None:
    inspection = inspected(tmp_path, changed(next_observations=None))
    assert "dropped-rows" in kinds(inspection)  # 1 of 5


def test_a_damaged_dataset_is_refused(tmp_path: Path) -> None:
    prepare_here(write_npz(tmp_path / "a.npz", example()), tmp_path / "a")
    shard_paths(tmp_path / "a")[0].unlink()
    with pytest.raises(ValueError, match=r"shard-00000\.parquet is missing"):
        inspect_dataset(tmp_path / "a")
