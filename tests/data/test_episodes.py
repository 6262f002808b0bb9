"""Ends, numbers, steps and next observations, however the stream is cut into blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iql_ray.data.episodes import EpisodeLog, link_next_observations, number_episodes, sections, with_following
from iql_ray.data.schema import record_dtype

NONE = [0, 0, 0, 0, 0, 0]


def records(terminations: list[int], truncations: list[int], ids: list[int] | None = None) -> np.ndarray:
    """Row i observes i and earns 1."""
    rows = np.zeros(len(terminations), record_dtype(1, 1))
    rows["observations"][:, 0] = np.arange(len(rows))
    rows["rewards"] = 1
    rows["terminations"], rows["truncations"] = terminations, truncations
    rows["episode"] = 0 if ids is None else ids
    return rows


def in_blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size].copy() for start in range(0, len(rows), size))


def number(rows: np.ndarray, size: int = 2, log: EpisodeLog | None = None, **options: Any) -> np.ndarray:
    settings = {"has_ids": False, "has_truncations": True, "unfinished": "error", "locate": lambda row: f"row {row}"}
    blocks = number_episodes(in_blocks(rows, size), log or EpisodeLog(), **{**settings, **options})
    return np.concatenate(list(blocks))


def test_each_block_comes_with_the_row_after_it() -> None:
    rows = records(NONE, NONE)
    blocks = [rows[:2], rows[2:2], rows[2:5], rows[5:]]
    following = [None if row is None else row["observations"][0] for _, row in with_following(iter(blocks))]
    assert following == [2, 5, None]


def test_flags_alone_end_episodes() -> None:
    rows = number(records([0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]))
    assert rows["episode"].tolist() == [0, 0, 0, 1, 1, 1]
    assert rows["step"].tolist() == [0, 1, 2, 0, 1, 2]


def test_returns_and_lengths_are_those_of_the_episodes() -> None:
    log = EpisodeLog()
    number(records([0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]), log=log)
    assert log.returns.tolist() == [3, 1, 2]
    assert log.lengths.tolist() == [3, 1, 2]


def test_an_id_that_changes_without_a_termination_is_a_truncation_where_none_are_recorded() -> None:
    log = EpisodeLog()
    rows = number(records([0, 0, 1, 0, 0, 0], NONE, [7, 7, 7, 3, 3, 9]), log=log, has_ids=True, has_truncations=False)
    assert rows["truncations"].tolist() == [False, False, False, False, True, True]
    assert rows["episode"].tolist() == [0, 0, 0, 1, 1, 2]
    assert log.num_derived_truncations == 2


def test_an_unfinished_episode_is_an_error_where_truncations_are_recorded() -> None:
    rows = records([0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [7, 7, 7, 3, 3, 9])
    with pytest.raises(ValueError, match=r"episode 1 ends at row 4 flagged neither .*--unfinished-episodes truncate"):
        number(rows, has_ids=True)
    assert number(rows, has_ids=True, unfinished="truncate")["truncations"].tolist() == [0, 0, 0, 0, 1, 1]


def test_the_last_row_must_end_its_episode_where_flags_alone_do() -> None:
    rows = records([0, 0, 1, 0, 0, 0], NONE)
    with pytest.raises(ValueError, match="episode 1 ends at row 5 flagged neither"):
        number(rows, has_truncations=False)
    assert number(rows, unfinished="truncate")["truncations"].tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_an_episode_that_goes_on_after_its_flag_is_an_error(size: int) -> None:
    rows = records([0, 1, 0, 0, 0, 1], NONE, [7, 7, 7, 3, 3, 3])
    with pytest.raises(ValueError, match="goes on after row 1, which is flagged as its end"):
        number(rows, size, has_ids=True, has_truncations=False)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_an_id_that_comes_back_is_an_error(size: int) -> None:
    log = EpisodeLog()
    number(records(NONE, NONE, [7, 7, 3, 3, 7, 7]), size, log, has_ids=True, has_truncations=False)
    with pytest.raises(ValueError, match="episode id 7 stops at row 1 and comes back at row 4"):
        log.check_contiguous(lambda row: f"row {row}")


def in_sections(rows: np.ndarray, size: int, has_ids: bool = False) -> list[list[int]]:
    """Where every block is asked whether a section is due, and always one is."""
    found = sections(in_blocks(rows, size), has_ids=has_ids, is_due=lambda: True)
    return [np.concatenate([block["observations"][:, 0] for block in section]).tolist() for section in found]


def test_sections_end_with_episodes() -> None:
    rows = records([0, 0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 1])
    assert in_sections(rows, 1) == [[0], [1, 2], [3, 4, 5, 6]]
    assert in_sections(rows, 3) == [[0, 1, 2], [3, 4, 5, 6]]
    assert in_sections(rows, 7) == [[0, 1, 2, 3, 4, 5, 6]], "at the end of the stream none is due"


def test_ids_end_sections_also_where_blocks_meet() -> None:
    rows = records([0] * 7, [0] * 7, [5, 5, 8, 8, 8, 2, 2])
    assert in_sections(rows, 2, has_ids=True) == [[0, 1], [2, 3, 4], [5, 6]]
    assert in_sections(rows, 6, has_ids=True) == [[0, 1, 2, 3, 4], [5, 6]]


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_numbering_section_by_section_changes_nothing(size: int) -> None:
    rows = records([0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1])
    log, whole = EpisodeLog(), EpisodeLog()
    settings: Any = {"has_ids": False, "has_truncations": True, "unfinished": "error", "locate": str}
    parts = []
    for section in sections(in_blocks(rows, size), has_ids=False, is_due=lambda: True):
        restored = EpisodeLog()
        restored.restore(log.arrays())
        log = restored
        parts += list(number_episodes(section, log, **settings))
    assert (np.concatenate(parts) == number(rows, 6, whole)).all()
    assert {name: array.tolist() for name, array in log.arrays().items()} == {
        name: array.tolist() for name, array in whole.arrays().items()
    }


def link(rows: np.ndarray, size: int) -> np.ndarray:
    numbered = number_episodes(
        in_blocks(rows, size), EpisodeLog(), has_ids=False, has_truncations=True, unfinished="error", locate=str
    )
    return np.concatenate(list(link_next_observations(numbered)))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_a_cut_episodes_last_row_is_dropped_and_a_terminal_one_kept(size: int) -> None:
    # 0 1 2cut | 3 4terminal | 5cut: rows 2 and 5 have nothing after them
    rows = link(records([0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]), size)
    assert rows["observations"][:, 0].tolist() == [0, 1, 3, 4]
    assert rows["next_observations"][:, 0].tolist() == [1, 2, 4, 4]
    assert rows["truncations"].tolist() == [False, True, False, False]
    assert rows["terminations"].tolist() == [False, False, False, True]


@given(st.lists(st.sampled_from("..tc"), min_size=1, max_size=40), st.integers(1, 7))
def test_next_observations_never_cross_an_episode(marks: list[str], size: int) -> None:
    marks[-1] = "c"
    rows = records([mark == "t" for mark in marks], [mark == "c" for mark in marks])  # pyright: ignore
    linked = link(rows, size)
    following = linked["next_observations"][:, 0] - linked["observations"][:, 0]
    assert (following == np.where(linked["terminations"], 0, 1)).all()
    assert len(linked) == sum(mark != "c" for mark in marks)
    assert (
        linked["episode"]
        == np.cumsum([mark != "." for mark in marks])[linked["observations"][:, 0].astype(int)] - linked["terminations"]
    ).all()


@given(st.lists(st.sampled_from("...tc"), min_size=1, max_size=40), st.integers(1, 7), st.integers(0, 2**32))
def test_how_the_stream_is_cut_changes_nothing(marks: list[str], size: int, seed: int) -> None:
    marks[-1] = "t"
    rows = records([mark == "t" for mark in marks], [mark == "c" for mark in marks])  # pyright: ignore
    rows["rewards"] = np.random.default_rng(seed).standard_normal(len(rows))
    log, whole = EpisodeLog(), EpisodeLog()
    assert (number(rows, size, log) == number(rows, len(rows), whole)).all()
    assert (log.returns == whole.returns).all()
    assert (log.lengths == whole.lengths).all()
