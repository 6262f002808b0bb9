"""What fine-tuning online is, as its command line and its saved configuration say it. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from iql_ray.distributed.roles import parse_resources
from iql_ray.distributed.train_config import Device, Precision

if TYPE_CHECKING:
    from iql_ray.envs.action_limits import ActionLimits

Mode = Literal["synchronous", "asynchronous"]

DEFAULT_STEPS_PER_BLOCK: dict[Mode, int] = {"synchronous": 1, "asynchronous": 8}
INITIAL_ENV_STEPS_WITHOUT_DATA = 1000
"""A buffer of a few rows is no experience: the authors' own online baselines begin with some thousand."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Improve a trained agent online, in its environment."""

    run: str | None = None
    """Run id or folder whose agent goes on: all its networks, target and optimisers."""
    model: str | None = None
    """Registered model whose run goes on, e.g. models:/NAME@champion; the run's folder must be within reach."""
    checkpoint: str = "best"
    """Of the run: best by evaluation (the last where nothing was evaluated), last, or the number of its updates."""
    member: int = 0
    """Of a run that trained a grid: which of its members."""
    env: str | None = None
    """Environment to act in; default: the run's. A gymnasium id, module:id, or module:EntryPoint."""
    dataset: str | None = None
    """The prepared dataset that replay starts with, or its URI; default: the run's."""
    num_env_steps: int = 1_000_000
    """Environment steps of the whole run, over all environments; rounded up to whole blocks."""
    updates_per_env_step: float = 1.0
    """Updates of the agent for each environment step."""
    mode: Mode = "synchronous"
    """synchronous: environments wait for the updates and updates for them, and the seed gives the same numbers bit for
    bit on any number of workers. asynchronous: neither waits for the other beyond what keeps the ratio of both."""
    num_rollout_workers: int = 1
    """Processes that step environments; 0 steps them in the learner's own."""
    envs_per_worker: int = 8
    """Environments of each; eight of a worker cost the policy as much as one."""
    steps_per_block: int | None = None
    """Steps that each environment makes between two policies. Default: 1 synchronous, 8 asynchronous."""
    online_fraction: float | None = None
    """Share of each batch in (0, 1) that was collected online. Default: batches are drawn uniformly from offline and
    online transitions together, as in the paper."""
    without_offline_data: bool = False
    """Learn from what is collected alone."""
    replay_capacity: int | None = None
    """Online transitions that are kept to learn from, over all learners; default: all of the run."""
    num_initial_env_steps: int | None = None
    """Environment steps before the first update; the ratio counts from there. Default: none, and 1,000 without offline
    data."""
    temperature: float = 1.0
    """Of exploration: scales the policy's own noise, or samples from softmax(logits / temperature)."""
    epsilon: float = 0.0
    """Share of discrete actions that are drawn uniformly instead."""
    max_staleness: int | None = None
    """Updates between the policy that acted and the arrival of what it did, at most; what is older is left out, and
    counted. Default: recorded, not bounded."""
    expectile: float | None = None
    """From here on; default: the run's."""
    inverse_temperature: float | None = None
    """From here on; default: the run's."""
    learning_rate: float | None = None
    """From here on, constant; default: the run's."""
    batch_size: int | None = None
    """Transitions an update, over all learners together; default: the run's."""
    seed: int = 0
    """Environments, exploration, minibatches and evaluation episodes follow from it."""
    num_learners: int = 1
    """Learner actors; each holds an equal share of the data, of what is collected, and of the batch."""
    device: Device = "auto"
    """Where learners compute; auto takes a GPU where the cluster has one for each learner."""
    cpus_per_learner: int = 1
    """CPU threads of each learner."""
    learner_resources: tuple[str, ...] = ()
    """Custom resources of the cluster that each learner asks for, as NAME=AMOUNT ...; see iql-ray train."""
    rollout_resources: tuple[str, ...] = ()
    """The same of each rollout and evaluation worker, such as iql_rollout=0.001."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the update; see iql-ray train."""
    precision: Precision = "float32"
    """Of the factors of matrix products; see iql-ray train."""
    memory_limit: float | None = None
    """GiB for the offline data of each learner; see iql-ray train. What does not fit needs an online_fraction."""
    action_low: tuple[float, ...] = ()
    """Smallest action that is ever executed, in the environment's units: one number, or one for each dimension."""
    action_high: tuple[float, ...] = ()
    """Largest action that is ever executed."""
    max_action_change: tuple[float, ...] = ()
    """How much an action may differ from the one executed before it in the episode."""
    rest_action: tuple[float, ...] = ()
    """What counts as executed before an episode's first action; without it, nothing but the bounds limits that one."""
    dry_run_actions: bool = False
    """Say what the policy would do on logged observations, and which limits it would meet; step nothing, and stop."""
    floor: float | None = None
    """Mean return of an evaluation below which the run stops and hands on its best policy so far. Environments then
    wait for every evaluation."""
    step_timeout_seconds: float | None = None
    """A step of an environment that takes longer is a failure. Default: none does."""
    max_env_failures: int = 3
    """Failures of an environment after which it is left out; the others go on."""
    resume_episodes: Literal["auto", "replay", "restart"] = "auto"
    """What becomes of an unfinished episode when its worker died, or the run is resumed. replay: its actions are
    executed again, which brings a simulator to where it was. restart: a new episode begins; for real systems. auto:
    restart where the environment is served from elsewhere (external://), replay otherwise."""
    eval_env: str | None = None
    """Environment to evaluate in; default: env. For a system that there is only one of: a simulator of it."""
    eval_interval_env_steps: int = 5000
    """Environment steps between two evaluations; there is one before the first step and one after the last."""
    num_eval_episodes: int = 10
    """Episodes an evaluation."""
    num_eval_workers: int = 1
    """Rollout workers that evaluate while the run goes on."""
    log_interval_env_steps: int = 1000
    """Environment steps between two points of the training curves."""
    checkpoint_interval_env_steps: int = 10_000
    """Environment steps between two checkpoints; there is one with every evaluation, too."""
    num_checkpoints_to_keep: int = 3
    """The last K are kept; the best by evaluation stays besides."""
    max_failures: int = 3
    """How often failed learners are restarted from the last checkpoint before the run fails."""
    save_experience: str | None = None
    """Folder for what was collected, as a prepared dataset to train on."""
    save_experience_minari: str | None = None
    """Id of a local Minari dataset to write what was collected to, too, e.g. mine/online-v0."""
    storage: str = "runs"
    """Folder of all runs, or a URI; see iql-ray train."""
    tracking_uri: str | None = None
    """MLflow store; default MLFLOW_TRACKING_URI, else an SQLite file in the storage folder."""
    experiment: str = "iql_ray"
    """MLflow experiment that the run belongs to."""
    run_name: str | None = None
    """MLflow run name; by default MLflow's own."""
    register_as: str | None = None
    """Register the best policy under this name."""
    resume: str | None = None
    """Run id or folder of interrupted fine-tuning to finish; its own configuration holds."""
    dry_run: bool = False
    """Say which nodes of the cluster would take which processes, and stop."""

    def __post_init__(self) -> None:
        if not self.resume and (self.run is None) == (self.model is None):
            raise ValueError("finetune needs either --run RUN or --model URI, and not both")
        for name in (
            "num_env_steps", "envs_per_worker", "num_learners", "cpus_per_learner",
            "max_env_failures", "eval_interval_env_steps", "num_eval_episodes", "num_eval_workers",
            "log_interval_env_steps", "checkpoint_interval_env_steps", "num_checkpoints_to_keep",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 1 or more")
        for name in ("steps_per_block", "replay_capacity", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} = {value}: expected 1 or more")
        for name in (
            "num_rollout_workers",
            "member",
            "epsilon",
            "temperature",
            "max_failures",
            "num_initial_env_steps",
            "max_staleness",
        ):
            if (value := getattr(self, name)) is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} = {value}: expected 0 or more")
        for name in ("updates_per_env_step", "step_timeout_seconds", "memory_limit"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} = {value}: expected a positive number")
        parse_resources("learner_resources", self.learner_resources)
        parse_resources("rollout_resources", self.rollout_resources)
        self._check_together()

    def _check_together(self) -> None:
        if self.epsilon > 1:
            raise ValueError(f"epsilon = {self.epsilon}: expected a share in [0, 1]")
        if self.online_fraction is not None and not 0 < self.online_fraction < 1:
            raise ValueError(
                f"online_fraction = {self.online_fraction}: expected a share in (0, 1); for online transitions alone "
                "use --without-offline-data"
            )
        if self.online_fraction is not None and self.without_offline_data:
            raise ValueError("online_fraction mixes with offline data, and --without-offline-data leaves it out")
        if self.mode == "synchronous" and self.max_staleness is not None:
            raise ValueError("max_staleness is of --mode asynchronous: synchronous collection is never stale")
        if self.num_rollout_workers == 0 and (self.mode == "asynchronous" or self.step_timeout_seconds is not None):
            raise ValueError(
                "num_rollout_workers = 0 steps environments in the learner's own process, which can neither go on "
                "beside them nor outlive one that hangs: leave out --mode asynchronous and --step-timeout-seconds, or "
                "give 1"
            )
        if self.updates_per_env_step * self.eval_interval_env_steps < 1:
            raise ValueError(
                f"updates_per_env_step = {self.updates_per_env_step} with eval_interval_env_steps = "
                f"{self.eval_interval_env_steps}: no update between two evaluations; raise one of them"
            )

    @property
    def action_limits(self) -> ActionLimits:
        """What may be executed, beyond the environment's own bounds."""
        from iql_ray.envs.action_limits import ActionLimits  # gymnasium is too slow for a command's help

        return ActionLimits(
            low=self.action_low,
            high=self.action_high,
            max_change=self.max_action_change,
            rest_action=self.rest_action,
        )

    @property
    def is_exact(self) -> bool:
        """Whether a resumed run collects once more, bit for bit, what came after its checkpoint."""
        return self.mode == "synchronous" and self.replays_episodes

    @property
    def replays_episodes(self) -> bool:
        """Whether actions are executed again to bring an environment to where it was."""
        if self.resume_episodes == "auto":
            from iql_ray.envs.catalog import EXTERNAL_SCHEME  # as above

            return not str(self.env).startswith(EXTERNAL_SCHEME)
        return self.resume_episodes == "replay"

    @property
    def num_environments(self) -> int:
        """Over all workers."""
        return max(1, self.num_rollout_workers) * self.envs_per_worker

    @property
    def block_steps(self) -> int:
        """Steps that each environment makes between two policies."""
        return self.steps_per_block or DEFAULT_STEPS_PER_BLOCK[self.mode]

    @property
    def initial_env_steps(self) -> int:
        """Before the first update; whoever draws from online rows alone needs one for each learner at least."""
        default = INITIAL_ENV_STEPS_WITHOUT_DATA if self.without_offline_data else 0
        asked = default if self.num_initial_env_steps is None else self.num_initial_env_steps
        needs_online = self.without_offline_data or self.online_fraction is not None
        return max(asked, self.num_learners) if needs_online else asked

    @property
    def num_updates(self) -> int:
        """Of the whole run."""
        return max(1, math.floor(self.updates_per_env_step * max(0, self.num_env_steps - self.initial_env_steps)))
