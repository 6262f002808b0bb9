"""The log of experience: segments on disk, and what can be told from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iql_ray.data.experience_log import (
    EXPERIENCE_FOLDER,
    ExperienceLog,
    discard_from,
    newest_stands,
    read_experience,
    rows_on_disk,
    with_actions,
)
from iql_ray.experience import Experience, Stand


def steps_of(rows: list[tuple[int, int, int, bool]]) -> Experience:
    """Experience from (environment, episode, step, is terminated); an action is 100 episodes + step."""
    environments, episodes, steps, terminations = (np.array(values) for values in zip(*rows, strict=True))
    size = len(rows)
    return Experience(
        observations=np.arange(2 * size, dtype=np.float32).reshape(size, 2),
        actions=(100 * episodes + steps).astype(np.float32)[:, None],
        rewards=np.arange(size, dtype=np.float32),
        next_observations=np.ones((size, 2), np.float32),
        terminations=terminations.astype(bool),
        truncations=np.zeros(size, bool),
        environments=environments.astype(np.int32),
        episodes=episodes.astype(np.int32),
        steps=steps.astype(np.int32),
        policy_versions=np.arange(size, dtype=np.int64),
    )


FIRST = steps_of([(0, 0, 0, False), (1, 0, 0, False), (0, 0, 1, True), (1, 0, 1, False)])
SECOND = steps_of([(0, 1, 0, False), (1, 0, 2, False)])


def logged(run: Path) -> ExperienceLog:
    """Two segments, of four rows and of two."""
    log = ExperienceLog(run)
    for part in (FIRST, SECOND):
        log.append(part)
        log.take()()
    return log


def test_what_is_read_is_what_was_written_in_order_and_type(tmp_path: Path) -> None:
    logged(tmp_path)
    read = Experience.joined(list(read_experience(tmp_path)))
    for name, values in vars(Experience.joined([FIRST, SECOND])).items():
        assert getattr(read, name).dtype == values.dtype
        np.testing.assert_array_equal(getattr(read, name), values, err_msg=name)


def test_any_range_of_rows_can_be_read(tmp_path: Path) -> None:
    logged(tmp_path)
    whole = Experience.joined([FIRST, SECOND]).actions[:, 0].tolist()
    for first in range(6):
        for last in range(first + 1, 7):
            read = [value for part in read_experience(tmp_path, first, last) for value in part.actions[:, 0].tolist()]
            assert read == whole[first:last]


def test_nothing_is_on_the_disk_before_it_is_written(tmp_path: Path) -> None:
    log = ExperienceLog(tmp_path)
    log.append(FIRST)
    write = log.take()
    assert (log.num_rows, rows_on_disk(tmp_path)) == (4, 0)
    write()
    assert rows_on_disk(tmp_path) == 4


def test_taking_nothing_writes_nothing(tmp_path: Path) -> None:
    ExperienceLog(tmp_path).take()()
    assert not (tmp_path / EXPERIENCE_FOLDER).exists()


def test_a_segment_that_was_cut_off_while_it_was_written_does_not_count(tmp_path: Path) -> None:
    logged(tmp_path)
    (tmp_path / EXPERIENCE_FOLDER / "000000006.partial").write_bytes(b"PAR1")
    assert rows_on_disk(tmp_path) == 6


def test_rows_after_a_checkpoint_are_discarded(tmp_path: Path) -> None:
    logged(tmp_path)
    discard_from(tmp_path, 4)
    assert rows_on_disk(tmp_path) == 4


def test_an_unfinished_episode_is_found_across_segments(tmp_path: Path) -> None:
    logged(tmp_path)
    stands = [Stand(environment=0, episode=1), Stand(environment=1, episode=0), Stand(environment=2)]
    found = with_actions(tmp_path, stands, num_rows=6)
    actions = [np.asarray(stand.actions).ravel().tolist() for stand in found]
    assert actions == [[100], [0, 1, 2], []]


def test_rows_beyond_those_that_count_are_no_part_of_an_episode(tmp_path: Path) -> None:
    logged(tmp_path)
    (stand,) = with_actions(tmp_path, [Stand(environment=1, episode=0)], num_rows=4)
    assert np.asarray(stand.actions).ravel().tolist() == [0, 1]


def test_stands_move_on_with_the_rows_after_them(tmp_path: Path) -> None:
    logged(tmp_path)
    before = [Stand(environment=0, noise_state={"a": 1}), Stand(environment=1)]
    after_first = newest_stands(tmp_path, before, 0)
    assert {stand.environment: stand.episode for stand in after_first} == {0: 1, 1: 0}
    assert after_first[0].noise_state == {"a": 1}
