"""Settings from recipe, file and flags in that order; one JSON line; exit codes; help without anything heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from iql_ray import recipes
from pipelines import __main__ as dispatch
from pipelines import command_line

HEAVY = {"torch", "ray", "mlflow", "matplotlib", "minari", "gymnasium", "pandas", "pyarrow", "scipy"}


@dataclass(frozen=True, kw_only=True)
class Agent:
    """How it learns."""

    expectile: float = 0.8
    """Expectile tau."""
    hidden_sizes: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        if not 0 < self.expectile < 1:
            raise ValueError(f"expectile is {self.expectile}, expected a number between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Train something."""

    dataset: str
    """The prepared dataset."""
    env: str | None = None
    recipe: str | None = None
    agent: Agent = field(default_factory=Agent)
    num_updates: int = 10
    is_verbose: bool = False
    columns: tuple[str, ...] = ()
    action_bounds: tuple[float, float] | None = None


@pytest.fixture(autouse=True)
def _one_recipe(monkeypatch):
    monkeypatch.setattr(recipes, "RECIPES", {"fast": {"agent": {"expectile": 0.6}, "num_updates": 60}})


def parse(*arguments: str) -> Settings:
    return command_line.parse(Settings, arguments)


def write(folder: Path, text: str, name: str = "run.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def unboxed(shown: str) -> str:
    """What tyro says, without its box and the line breaks of a narrow terminal."""
    return " ".join(shown.translate(str.maketrans("╭╮╰╯│─", "      ")).split())


def do_nothing(settings: Settings) -> dict[str, str]:
    return {}


def run(execute, *arguments: str) -> int:
    return command_line.main(Settings, execute, ["--dataset", "d", *arguments])


def test_without_anything_else_the_defaults_hold():
    assert parse("--dataset", "d") == Settings(dataset="d")


def test_a_recipe_wins_over_defaults_a_file_over_it_and_a_flag_over_both(tmp_path):
    file = write(tmp_path, "agent: {expectile: 0.7}\n")
    assert parse("--dataset", "d", "--recipe", "fast").agent.expectile == 0.6
    assert parse("--dataset", "d", "--recipe", "fast", "--config", file).agent.expectile == 0.7
    assert parse("--expectile", "0.9", "--dataset", "d", "--recipe", "fast", "--config", file).agent.expectile == 0.9
    assert parse("--dataset", "d", "--recipe", "fast", "--config", file).num_updates == 60


def test_a_file_may_name_the_recipe_and_a_flag_may_name_another(tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "slow", {"num_updates": 600})
    file = write(tmp_path, "dataset: d\nrecipe: fast\n")
    assert parse("--config", file).num_updates == 60
    chosen = parse("--config", file, "--recipe=slow")
    assert (chosen.num_updates, chosen.agent.expectile, chosen.recipe) == (600, 0.8, "slow")


def test_a_file_may_be_nested_or_flat_yaml_or_json(tmp_path):
    expected = Settings(dataset="d", agent=Agent(expectile=0.7, hidden_sizes=(32, 32)))
    nested = write(tmp_path, "dataset: d\nagent:\n  expectile: 0.7\n  hidden_sizes: [32, 32]\n")
    flat = write(tmp_path, '{"dataset": "d", "expectile": 0.7, "hidden_sizes": [32, 32]}', "run.json")
    assert parse("--config", nested) == parse("--config", flat) == expected


def test_every_kind_of_value_arrives_as_itself(tmp_path):
    file = write(
        tmp_path,
        "dataset: --odd name\nis_verbose: true\ncolumns: {rewards: r}\naction_bounds: [-1.0, 1e-3]\nenv: null\n",
    )
    expected = Settings(dataset="--odd name", is_verbose=True, columns=("rewards=r",), action_bounds=(-1.0, 1e-3))
    assert parse("--config", file) == expected
    assert not parse("--config", file, "--no-is-verbose").is_verbose
    assert parse("--config", file, "--action-bounds", "None").action_bounds is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("expectil: 0.7", "run.yaml: unknown key 'expectil'; did you mean 'expectile'?"),
        ("agent: {expectil: 0.7}", "run.yaml, agent: unknown key 'expectil'; did you mean 'expectile'?"),
        ("agent: 3", "run.yaml: 'agent' is a group of settings, got 3"),
        ("num_updates:", "run.yaml: 'num_updates' is empty"),
        ("- 1", "must hold a mapping"),
    ],
)
def test_a_file_that_does_not_fit_is_misuse_that_names_file_and_key(tmp_path, capsys, text, message):
    assert run(do_nothing, "--config", write(tmp_path, text)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--expectile", "high"], "could not convert string to float"),
        (["--expectile", "2"], "expectile is 2.0, expected a number between 0 and 1"),
        (["--expectil", "0.5"], "Unrecognized options"),
        (["--recipe", "unknown"], "unknown recipe 'unknown'; expected one of: fast"),
        (["--config", "absent.yaml"], "absent.yaml does not exist"),
        (["--config"], "--config"),
    ],
)
def test_misuse_exits_2_with_a_message_and_no_traceback_and_runs_nothing(capsys, arguments, message):
    assert run(lambda settings: pytest.fail("ran"), *arguments) == 2
    captured = capsys.readouterr()
    assert message in unboxed(captured.err)
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_wrong_type_in_a_file_shows_the_flags_that_the_file_became(tmp_path, capsys):
    assert run(do_nothing, "--config", write(tmp_path, "num_updates: 1.5")) == 2
    assert "--num-updates=1.5" in capsys.readouterr().err


