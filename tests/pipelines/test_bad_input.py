"""Everything a user can get wrong: exit 2, one message that names the thing, no traceback, nothing written.

The cases are a list to read. What headers, options and manifests tell is refused before Ray starts.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from iql_ray import checkpoint
from iql_ray import config as config_io
from pipelines import evaluate, extract, prepare, search, train
from tests.data.examples import changed, example, overwrite, prepare_here, with_value, write_hdf5, write_npz
from tests.distributed.examples import learner_of, plan_of, tiny_dataset, train_config
from tests.evaluation.toys import random_policy

MODULES = {"prepare": prepare, "train": train, "search": search, "extract": extract, "evaluate": evaluate}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files, datasets, runs and models, some of them wrong; no case may change any of it."""
    root = tmp_path_factory.mktemp("world")
    write_sources(root)
    dataset = tiny_dataset(root, num_rows=40)
    prepare_here(write_npz(root / "discrete.npz", changed(actions=np.array([0, 1, 1, 0, 2]))), root / "discrete")
    (root / "something").mkdir()
    (root / "something" / "notes.txt").write_text("mine")
    write_runs(root, dataset)
    (root / "model").mkdir()
    random_policy().save(root / "model")
    (root / "typo.yaml").write_text("dataset: d\nexpectil: 0.7\n")
    return root


def write_sources(root: Path) -> None:
    sources = {
        "good": example(),
        "no-rewards": changed(rewards=None),
        "text": changed(rewards=np.array(["a"] * 5)),
        "cube": changed(observations=np.zeros((5, 2, 2), np.float32)),
        "short": changed(actions=np.zeros((4, 1), np.float32)),
        "empty": {name: column[:0] for name, column in example().items()},
        "nan": with_value("observations", 3, np.nan),
        "infinite": with_value("rewards", 1, np.inf),
        "outside": with_value("actions", 2, 1.5),
        "unfinished": changed(truncations=np.zeros(5, bool)),
    }
    for name, columns in sources.items():
        write_npz(root / f"{name}.npz", columns)
    (root / "broken.npz").write_text("no archive")
    np.savez(root / "damaged.npz", **example())  # pyright: ignore[reportArgumentType]
    overwrite(root / "damaged.npz", b"{'descr'", b"{{{{{{{{")
    write_hdf5(root / "cut.hdf5", example())
    os.truncate(root / "cut.hdf5", 1000)


def write_runs(root: Path, dataset: Path) -> None:
    """A whole run; one whose dataset was replaced since; one whose configuration was edited to wider networks."""
    config = train_config(dataset, max_failures=0)
    for name in ("run", "moved", "wide"):
        folder = root / "runs" / name
        learner = learner_of(plan_of(config, folder))
        saved = checkpoint.Checkpoint(
            update_count=10,
            tensors=learner.agent.tensors(),
            random_states=(learner.random_states(),),
            dataset_digest=learner.plan.dataset_digest,
        )
        checkpoint.save(folder, saved, learner.policy())
    other = tiny_dataset(root / "others", num_rows=40, seed=1)
    wide = replace(config, agent=replace(config.agent, hidden_sizes=(16, 8)))
    for name, asked in (("run", config), ("moved", replace(config, dataset=str(other))), ("wide", wide)):
        config_io.save(asked, root / "runs" / name / "config.json")


def contents(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.name != "__pycache__"
    }


