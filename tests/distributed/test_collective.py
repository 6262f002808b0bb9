"""What learners do together: nothing when alone, one all-reduce when there are two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from iql_ray.distributed import collective

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
import torch
import torch.distributed as process_group
from iql_ray.distributed import collective

rank = int(sys.argv[1])
torch.set_num_threads(1)
process_group.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
values = torch.tensor([1.0, 10.0]) if rank == 0 else torch.tensor([3.0, -10.0])
collective.average(values)
assert (collective.rank(), collective.num_learners()) == (rank, 2)
assert values.tolist() == [2.0, 0.0], values
assert collective.gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
process_group.destroy_process_group()
"""


def test_alone_each_of_them_is_the_identity():
    values = torch.tensor([1.0, 2.0])
    collective.average(values)
    assert values.tolist() == [1.0, 2.0]
    assert collective.gather("own") == ["own"]
    assert (collective.rank(), collective.num_learners()) == (0, 1)


def test_two_learners_have_the_mean_and_each_others_objects(tmp_path: Path):
    commands = [[sys.executable, "-c", PROGRAM, str(rank), str(tmp_path / "meeting")] for rank in (0, 1)]
    learners = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [learner.communicate(timeout=60)[1] for learner in learners]
    assert [learner.returncode for learner in learners] == [0, 0], errors
