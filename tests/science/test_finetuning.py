"""Fine-tuning on real logged data that is poor on purpose, long enough that its outcome says whether it improves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iql_ray.data import demo
from iql_ray.distributed.finetune_config import FinetuneConfig
from iql_ray.distributed.train_config import TrainConfig
from pipelines import command_line
from pipelines.evaluate import EvaluateConfig, evaluate
from pipelines.finetune import finetune
from pipelines.prepare import PrepareConfig, prepare
from pipelines.train import train

POOR = (-1000.0, -500.0)
"""Returns of the episodes that are kept: five of five hundred, halfway up."""
MIN_RETURN = -170.0
SMALL = ["--hidden-sizes", "64", "64", "--learning-rate", "1e-3"]


def poor_slice(folder: Path) -> Path:
    """The episodes of the demo's data whose returns are between those."""
    with np.load(demo.demo_dataset_path()) as file:
        data = {name: file[name] for name in file.files}
    stops = np.flatnonzero(data["timeouts"] | data["terminals"]) + 1
    starts = np.append(0, stops[:-1])
    kept = [
        np.arange(start, stop)
        for start, stop in zip(starts, stops, strict=True)
        if POOR[0] < data["rewards"][start:stop].sum() < POOR[1]
    ]
    np.savez(folder / "poor.npz", **{name: values[np.concatenate(kept)] for name, values in data.items()})
    result = prepare(
        PrepareConfig(
            source=f"npz:{folder / 'poor.npz'}",
            out=folder / "poor",
            env=demo.DEMO_ENVIRONMENT,
            action_bounds=demo.DEMO_ACTION_BOUNDS,
            licence=demo.DEMO_LICENCE,
        )
    )
    return Path(result["path"])


@pytest.mark.slow
def test_from_five_poor_episodes_twenty_thousand_steps_lead_to_a_good_policy(ray_session: None, tmp_path: Path):
    """Rewards are scaled by the range of so few returns, so the inverse temperature is five times smaller than the
    paper's for the same weights."""
    storage, dataset = str(tmp_path / "runs"), str(poor_slice(tmp_path))
    offline = ["--dataset", dataset, "--env", demo.DEMO_ENVIRONMENT, "--recipe", "locomotion", "--storage", storage]
    trained = train(
        command_line.parse(TrainConfig, [*offline, *SMALL, "--num-updates", "5000", "--num-eval-episodes", "50"])
    )
    assert trained["return_mean"] < -500
    online = ["--run", trained["run_id"], "--num-env-steps", "20000", "--storage", storage]
    changed = ["--inverse-temperature", "0.6", "--expectile", "0.9"]
    result = finetune(command_line.parse(FinetuneConfig, [*online, *changed]))
    final = evaluate(EvaluateConfig(run=result["run_id"], num_episodes=200, seed=1, storage=str(storage)))
    assert (result["num_env_steps"], result["num_updates"]) == (20_000, 20_000)
    assert final["return_mean"] > MIN_RETURN