PREPARE = [
    ("--source npz:{}/missing.npz --out {}/new", "missing.npz"),
    ("--source npz:{}/broken.npz --out {}/new", "broken.npz"),
    ("--source npz:{}/damaged.npz --out {}/new", "damaged.npz' is damaged"),
    ("--source hdf5:{}/cut.hdf5 --out {}/new", "cut.hdf5' cannot be read"),
    ("--source npz:{}/no-rewards.npz --out {}/new", "has no column rewards"),
    ("--source npz:{}/text.npz --out {}/new", "column rewards has dtype"),
    ("--source npz:{}/cube.npz --out {}/new", "observations"),
    ("--source npz:{}/short.npz --out {}/new", "actions"),
    ("--source npz:{}/empty.npz --out {}/new", "has zero rows"),
    ("--source csv:{}/good.csv --out {}/new", "csv"),
    ("--source npz:{}/good.npz --out {}/new --columns rewards=reward", "reward"),
    ("--source npz:{}/good.npz --out {}/new --columns reward=rewards", "did you mean 'rewards'?"),
    ("--source npz:{}/good.npz --out {}/new --action-bounds 1 -1", "LOW below HIGH"),
    ("--source npz:{}/good.npz --out {}/new --env Pendulum-v1", "--env Pendulum-v1 with --source npz:"),
    ("--source npz:{}/good.npz --out {}/new --env Pendulum-v1", "good.npz: the data has 2 observations"),
    ("--source npz:{}/good.npz --out {}/new --env Pendulumm-v1", "'Pendulumm-v1' is unknown"),
    ("--source npz:{}/good.npz --out {}/something", "holds something that is no prepared dataset"),
    ("--source npz:{}/good.npz --out {}/something --overwrite", "holds something that is no prepared dataset"),
    ("--source npz:{}/good.npz --out {}/tiny-0", "already holds a prepared dataset"),
    ("--source npz:{}/good.npz --out {}/new --rows-per-shard 0", "rows_per_shard is 0"),
    ("--source npz:{}/good.npz --out {}/new --shuffle", "--shuffle"),
]
PREPARE_ROWS = [
    ("--source npz:{}/nan.npz --out {}/new", "observations has nan at row 3 of nan.npz, element 1"),
    ("--source npz:{}/infinite.npz --out {}/new", "rewards has inf at row 1 of infinite.npz"),
    ("--source npz:{}/outside.npz --out {}/new --action-bounds -1 1", "action 1.5 at row 2 of outside.npz"),
    ("--source npz:{}/unfinished.npz --out {}/new", "--unfinished-episodes truncate"),
]
TRAIN = [
    ("", "--dataset is required"),
    ("--dataset {}/missing", "missing does not exist"),
    ("--dataset {}/something", "is no prepared dataset"),
    ("--dataset {}/discrete --env Pendulum-v1", "environment 'Pendulum-v1' does not fit"),
    ("--dataset {}/tiny-0 --critic td", "critic td takes a maximum over all actions"),
    ("--dataset {}/tiny-0 --critic best", "--critic"),
    ("--dataset {}/tiny-0 --expectiles 0.5 0.5", "one or more different values"),
    ("--dataset {}/tiny-0 --expectiles 0.5 0.9 --critics td", "one for each of the expectiles"),
    ("--dataset {}/tiny-0 --seeds 0 1 --env Pendulum-v1", "trains a grid from data alone"),
    ("--dataset {}/tiny-0 --seeds 0 1 --register-as grid", "trains a grid from data alone"),
    ("--dataset {}/tiny-0 --seeds 0 1 --eval-method fqe", "eval_method = fqe with 2 members"),
    ("--dataset {}/tiny-0 --top-episode-share 0", "top_episode_share = 0.0"),
    ("--dataset {}/tiny-0 --env Pendulum-v1", "environment 'Pendulum-v1' does not fit"),
    ("--dataset {}/tiny-0 --env Pendulumm-v1", "'Pendulumm-v1' is unknown"),
    ("--dataset {}/tiny-0 --expectile 1", "expectile = 1.0: expected a number in (0, 1)"),
    ("--dataset {}/tiny-0 --expectile 0", "expectile = 0.0: expected a number in (0, 1)"),
    ("--dataset {}/tiny-0 --expectile high", "--expectile"),
    ("--dataset {}/tiny-0 --inverse-temperature -1", "inverse_temperature = -1.0"),
    ("--dataset {}/tiny-0 --discount 1.5", "discount = 1.5"),
    ("--dataset {}/tiny-0 --reward-scale 0", "reward_scale is 0.0"),
    ("--dataset {}/tiny-0 --num-updates 0", "num_updates = 0"),
    ("--dataset {}/tiny-0 --batch-size 9 --num-learners 2", "batch_size 9 is not divisible by num_learners 2"),
    (
        "--dataset {}/tiny-0 --num-learners 64 --batch-size 64",
        "40 of its 40 rows left to learn from, for 64",
    ),
    ("--dataset {}/tiny-0 --device tpu", "--device"),
    ("--dataset {}/tiny-0 --expectle 0.7", "--expectle"),
    ("--dataset {}/tiny-0 --recipe locomotive", "unknown recipe 'locomotive'"),
    ("--config {}/typo.yaml", "unknown key 'expectil'; did you mean 'expectile'?"),
    ("--config {}/missing.yaml", "missing.yaml does not exist"),
    ("--resume nothing --storage {}/runs", "run 'nothing' not found"),
    ("--resume run --storage {}/runs --expectile 0.9", "agent.expectile cannot be given"),
    ("--resume run --storage {}/runs --num-updates 50 --seed 3", "num_updates, seed cannot be given"),
    ("--resume moved --storage {}/runs", "was trained on a dataset with digest"),
    ("--resume wide --storage {}/runs", "another architecture"),
]
TRAIN_ON_RAY = [
    ("--dataset {}/tiny-0 --storage {}/new --num-learners 16 --batch-size 64", "16 learners of 1 CPUs need more than"),
    ("--dataset {}/tiny-0 --storage {}/new --tracking-uri nonsense://x", "nonsense://x"),
]
SEARCH = [
    ("", "--dataset is required"),
    ("--dataset {}/missing", "missing does not exist"),
    ("--dataset {}/tiny-0 --env Pendulum-v1", "environment 'Pendulum-v1' does not fit"),
    ("--dataset {}/tiny-0 --expectiles 0.5 1", "expectile = 1.0: expected a number in (0, 1)"),
    ("--dataset {}/tiny-0 --vary agent.discount=0.9,2", "discount = 2: expected a number in"),
    ("--dataset {}/tiny-0 --vary transforms.reward_scale=0,1", "reward_scale is 0"),
    ("--dataset {}/tiny-0 --search annealing", "--search"),
    ("--resume nobody --storage {}/runs", "run 'nobody' not found"),
    ("--dataset {}/tiny-0 --register-as a/b", "model name 'a/b'"),
]
EXTRACT = [
    ("--run nobody --inverse-temperatures 1", "run 'nobody' not found"),
    ("--run nobody --inverse-temperatures", "inverse_temperatures is empty"),
    ("--inverse-temperatures 1", "--run"),
]
EVALUATE = [
    ("", "either --run RUN or --model URI"),
    ("--run nothing --storage {}/runs", "run 'nothing' not found"),
    ("--run run --storage {}/runs --checkpoint 15", "has no checkpoint '15'; it has [10]"),
    ("--run run --storage {}/runs --checkpoint best", "nothing was evaluated yet"),
    ("--run run --storage {}/runs", "name one with --env"),
    ("--run run --storage {}/runs --env Hopper-v5", "does not fit"),
    ("--model {}/something --storage {}/runs --env Pendulum-v1", "something"),
    ("--model {}/model --storage {}/runs --env Pendulum-v1", "does not fit the policy"),
    ("--model {}/model --storage {}/runs --env Pendulum-v1 --num-episodes 0", "num_episodes is 0"),
    ("--model {}/model --episodes 3", "--episodes"),
]


