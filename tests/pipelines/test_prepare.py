"""The command: real files through Ray, one line of JSON, one message for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iql_ray.data.demo import demo_dataset_path
from iql_ray.data.prepared import read_manifest
from iql_ray.data.sources import open_source
from pipelines.prepare import PrepareConfig, Reader, gathered, is_for_ray, main, prepare
from tests.data.examples import (
    DATA_FILES,
    changed,
    example,
    parquet_table,
    prepare_here,
    with_value,
    write_hdf5,
    write_npz,
    write_parquet,
)
from tests.data.inspected import clean_columns

CARTPOLE = f"parquet:{DATA_FILES / 'cartpole-rllib'}"
COLUMNS = ("observations=obs", "next_observations=new_obs", "terminations=dones", "episode=eps_id")


def test_the_shipped_pendulum_data(ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "pendulum")
    arguments = ["--source", f"npz:{demo_dataset_path()}", "--env", "Pendulum-v1", "--action-bounds", "-1", "1"]
    assert main([*arguments, "--out", out]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["path"], result["num_rows"], result["num_episodes"]) == (out, 99_000, 500)
    manifest = read_manifest(out)
    assert result["digest"] == manifest.digest
    assert manifest.environment_id == "Pendulum-v1"
    assert manifest.columns["actions"].max == (2.0,)


def test_the_cartpole_logs_of_rllib(ray_session: None, tmp_path: Path) -> None:
    result = prepare(PrepareConfig(source=CARTPOLE, out=tmp_path / "a", env="CartPole-v1", columns=COLUMNS))
    assert (result["num_rows"], result["num_episodes"], result["return_mean"]) == (4137, 21, 197)
    assert read_manifest(tmp_path / "a").spaces.num_actions == 2


def test_through_ray_or_not_the_dataset_is_the_same(ray_session: None, tmp_path: Path) -> None:
    spec = write_parquet(tmp_path / "a", changed(next_observations=None))
    results = [
        prepare(PrepareConfig(source=spec, out=tmp_path / reader, reader=reader)) for reader in ("ray", "threads")
    ]
    serial = prepare_here(spec, tmp_path / "serial")
    assert [result["digest"] for result in results] == [serial.digest] * 2
    assert read_manifest(tmp_path / "ray").shards == read_manifest(tmp_path / "threads").shards == serial.shards


@pytest.mark.parametrize(
    ("reader", "address", "size", "kind", "expected"),
    [
        ("auto", None, 0, "hdf5", False),
        ("auto", "10.0.0.1:6379", 0, "hdf5", True),
        ("auto", None, -1, "hdf5", True),
        ("auto", None, -1, "npz", False),
        ("threads", "10.0.0.1:6379", -1, "hdf5", False),
        ("ray", None, 0, "hdf5", True),
    ],
)
def test_ray_reads_where_it_is_worth_its_start(
    reader: Reader,
    address: str | None,
    size: int,
    kind: str,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`size` is what the files must exceed: -1 stands for large files."""
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("pipelines.prepare.BYTES_WORTH_RAY", size or 2**40)
    write = {"hdf5": write_hdf5, "npz": write_npz}[kind]
    source = open_source(write(tmp_path / f"a.{kind}", example()))
    assert is_for_ray(source, reader) == expected


def test_a_file_of_settings_says_the_same_as_flags(ray_session: None, tmp_path: Path) -> None:
    settings = tmp_path / "prepare.yaml"
    settings.write_text(f"source: {CARTPOLE}\ncolumns: [{', '.join(COLUMNS)}]\nlicence: Apache-2.0\n")
    assert main(["--config", str(settings), "--out", str(tmp_path / "a")]) == 0
    assert read_manifest(tmp_path / "a").licence == "Apache-2.0"


