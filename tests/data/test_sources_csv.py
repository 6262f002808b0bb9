"""CSV logs: a header and a row a line, typed by what a column is for and not by its first lines."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from iql_ray.data.sources import open_source
from tests.data.examples import prepare_here, read_rows, tables_of

MAPPING = {"observations": "x,y", "actions": "torque", "rewards": "reward", "terminations": "done", "episode": "run"}
LINES = ("run,x,y,torque,reward,done", "1,0,0.5,1,0,0", "1,1,1.5,0,0.25,1", "2,2,2.5,1,1,0", "2,3,3.5,1,1,true")


def write(folder: Path, *lines: str, name: str = "a.csv") -> str:
    (folder / name).write_text("\n".join(lines) + "\n")
    return f"csv:{folder / name}"


def with_line(number: int, line: str) -> list[str]:
    """The example with one line replaced."""
    return [*LINES[:number], line, *LINES[number + 1 :]]


def rows(spec: str, mapping: dict[str, str] | None = None) -> dict[str, list]:
    return pa.concat_tables(tables_of(open_source(spec, mapping or MAPPING))).to_pydict()


def test_a_csv_log_is_read(tmp_path: Path) -> None:
    assert rows(write(tmp_path, *LINES)) == {
        "observations": [[0, 0.5], [1, 1.5], [2, 2.5], [3, 3.5]],
        "actions": [[1], [0], [1], [1]],
        "rewards": [0, 0.25, 1, 1],
        "terminations": [False, True, False, True],
        "episode": [1, 1, 2, 2],
    }


def test_whole_numbers_everywhere_are_choices_and_one_fraction_makes_them_torques(tmp_path: Path) -> None:
    """However late the fraction comes: here in the second file."""
    write(tmp_path, *LINES, name="part-1.csv")
    assert open_source(f"csv:{tmp_path}", MAPPING).layout.is_discrete
    write(tmp_path, *with_line(4, "2,3,3.5,0.5,1,1"), name="part-2.csv")
    source = open_source(f"csv:{tmp_path}", MAPPING)
    assert not source.layout.is_discrete
    assert rows(f"csv:{tmp_path}")["actions"][-1] == [0.5]


def test_a_whole_number_below_0_is_no_choice(tmp_path: Path) -> None:
    assert not open_source(write(tmp_path, *with_line(2, "1,1,1.5,-1,0.25,1")), MAPPING).layout.is_discrete


def test_ids_are_words_in_every_file_if_they_are_in_one(tmp_path: Path) -> None:
    """So that an episode that runs on from one file into the next keeps its id."""
    write(tmp_path, *LINES, name="part-1.csv")
    write(tmp_path, LINES[0], "2,4,4.5,1,1,0", "b,5,5.5,1,1,1", name="part-2.csv")
    ids = rows(f"csv:{tmp_path}")["episode"]
    assert ids[2] == ids[3] == ids[4] != ids[5]


def test_files_are_streamed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iql_ray.data.sources.csv.BLOCK_BYTES", 64)
    lines = [f"{index // 10},{index},{index},0.5,{index},{int(index % 10 == 9)}" for index in range(100)]
    source = open_source(write(tmp_path, LINES[0], *lines), MAPPING)
    assert len(list(tables_of(source))) > 20
    assert rows(source.spec)["rewards"] == list(range(100))


def test_a_log_becomes_a_prepared_dataset(tmp_path: Path) -> None:
    manifest = prepare_here(write(tmp_path, *LINES), tmp_path / "a", MAPPING)
    assert (manifest.num_rows, manifest.num_episodes, manifest.spaces.num_actions) == (4, 2, 2)
    assert [row["rewards"] for row in read_rows(tmp_path / "a")] == [0, 0.25, 1, 1]


BAD_LINES = [
    (with_line(3, "2,2,2.5,1,1"), r"row 2 of \S*a\.csv: Expected 6 columns, got 5: 2,2,2.5,1,1; correct the line"),
    (with_line(3, "2,two,2.5,1,1,0"), r"column x at row 2 of \S*a\.csv: .*invalid value 'two'"),
    (with_line(3, "2,2,2.5,1,,0"), r"column reward is null at row 2 of a\.csv"),
    (with_line(3, "2,2,2.5,1,NaN,0"), r"column reward is null at row 2 of a\.csv"),
    (with_line(3, "2,2,2.5,1,1,2"), r"column done at row 2 of \S*a\.csv: .*invalid value '2'"),
    (with_line(3, ",2,2.5,1,1,0"), r"column run is null at row 2 of a\.csv"),
    (["run,x,x,torque,reward,done", *LINES[1:]], r"a\.csv has columns x twice; name each column once"),
    (["run,x,z,torque,reward,done", *LINES[1:]], r"has no column 'y' for observations; it has done, reward, run"),
    ([LINES[0]], "has zero rows; expected at least one transition"),
]


@pytest.mark.parametrize(("lines", "message"), BAD_LINES)
def test_a_bad_line_is_named_by_file_row_and_column(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        rows(write(tmp_path, *lines))


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(ValueError, match=r"a\.csv: Empty CSV file"):
        open_source(f"csv:{tmp_path / 'a.csv'}", MAPPING)


def test_a_bad_line_of_a_later_block_has_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iql_ray.data.sources.csv.BLOCK_BYTES", 64)
    lines = [f"1,{index},1,0.5,{'one' if index == 77 else 1},0" for index in range(100)]
    with pytest.raises(ValueError, match=r"column reward at row 77 of"):
        rows(write(tmp_path, LINES[0], *lines))


def test_files_of_different_headers_are_refused(tmp_path: Path) -> None:
    write(tmp_path, *LINES, name="part-1.csv")
    write(tmp_path, "run,x,torque,reward,done", "1,1,1,1,1", name="part-2.csv")
    with pytest.raises(ValueError, match=r"part-2\.csv lacks columns \['y'\] that part-1\.csv has"):
        open_source(f"csv:{tmp_path}", MAPPING)


def test_a_folder_without_logs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no CSV file at .* \(a file, a folder of \*\.csv, \*\.csv\.gz, or a glob\)"):
        open_source(f"csv:{tmp_path}", MAPPING)