CASES = {"prepare": PREPARE, "train": TRAIN, "search": SEARCH, "extract": EXTRACT, "evaluate": EVALUATE}


def refuse(command: str, words: str, world: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, require exit 2 without result or traceback; what it said."""
    before = contents(world)
    assert MODULES[command].main(words.replace("{}", str(world)).split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    assert contents(world) == before
    return " ".join(output.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [(command, *case) for command in MODULES for case in CASES[command]],
)
def test_refused_before_ray_starts(
    command: str,
    words: str,
    message: str,
    world: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.chdir(tmp_path)
    for module in (prepare, train, search, evaluate):
        monkeypatch.setattr(module, "ray_session", lambda **_: pytest.fail("Ray was asked for"))
    assert message in refuse(command, words, world, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [("prepare", *case) for case in PREPARE_ROWS] + [("train", *case) for case in TRAIN_ON_RAY],
)
def test_refused_by_what_only_the_rows_or_the_cluster_tell(
    command: str, words: str, message: str, ray_session: None, world: Path, capsys: pytest.CaptureFixture[str]
):
    assert message in refuse(command, words, world, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_cuda_where_there_is_none(ray_session: None, world: Path, capsys: pytest.CaptureFixture[str]):
    words = "--dataset {}/tiny-0 --storage {}/new --device cuda"
    assert "device cuda needs 1 GPUs, the cluster has 0 for torch" in refuse("train", words, world, capsys)
