"""`iql-ray promote`, `rollback`, `models` and `evaluate --model`: judged from data, and once in Pendulum."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iql_ray.data.prepared import read_manifest
from iql_ray.tracking import verdicts
from iql_ray.tracking.store import default_tracking_uri, open_client
from pipelines import __main__ as iql_ray_command
from tests.evaluation.fqe_examples import constant_policy, narrow_columns, prepared
from tests.evaluation.toys import random_policy, zero_policy
from tests.tracking.examples import new_storage, start

SHORT = ["--fqe-updates", "300", "--fqe-hidden-sizes", "16", "--fqe-batch-size", "64", "--device", "cpu"]


class Gate:
    """A storage with a run whose policy pulls, a folder whose policy pushes, and `known`, whose champion pulls."""

    def __init__(self, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.folder = folder
        self.storage = new_storage(folder, tmp_path_factory)
        self.uri = default_tracking_uri(self.storage)
        self.client = open_client(self.uri)
        self.dataset = prepared(folder / "data", rewarded_columns())
        self.digest = read_manifest(self.dataset).digest
        self.pulling, self.pushing = (self.saved(name, action) for name, action in (("pull", -0.8), ("push", 0.8)))
        logger = start(self.storage)
        self.run_id = logger.run_id
        run_policy = logger.folder / "policy"
        run_policy.mkdir()
        constant_policy(-0.8).save(run_policy)
        logger.log_model(run_policy, step=7, tags={"dataset.sha256": self.digest, "dataset.source": "npz:rows.npz"})
        assert logger.close()
        source = self.client.get_logged_model(logger.registered()["policy"]["model_id"]).artifact_location
        self.client.create_registered_model("known")
        self.client.create_model_version("known", source, self.run_id)
        self.client.set_registered_model_alias("known", "champion", "1")

    def saved(self, name: str, action: float, observation_dim: int = 2) -> Path:
        folder = self.folder / name
        folder.mkdir()
        constant_policy(action, observation_dim).save(folder)
        return folder

    def __call__(self, capsys: pytest.CaptureFixture[str], *words: Any, code: int = 0) -> tuple[dict[str, Any], str]:
        """Run a command in this storage: its last line, and what it said on stderr."""
        assert iql_ray_command.main([*map(str, words), "--storage", str(self.storage)]) == code
        output = capsys.readouterr()
        return json.loads(output.out.splitlines()[-1]) if code == 0 else {}, output.err

    def judged(self, *words: Any) -> list[Any]:
        return ["promote", "--name", "pen", "--dataset", self.dataset, "--discount", "0", *SHORT, *words]


def rewarded_columns() -> dict[str, np.ndarray]:
    """An action of a is worth a, whatever is observed."""
    columns = narrow_columns()
    actions = np.random.default_rng(1).uniform(-1, 1, columns["actions"].shape).astype(np.float32)
    return {**columns, "actions": actions, "rewards": actions[:, 0]}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate"), tmp_path_factory)


def test_the_way_of_a_model_from_its_first_champion_to_a_rollback(gate, capsys):
    """One story, because each promotion needs the one before it."""
    first, said = gate(capsys, *gate.judged("--run", gate.run_id))
    assert (first["decision"], first["version"], first["replaced"]) == ("promoted", "1", None)
    assert first["score"] == pytest.approx(-0.8, abs=0.3)
    assert (first["dataset_sha256"], first["protocol"]["dataset_sha256"]) == (gate.digest, gate.digest)
    assert "promoted, the first champion" in said

    second, _ = gate(capsys, *gate.judged("--candidate", gate.pushing))
    assert (second["decision"], second["version"], second["replaced"]) == ("promoted", "2", "1")
    assert second["difference"] == pytest.approx(1.6, abs=0.5)
    assert second["difference_ci"][0] > 0
    assert second["protocol_sha256"] == first["protocol_sha256"]
    written = verdicts.read_record(gate.client.get_model_version("pen", "2").tags)
    assert written is not None
    assert written["warnings"] == second["warnings"]

    third, said = gate(capsys, *gate.judged("--candidate", gate.pulling))  # the policy that is version 1 already
    assert (third["decision"], third["version"], third["compared_with"]) == ("kept", "1", "2")
    assert "is not above the margin (0)" in said
    assert len(gate.client.search_model_versions("name = 'pen'")) == 2

    again, _ = gate(capsys, *gate.judged("--candidate", "models:/pen@champion"))
    assert again["decision"] == "already champion"

    listed, said = gate(capsys, "models", "--name", "pen")
    assert [(row["version"], row["aliases"]) for row in listed["versions"]] == [
        ("2", ["champion"]),
        ("1", ["previous-champion"]),
    ]
    assert listed["versions"][0]["score_ci"] == second["score_ci"]
    assert "pen/2  @champion" in said

    shown, said = gate(capsys, "models", "show", "pen/1")
    assert shown["dataset"]["sha256"] == gate.digest
    assert shown["run"]["id"] == gate.run_id
    assert shown["policy"]["num_updates"] == "7"
    assert shown["promotion"]["decision"] == "kept"
    assert said.index("dataset") < said.index("run") < said.index("policy") < said.index("decision")

    evaluated, _ = gate(
        capsys, "evaluate", "--model", "models:/pen@champion", "--method", "fqe", "--dataset", gate.dataset, *SHORT
    )
    assert evaluated["policy"] == "models:/pen@champion"

    back, _ = gate(capsys, "rollback", "--name", "pen", "--reason", "it shakes")
    assert (back["restored"], back["rolled_back"], back["reason"]) == ("1", "2", "it shakes")
    shown, _ = gate(capsys, "models", "show", "pen@champion")
    assert (shown["model"]["version"], shown["rollback"]["reason"]) == ("1", "it shakes")


def test_a_dry_run_says_what_would_be_decided_and_writes_nothing(gate, capsys):
    candidate = gate.saved("other", 0.7)
    result, said = gate(capsys, *gate.judged("--candidate", candidate, "--name", "fresh", "--dry-run"))
    assert (result["decision"], result["version"], result["is_dry_run"]) == ("promoted", "", True)
    assert "promoted, the first champion" in said
    assert gate.client.search_registered_models("name = 'fresh'") == []


def test_a_candidate_of_another_task_than_the_champion_is_refused_before_anything_is_spent(gate, capsys):
    wide = gate.saved("wide", 0.5, observation_dim=3)
    _, said = gate(capsys, *gate.judged("--candidate", wide, "--name", "known"), code=2)
    assert "the candidate acts in" in said
    assert "register what does another task under another --name" in said
    assert "fitting" not in said


def test_a_champion_that_is_no_policy_is_named(gate, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    gate.client.create_registered_model("foreign")
    gate.client.create_model_version("foreign", str(tmp_path / "empty"))
    gate.client.set_registered_model_alias("foreign", "champion", "1")
    _, said = gate(capsys, *gate.judged("--candidate", gate.pushing, "--name", "foreign"), code=2)
    assert "the champion of 'foreign', version 1" in said
    assert "holds no policy" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["promote", "--name", "pen", "--env", "E"], "either --run RUN or --candidate URI"),
        (["promote", "--name", "pen", "--run", "r"], "either --env ID or --dataset DIR"),
        (["promote", "--name", "a/b", "--run", "r", "--env", "E"], "model name 'a/b' must be"),
        (["promote", "--name", "pen", "--run", "r", "--dataset", "d", "--require-simulator"], "--require-simulator"),
        (["promote", "--name", "pen", "--run", "r", "--dataset", "d", "--num-episodes", "9"], "judges with --env"),
        (["promote", "--name", "pen", "--run", "r", "--env", "E", "--discount", "0.5"], "judges with --dataset"),
        (["promote", "--name", "pen", "--run", "r", "--env", "E", "--margin", "-1"], "margin is -1.0"),
        (["promote", "--name", "pen", "--run", "nobody", "--env", "E"], "the store has no such run"),
        (["promote", "--name", "pen", "--candidate", "models:/known/99", "--env", "E"], "'known' has the versions"),
        (["promote", "--name", "pen", "--candidate", "models:/nix@a", "--env", "E"], "no version of 'nix'"),
        (["promote", "--name", "pen", "--candidate", "nowhere", "--env", "E"], "nowhere holds no policy"),
        (["promote", "--name", "new", "--candidate", "PUSH", "--env", "Nope-v1"], "'Nope-v1' is unknown"),
        (["promote", "--name", "new", "--candidate", "PUSH", "--env", "Pendulum-v1"], "observation dimensions: 3"),
        (["rollback", "--name", "nix"], "no version of 'nix' is registered"),
        (["rollback", "--name", "it's"], "model name 'it's' must be"),
        (["models", "show", "known@nobody"], "'known' has the versions"),
        (["models", "show", "pen"], "expected models:/NAME/VERSION or models:/NAME@ALIAS"),
        (["models", "list"], "'list' is not understood; expected nothing, or: show NAME@champion"),
        (["models", "--name", "nix"], "model 'nix' does not exist"),
        (["evaluate", "--model", "models:/nix@champion", "--env", "Pendulum-v1"], "no version of 'nix' is registered"),
        (
            ["evaluate", "--model", "models:/known/1", "--env", "Pendulum-v1"],
            "observation dimensions: 3 in",
        ),
    ],
)
def test_misuse_is_one_message_and_exit_code_two(gate, capsys, words, message):
    _, said = gate(capsys, *[str(gate.pushing) if word == "PUSH" else word for word in words], code=2)
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "words",
    [
        ["promote", "--name", "pen", "--candidate", "models:/pen/1", "--env", "Pendulum-v1"],
        ["rollback", "--name", "pen"],
        ["models"],
        ["evaluate", "--model", "models:/pen@champion", "--env", "Pendulum-v1"],
    ],
)
def test_a_dead_registry_is_one_message_and_exit_code_one(gate, capsys, monkeypatch, words):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        uri = f"http://ann:pa55@127.0.0.1:{listener.getsockname()[1]}"
    _, said = gate(capsys, *words, "--tracking-uri", uri, code=1)
    assert "does not answer; start it, or check --tracking-uri" in said
    assert "pa55" not in said
    assert "Traceback" not in said


def test_a_missing_store_is_refused_and_not_created(tmp_path, capsys):
    for words in (["models"], ["rollback", "--name", "pen"]):
        assert iql_ray_command.main([*words, "--storage", str(tmp_path)]) == 2
        assert "does not exist; check --storage" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.ray
def test_candidate_and_champion_act_in_the_environment_from_the_same_seeds(ray_session, gate, capsys):
    for name, policy in (("wild", random_policy(3, 1, 2.0)), ("calm", zero_policy(3, 1, 2.0))):
        (gate.folder / name).mkdir()
        policy.save(gate.folder / name)
    words = ["promote", "--name", "pendulum", "--env", "Pendulum-v1", "--num-episodes", "8", "--require-simulator"]
    first, _ = gate(capsys, *words, "--candidate", gate.folder / "wild")
    second, said = gate(capsys, *words, "--candidate", gate.folder / "calm")
    assert (second["decision"], second["compared_with"]) == ("promoted", "1")
    assert second["seeds"] == first["seeds"]
    assert second["champion_score"] == first["score"]
    assert second["difference"] == pytest.approx(second["score"] - second["champion_score"])
    assert [each["kind"] for each in second["warnings"]] == ["few-episodes"]
    assert "evaluating the champion, version 1" in said
    uri = ["--model", "models:/pendulum@champion", "--env", "Pendulum-v1", "--num-episodes", "8"]
    evaluated, _ = gate(capsys, "evaluate", *uri)
    assert evaluated["return_mean"] == second["score"]


@pytest.mark.parametrize("command", ["promote", "rollback", "models"])
def test_asking_for_help_imports_nothing_heavy(command):
    script = (
        f"import sys; from pipelines import {command}; code = {command}.main(['--help']); "
        "heavy = {'torch', 'ray', 'mlflow', 'gymnasium', 'scipy'} & set(sys.modules); sys.exit(code or len(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL).returncode == 0