def test_a_value_error_of_the_command_is_misuse(capsys):
    def execute(settings):
        raise ValueError("dataset d has no manifest.json; run `iql-ray prepare` first")

    assert run(execute) == 2
    assert capsys.readouterr().err == (
        "iql-ray test-command-line: error: dataset d has no manifest.json; run `iql-ray prepare` first\n"
    )


def test_the_traceback_of_a_refusal_shows_on_request(capsys, monkeypatch):
    monkeypatch.setenv(command_line.TRACEBACK_VARIABLE, "1")
    assert run(lambda settings: int("x")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_value_error_out_of_a_ray_task_shows_its_cause_alone(capsys):
    class RemoteError(ValueError):
        cause = ValueError("row 3: rewards is nan")

    def execute(settings):
        raise RemoteError("a page of remote traceback")

    assert run(execute) == 2
    assert capsys.readouterr().err == "iql-ray test-command-line: error: row 3: rewards is nan\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("worker died"), 1), (KeyboardInterrupt(), 130), (SystemExit(15), 143), (SystemExit(0), 130)],
)
def test_failures_and_signals_have_codes_of_their_own_and_no_result(capsys, error, code):
    def execute(settings):
        raise error

    assert run(execute) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("Traceback" in captured.err) == (code == 1)


def test_the_last_line_of_stdout_is_the_result_as_strict_json(capsys):
    def execute(settings):
        print("on the way")
        return {
            "return_mean": np.float32(1.5),
            "return_ci": (np.float64(1.0), float("inf")),
            "num_episodes": np.int64(3),
            "path": Path("runs/x"),
            "success_rate": float("nan"),
            "nested": {"is_best": np.bool_(True), "nothing": None},
        }

    assert run(execute) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == {
        "return_mean": 1.5,
        "return_ci": [1.0, None],
        "num_episodes": 3,
        "path": "runs/x",
        "success_rate": None,
        "nested": {"is_best": True, "nothing": None},
    }


def test_help_lists_flat_flags_with_their_docstrings_and_the_file_option(capsys):
    assert run(do_nothing, "--help") == 0
    shown = capsys.readouterr().out
    for words in ("--expectile FLOAT", "Expectile tau.", "--config", "--dataset", "Train something."):
        assert words in shown


def test_the_overview_lists_every_command(capsys):
    assert dispatch.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in dispatch.COMMANDS)


def test_without_a_command_the_overview_goes_to_stderr(capsys):
    assert dispatch.main([]) == 2
    captured = capsys.readouterr()
    assert "usage: iql-ray COMMAND" in captured.err
    assert captured.out == ""


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    assert dispatch.main(["trian"]) == 2
    assert "unknown command 'trian'; did you mean 'train'?" in capsys.readouterr().err


def test_the_version_is_the_installed_one(capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"1.2.3 of {name}")
    assert dispatch.main(["--version"]) == 0
    assert capsys.readouterr().out == "iql-ray 1.2.3 of iql-ray\n"


@pytest.mark.parametrize("command", dispatch.COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(command):
    program = (
        f"import sys; from pipelines.__main__ import main; code = main(['{command}', '--help']);"
        f"print('heavy:', *sorted({HEAVY!r} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"
    assert f"iql-ray {command}" in done.stdout
