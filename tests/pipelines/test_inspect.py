"""The command: a summary for people on stderr, a page, one line of JSON for scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.inspect import main
from tests.data.examples import CARTPOLE_COLUMNS, DATA_FILES, prepare_here


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "cartpole"
    prepare_here(f"parquet:{DATA_FILES / 'cartpole-rllib'}", out, CARTPOLE_COLUMNS)
    return out


def test_the_cartpole_logs(cartpole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in cartpole.iterdir())
    assert main([str(cartpole), "--out", str(tmp_path / "pages")]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out.splitlines()[-1])
    assert result["page"] == str(tmp_path / "pages" / "cartpole-inspection.html")
    assert "1 problem and 1 note." in Path(result["page"]).read_text()
    assert (result["num_rows"], result["num_episodes"], result["return_mean"]) == (4137, 21, 197)
    assert (result["episode_length_min"], result["episode_length_max"], result["truncation_share"]) == (137, 200, 0)
    assert [finding["kind"] for finding in result["findings"]] == ["time-limit-as-termination", "constant-reward"]
    assert result["findings"][0]["examples"][0] == [0, 199]
    assert result["settings"]["dropout-rate"] == 0.1
    assert set(result["reasons"]) == set(result["settings"])
    assert "PROBLEM  20 of 21 terminations come at step 200" in output.err
    assert "--fix time-limit-is-truncation" in output.err
    assert sorted(path.name for path in cartpole.iterdir()) == before, "the dataset is not touched"


def test_the_page_lies_beside_the_dataset_by_default(cartpole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(cartpole)]) == 0
    page = cartpole.parent / "cartpole-inspection.html"
    assert json.loads(capsys.readouterr().out)["page"] == str(page)
    assert page.is_file()


def test_no_dataset_and_no_place_for_the_page_are_misuse(
    cartpole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nothing")]) == 2
    assert "does not exist; expected a folder made by `iql-ray prepare" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([str(cartpole), "--out", str(tmp_path / "file")]) == 2
    assert "choose another folder with --out" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom pipelines.inspect import main\nassert main(['--help']) == 0\n"
        "print(sorted({'ray', 'torch', 'pyarrow', 'numpy', 'matplotlib', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "prepare" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_looking_starts_no_ray_and_needs_no_torch(cartpole: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pipelines.inspect import main\n"
        f"assert main([{str(cartpole)!r}, '--out', {str(tmp_path)!r}]) == 0\n"
        "print(sorted({'ray', 'torch', 'gymnasium', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