@pytest.mark.parametrize("words", [["--fix", "time-limit-is-truncation"], ["--fix=clip-actions", "--fix", "{}"]])
def test_repairs_are_done_said_and_recorded(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    lengths = np.array([12, 5, 12, 12])
    columns = clean_columns(lengths)
    columns["terminations"] |= columns["truncations"]
    columns["truncations"][:] = False
    source = write_npz(tmp_path / "a.npz", columns)
    rules = [word.format("time-limit-is-truncation") for word in words]
    assert main(["--source", source, *rules, "--out", str(tmp_path / "a")]) == 0
    output = capsys.readouterr()
    assert "--fix time-limit-is-truncation: 3 rows of 3 episodes; terminations at step 12" in output.err
    result = json.loads(output.out.splitlines()[-1])
    assert (result["num_terminations"], result["num_truncations"]) == (1, 3)
    fixes = read_manifest(tmp_path / "a").provenance.fixes
    assert [(fix["rule"], fix["num_rows"]) for fix in result["fixes"]] == [(fix.rule, fix.num_rows) for fix in fixes]
    assert len(fixes) == len([word for word in words if word.startswith("--fix")])


def test_a_success_that_a_log_names_ends_its_episodes(ray_session: None, tmp_path: Path) -> None:
    columns = clean_columns(np.array([5, 5]))
    table = parquet_table(columns).append_column("solved", pa.array([0, 0, 1, 0, 0] * 2))
    pq.write_table(table, tmp_path / "a.parquet")
    config = PrepareConfig(
        source=f"parquet:{tmp_path / 'a.parquet'}",
        columns=("success=solved",),
        fix=("end-at-success",),
        out=tmp_path / "out",
    )
    result = prepare(config)
    assert (result["num_rows"], result["num_terminations"]) == (6, 2)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.provenance.columns["success"] == "solved"
    assert "success column" in manifest.provenance.fixes[0].description


def test_a_repeated_flag_is_said_once_with_all_its_values() -> None:
    assert gathered("--fix", ["--fix", "a", "--out", "o", "--fix=b", "--fix", "c", "d"]) == [
        *("--out", "o"),
        *("--fix", "a", "b", "c", "d"),
    ]
    assert gathered("--fix", ["--out", "o"]) == ["--out", "o"]


def test_a_long_preparation_says_how_far_it_is(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.prepare.PROGRESS_SECONDS", 0.0)
    prepare(PrepareConfig(source=write_npz(tmp_path / "a.npz", example()), out=tmp_path / "a"))
    assert capsys.readouterr().err == "read 5 of 5 rows\n"


BAD_DATA = [
    (with_value("observations", 3, np.nan), [], "observations has nan at row 3 of a.npz, element 1"),
    (with_value("actions", 2, 1.5), [], "action 1.5 at row 2 of a.npz"),
    (changed(truncations=np.zeros(5, bool)), [], "--unfinished-episodes truncate"),
    (changed(terminations=np.array([0, 0, 3, 0, 0])), [], "terminations has 3 at row 2 of a.npz"),
]
BAD_OPTIONS = [
    (changed(rewards=None), [], "has no column rewards"),
    (changed(rewards=np.array(["a"] * 5)), [], "column rewards has dtype"),
    ({name: column[:0] for name, column in example().items()}, [], "has zero rows"),
    (example(), ["--env", "Pendulum-v1"], "the data has 2 observations and 1 continuous actions"),
    (example(), ["--columns", "reward=rewards"], "unknown key 'reward'; did you mean 'rewards'?"),
    (example(), ["--columns", "rewards"], "expected CANONICAL=THEIRS"),
    (example(), ["--action-bounds", "1", "-1"], "expected LOW below HIGH"),
    (example(), ["--rows-per-shard", "0"], "rows_per_shard is 0"),
    (example(), ["--fix", "everything"], "--fix"),
    (changed(actions=np.array([0, 1, 1, 0, 2])), ["--fix", "clip-actions"], "is for actions in a box"),
]


def refuse(columns: dict, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    spec = write_npz(tmp_path / "a.npz", columns)
    assert main(["--source", spec, "--out", str(tmp_path / "out" / "a"), *options]) == 2
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return output.err


@pytest.mark.parametrize(("columns", "options", "message"), BAD_DATA)
def test_bad_rows_are_one_message_and_exit_2(
    columns: dict,
    options: list[str],
    message: str,
    ray_session: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refuse(columns, options, tmp_path, capsys)


@pytest.mark.parametrize(("columns", "options", "message"), BAD_OPTIONS)
def test_what_headers_and_options_tell_is_refused_before_ray_starts(
    columns: dict,
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.prepare.ray_session", lambda: pytest.fail("Ray was asked for"))
    assert message in refuse(columns, options, tmp_path, capsys)


def test_an_out_folder_that_holds_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write_npz(tmp_path / "a.npz", example())
    assert main(["--source", spec, "--out", str(tmp_path), "--overwrite"]) == 2
    assert "holds something that is no prepared dataset" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom pipelines.prepare import main\nassert main(['--help']) == 0\n"
        "print(sorted({'ray', 'torch', 'pyarrow', 'h5py', 'minari', 'gymnasium', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--unfinished-episodes" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
