"""The members of a trained run, read back from its checkpoint: the whole agent, or one member's policy.

It needs no Ray: what trained on a cluster is looked at anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from iql_ray import checkpoint
from iql_ray import config as config_io
from iql_ray.algorithm.agent import IQLAgent
from iql_ray.algorithm.iql_config import Member
from iql_ray.data.transforms import Transforms
from iql_ray.distributed.learner import export_policy
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.evaluation.episodes import policy_spaces
from iql_ray.policy import Policy

Which = Literal["last", "best"] | int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A checkpoint, read back whole."""

    saved: checkpoint.Checkpoint
    agent: IQLAgent
    transforms: Transforms

    def save_alone(self, run: Path, config: TrainConfig) -> None:
        """Save the one member that a configuration is of, as a run of its own that stands where all members do.

        Args:
            run: the folder of that run.
        """
        alone = IQLAgent(config.agent, self.agent.spaces, population=config.population, num_updates=config.num_updates)
        alone.adopt(self.agent)
        seed, own = self.agent.population.seeds.index(config.seed), self.saved.random_states[0]
        streams = {name: state for name, state in own.items() if not name.startswith(("sampler.", "dropout."))}
        of_seed = {f"{kind}.0": own[f"{kind}.{seed}"] for kind in ("sampler", "dropout") if f"{kind}.{seed}" in own}
        state = replace(
            self.saved,
            tensors=alone.tensors(),
            random_states=({**streams, **of_seed},),
            configuration=config_io.to_dict(config),
            is_to_be_evaluated=False,
        )
        checkpoint.save(run, state, export_policy(alone.policy_weights(), alone.spaces, self.transforms))


def load_trained(run: Path, which: Which = "last") -> Trained:
    """A checkpoint on the CPU, all its members.

    Args:
        run: the run's folder.
        which: the last checkpoint, the best by evaluation, or the one after N updates.

    Raises:
        ValueError: no such checkpoint.
        CorruptCheckpointError: it is not as it was written.
    """
    folder = checkpoint.policy_folder(run, which)
    saved = checkpoint.load(run, int(folder.parent.name))
    config = config_io.from_dict(TrainConfig, saved.configuration)  # of a search's trial, members may have left since
    agent = IQLAgent(
        config.agent,
        policy_spaces(Policy.load(folder)),
        population=config.population,
        num_updates=config.num_updates,
    )
    own_random_states = saved.random_states[0] if saved.device == "cpu" else agent.random_states()
    agent.load(saved.tensors, own_random_states, saved.update_count)
    return Trained(saved=saved, agent=agent, transforms=config_io.from_dict(Transforms, saved.transforms))


def load_agent(run: Path, which: Which = "last") -> tuple[IQLAgent, Transforms]:
    """The agent of a checkpoint and the transforms around it; see `load_trained`."""
    trained = load_trained(run, which)
    return trained.agent, trained.transforms


def load_member(run: Path, which: Which, member: int) -> tuple[Policy, Member, int]:
    """One member's policy as its users hold it, which member it is, and how many updates are behind it.

    Raises:
        ValueError: no such checkpoint or member; the message lists the members there are.
        CorruptCheckpointError: the checkpoint is not as it was written.
    """
    agent, transforms = load_agent(run, which)
    members = agent.population.members()
    if not 0 <= member < len(members):
        listed = "; ".join(f"{index}: {_described(each)}" for index, each in enumerate(members))
        raise ValueError(f"run {run.name} has no member {member}; it has {listed}")
    policy = export_policy(agent.policy_weights(member), agent.spaces, transforms)
    return policy, members[member], agent.update_count


def _described(member: Member) -> str:
    return ", ".join(f"{name} {value}" for name, value in member._asdict().items())
