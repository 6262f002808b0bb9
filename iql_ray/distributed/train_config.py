"""What a training run is, as its command line and its saved configuration say it. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from iql_ray.algorithm.fqe_config import DURING_TRAINING, FQEConfig
from iql_ray.algorithm.iql_config import CriticObjective, IQLConfig, Population
from iql_ray.data.selection import RowSelection
from iql_ray.data.transforms import TransformConfig
from iql_ray.distributed.roles import parse_resources

Device = Literal["auto", "cpu", "cuda"]
Compile = Literal["auto", "on", "off", "captured"]
Precision = Literal["float32", "tf32", "bf16"]
EvaluationMethod = Literal["rollouts", "fqe"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a policy offline by implicit Q-learning."""

    dataset: str = ""
    """Folder made by `iql-ray prepare`, which every node sees, or its URI (s3://, gs://), which each node fetches
    once; required for a new run."""
    env: str | None = None
    """Gymnasium id to evaluate in; without one checkpoints are judged from data alone, see eval_method."""
    recipe: str | None = None
    """Named configuration under the other flags: locomotion, antmaze, kitchen_adroit, umaze, bc,
    percent_bc."""
    agent: Annotated[IQLConfig, tyro.conf.arg(name="")] = field(default_factory=IQLConfig)
    """Hyperparameters of IQL."""
    transforms: Annotated[TransformConfig, tyro.conf.arg(name="")] = field(default_factory=TransformConfig)
    """Of rewards and observations."""
    top_episode_share: float = 1.0
    """Share of the episodes in (0, 1] to learn from, those of the highest return."""
    seed: int = 0
    """Run seed: initial weights, minibatches, dropout and evaluation episodes follow from it."""
    seeds: tuple[int, ...] = ()
    """Several seeds side by side in one run; empty: seed alone. With expectiles and inverse_temperatures they make a
    grid of members that share minibatches and critics; iql-ray train leaves its evaluation to afterwards, iql-ray
    search evaluates every member."""
    expectiles: tuple[float, ...] = ()
    """Several expectiles side by side; empty: expectile alone."""
    critics: tuple[CriticObjective, ...] = ()
    """What the critic of each of the expectiles learns; empty: as critic says."""
    inverse_temperatures: tuple[float, ...] = ()
    """Several inverse temperatures side by side, on shared critics; empty: inverse_temperature alone."""
    num_updates: int = 1_000_000
    """Updates of the whole run; the policy's cosine schedule has this length."""
    batch_size: int = 256
    """Transitions an update, over all learners together."""
    num_learners: int = 1
    """Learner actors; each holds an equal share of the data and of the batch."""
    average_every: int | None = None
    """For slow networks: updates that each learner makes by itself before networks and optimisers are averaged over
    all learners (and before every checkpoint), instead of one average of gradients an update. Default: off, and N
    learners are the same algorithm as one."""
    device: Device = "auto"
    """Where learners compute; auto takes a GPU where the cluster has one for each learner."""
    cpus_per_learner: int = 1
    """CPU threads of each learner; two runs of one thread beat one run of two."""
    learner_resources: tuple[str, ...] = ()
    """Custom resources of the cluster that each learner asks for, as NAME=AMOUNT ...: they keep learners on nodes that
    were started with them. A label more than a quota: iql_learner=0.001."""
    rollout_resources: tuple[str, ...] = ()
    """The same of each rollout and evaluation worker, such as iql_rollout=0.001."""
    compile: Compile = "auto"
    """Compile the update: takes some ten seconds once, and a tenth off each update. auto: on a CPU,
    where a C++ compiler is found and it pays: in a long run whose learners do not average gradients. captured: on a
    GPU, compiled, and ten updates at a time in one CUDA graph. The run keeps what it began with."""
    precision: Precision = "float32"
    """Of the factors of matrix products: bf16 in a compiled update, up to twice as fast where processors have it; tf32
    on a GPU."""
    memory_limit: float | None = None
    """GiB for the data of each learner. A share that fits is held, once for all learners and runs of a node; a larger
    one is streamed from disk, every row once a pass. Default: half of the object store of a node (Ray gives it 30% of
    the memory) over the learners that the node has room for; the run keeps what it began with."""
    log_interval_updates: int = 1000
    """Updates between two points of the training curves; each point is the mean over them."""
    checkpoint_interval_updates: int = 10_000
    """Updates between two checkpoints."""
    num_checkpoints_to_keep: int = 3
    """The last K are kept; the best by evaluation stays besides."""
    eval_method: Literal["auto", "rollouts", "fqe", "none"] = "auto"
    """How the checkpoint is found that the run hands on: by rollouts in env, or by fqe, fitted Q evaluation on the
    dataset, at the evaluation interval; or none, and it is the last. auto: rollouts with an env, fqe without, none for
    a grid."""
    eval_interval_updates: int = 5000
    """Updates between two evaluations; the last update is always evaluated."""
    num_eval_episodes: int = 10
    """Episodes an evaluation by rollouts."""
    num_eval_workers: int = 1
    """Rollout workers that evaluate while the learners go on."""
    fqe: Annotated[FQEConfig, tyro.conf.arg(name="")] = DURING_TRAINING
    """What fitted Q evaluation spends on a checkpoint."""
    max_failures: int = 3
    """How often failed learners are restarted from the last checkpoint before the run fails."""
    storage: str = "runs"
    """Folder of all runs; on a cluster, one that every node sees. Or a URI (s3://, gs://): runs are then worked on in
    the folder that IQL_RAY_WORK_FOLDER names, and copied there while they go on."""
    tracking_uri: str | None = None
    """MLflow store; default MLFLOW_TRACKING_URI, else an SQLite file in the storage folder."""
    experiment: str = "iql_ray"
    """MLflow experiment that the run belongs to."""
    run_name: str | None = None
    """MLflow run name; by default MLflow's own."""
    register_as: str | None = None
    """Register the best policy (the last one where nothing was evaluated) under this name."""
    resume: str | None = None
    """Run id or folder of an interrupted run to finish; its own configuration holds."""
    dry_run: bool = False
    """Say which nodes of the cluster would take which processes, and stop."""

    def __post_init__(self) -> None:
        for name in (
            "num_updates", "batch_size", "num_learners", "cpus_per_learner", "log_interval_updates",
            "checkpoint_interval_updates", "num_checkpoints_to_keep", "eval_interval_updates", "num_eval_episodes",
            "num_eval_workers",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 1 or more")
        if self.precision == "bf16" and self.compile == "off":
            raise ValueError(
                "precision bf16 is of compiled updates, and compile is off; leave --compile out, or set on"
            )
        if self.compile == "captured" and self.averages_gradients:
            raise ValueError(
                f"compile = captured with num_learners = {self.num_learners}: learners that average gradients meet in "
                "the middle of every update, which no graph holds; use --compile on, or --average-every"
            )
        if self.memory_limit is not None and not (math.isfinite(self.memory_limit) and self.memory_limit > 0):
            raise ValueError(f"memory_limit = {self.memory_limit}: expected a positive number of GiB")
        if self.max_failures < 0:
            raise ValueError(f"max_failures = {self.max_failures}: expected 0 or more")
        if self.average_every is not None and (self.average_every < 1 or self.num_learners == 1):
            raise ValueError(
                f"average_every = {self.average_every} with num_learners = {self.num_learners}: expected 1 update or "
                "more, and two learners or more to average over; leave it out, or give --num-learners"
            )
        if self.batch_size % self.num_learners:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by num_learners {self.num_learners}; "
                "every learner takes an equal share of a batch"
            )
        if not self.dataset and not self.resume:
            raise ValueError("--dataset is required: the folder that `iql-ray prepare --out` made")
        parse_resources("learner_resources", self.learner_resources)
        parse_resources("rollout_resources", self.rollout_resources)
        assert self.selection  # refuses a share of episodes, or members, that there cannot be
        self._check_evaluation()

    @property
    def is_compiled(self) -> bool:
        """Whether the update is compiled; auto has then been decided (`compiling.py`)."""
        return self.compile in ("on", "captured")

    @property
    def averages_gradients(self) -> bool:
        """Whether learners meet in the middle of every update."""
        return self.num_learners > 1 and self.average_every is None

    @property
    def evaluation_method(self) -> EvaluationMethod | None:
        """How checkpoints are evaluated; None where they are not, and the last one is handed on."""
        if self.eval_method == "auto":
            from_data = None if self.population.num_policies > 1 else "fqe"
            return from_data if self.env is None else "rollouts"
        return None if self.eval_method == "none" else self.eval_method

    @property
    def population(self) -> Population:
        """The members that the run trains; one, unless several seeds, expectiles or inverse temperatures are given."""
        expectiles = self.expectiles or (self.agent.expectile,)
        return Population(
            seeds=self.seeds or (self.seed,),
            expectiles=expectiles,
            critics=self.critics or (self.agent.critic,) * len(expectiles),
            inverse_temperatures=self.inverse_temperatures or (self.agent.inverse_temperature,),
        )

    @property
    def selection(self) -> RowSelection:
        """The rows that the run learns from."""
        return RowSelection(
            top_episode_share=self.top_episode_share, with_next_actions=self.population.needs_next_actions
        )

    def _check_evaluation(self) -> None:
        """Refuse an environment that is missing, or one that nothing is done in."""
        method = self.eval_method
        if method == "rollouts" and self.env is None:
            raise ValueError("eval_method = rollouts: needs an environment; give --env, or use --eval-method fqe")
        if method == "none" and self.env is not None:
            raise ValueError(f"eval_method = none: env = {self.env} would not be used; leave one of them out")
