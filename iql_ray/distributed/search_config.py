"""What a search is, as its command line and its saved configuration say it: a training configuration, and over what to
search. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from iql_ray import config as config_io
from iql_ray.distributed.train_config import EvaluationMethod, TrainConfig

VARIED_GROUPS = ("agent.", "transforms.")
VARIED_FIELDS = ("batch_size", "top_episode_share")
CHANGEABLE = (
    "agent.discount", "agent.target_update_rate", "agent.learning_rate", "agent.dropout_rate", "agent.policy_schedule",
)  # fmt: skip
"""Varied settings that an agent can go on with in the middle of a run."""
OWN_AXES = {
    "agent.expectile": "--expectiles",
    "agent.inverse_temperature": "--inverse-temperatures",
    "agent.critic": "--critic",
}
MAX_MEMBERS = {"cpu": 16, "cuda": 64}
"""Of a trial, where nothing else is said: on a CPU, products of more members are no faster than those of fewer."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers to sample from, both ends included; in logarithm where both are positive and a factor of 10 apart."""

    low: float
    high: float

    @property
    def is_logarithmic(self) -> bool:
        return self.low > 0 and self.high / self.low >= 10


Axis = tuple[Any, ...] | Range
"""The values that a setting may take."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(TrainConfig):
    """Search expectiles, inverse temperatures and other settings; the members of a trial share data and critics."""

    search: Literal["grid", "random", "optuna"] = "grid"
    """All combinations; or num_samples drawn at random, or chosen by Optuna (pip install 'iql-ray[optuna]') from those
    before. A sampled expectile brings every inverse temperature and seed along."""
    num_samples: int = 16
    """Of random or optuna."""
    expectile_range: tuple[float, float] | None = None
    """Random or optuna: lowest and highest expectile; without, one of the expectiles."""
    vary: tuple[str, ...] = ()
    """Other settings by dotted path: agent.discount=0.97,0.99 or, random or optuna,
    agent.learning_rate=1e-4..1e-3."""
    members_per_trial: int | None = None
    """Members of a grid trained side by side in one process, in whole critics with all their policies; default: up to
    16 on a CPU and 64 on a GPU, fewer where that leaves room in the cluster unused. (A sample, and an expectile that
    asha judges, is a trial by itself, with all its seeds.)"""
    max_concurrent_trials: int | None = None
    """Trials at a time; default: as many as there are CPUs for."""
    gpus_per_trial: float = 1.0
    """Share of a GPU for each trial, on GPUs."""
    extract: Literal["during", "after"] = "during"
    """When policies are learned: beside their critics; or from critics that have been learned, which takes a fraction,
    and can be done again for other inverse temperatures: iql-ray extract."""
    extract_updates: int | None = None
    """Updates of the policies that are extracted after; default: num_updates.
    (The inverse temperature rises linearly over them, and policies of sharp ones need the time.)"""
    critics_from: str | None = None
    """Run id or folder whose critics policies are extracted from, instead of learning any; see iql-ray extract."""
    scheduler: Literal["none", "asha", "pbt"] = "none"
    """asha: at growing numbers of updates, configurations whose score is not among the best 1 / reduction_factor of
    those that got there leave their population, and the others go on faster (Li et al. 2020). pbt: a trial is one
    configuration with all its seeds; now and then the worst quarter takes the agents of the best over and goes on from
    there with settings near theirs (Jaderberg et al. 2017): what it finds is a schedule, not one configuration."""
    reduction_factor: int = 2
    """Of asha; updates of a rung grow, and configurations that pass it shrink, by this factor. 3 is cheaper, and drops
    two of three at a ninth of the updates, where scores may say nothing yet."""
    first_rung_updates: int | None = None
    """Updates before asha first stops any; default: num_updates / reduction_factor^2."""
    perturbation_interval_updates: int | None = None
    """Of pbt, updates between two such changes; default: a tenth of num_updates."""
    num_final_episodes: int = 50
    """Episodes by which a member is ranked after its last update, others than those along its way."""
    score: Literal["return", "discounted-return"] = "return"
    """Of an episode; discounted-return, by the agent's discount, where a goal reached sooner is to be worth more.
    (Fitted Q evaluation is always discounted.)"""
    dry_run: bool = False
    """Say what would be trained, its memory and time and where, and stop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_learners != 1:
            raise ValueError(
                f"num_learners = {self.num_learners}: a trial is one learner; cores are filled by trials side by side, "
                "see --max-concurrent-trials"
            )
        if self.rollout_resources:
            raise ValueError(
                f"rollout_resources = {' '.join(self.rollout_resources)}: a trial steps its environments by itself; "
                "its nodes are chosen by --learner-resources"
            )
        for name in ("num_samples", "members_per_trial", "max_concurrent_trials", "extract_updates",
                     "first_rung_updates", "perturbation_interval_updates", "num_final_episodes"):  # fmt: skip
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} = {value}: expected 1 or more")
        if self.reduction_factor < 2:
            raise ValueError(f"reduction_factor = {self.reduction_factor}: expected 2 or more")
        if not 0 < self.gpus_per_trial <= 1:
            raise ValueError(f"gpus_per_trial = {self.gpus_per_trial}: expected a share in (0, 1]")
        if self.critics:
            raise ValueError(f"critics = {', '.join(self.critics)}: a search has one kind of critic; use --critic")
        self._check_axes()
        self._check_extraction()
        if self.scheduler == "pbt":
            self._check_changes()
        if self.eval_method == "none":
            raise ValueError("eval_method = none: a search ranks by evaluation; use rollouts with --env, or fqe")

    @property
    def evaluation_method(self) -> EvaluationMethod:
        """How members are scored."""
        if self.eval_method == "rollouts" or (self.eval_method == "auto" and self.env is not None):
            return "rollouts"
        return "fqe"

    @property
    def axes(self) -> dict[str, Axis]:
        """The varied settings, by dotted path."""
        return dict(map(parse_axis, self.vary))

    @property
    def policy_updates(self) -> int:
        """Of the phase that learns policies, beside critics or after them."""
        return self.num_updates if self.extract == "during" else self.extract_updates or self.num_updates

    @property
    def rungs(self) -> tuple[int, ...]:
        """Numbers of updates after which asha decides, ascending, all before the last."""
        if self.scheduler != "asha":
            return ()
        first = -(-self.num_updates // self.reduction_factor**2)  # rounded up: the last rung is not just before the end
        rung, rungs = self.first_rung_updates or first, []
        while rung < self.num_updates:
            rungs.append(rung)
            rung *= self.reduction_factor
        return tuple(rungs)

    @property
    def perturbation_interval(self) -> int:
        """Updates between two changes of pbt."""
        return self.perturbation_interval_updates or -(-self.num_updates // 10)

    @property
    def generations(self) -> tuple[int, ...]:
        """Numbers of updates after which pbt changes settings, ascending, all before the last."""
        if self.scheduler != "pbt":
            return ()
        return tuple(range(self.perturbation_interval, self.num_updates, self.perturbation_interval))

    def _check_changes(self) -> None:
        """What pbt cannot do."""
        fixed = [path for path in self.axes if path not in CHANGEABLE]
        if fixed:
            raise ValueError(
                f"scheduler = pbt with vary {fixed[0]}: an agent cannot go on with another {fixed[0]} in the middle of "
                f"a run; pbt varies the expectile, the inverse temperature, {', '.join(CHANGEABLE)}. Use "
                "--scheduler asha, or leave it out of --vary"
            )
        if self.search == "optuna":
            raise ValueError("scheduler = pbt with search = optuna: both choose settings; use --search grid or random")
        if self.extract == "after" or self.critics_from is not None:
            raise ValueError("scheduler = pbt: what it changes is learned side by side; leave --extract after out")
        if not self.generations:
            raise ValueError(
                f"perturbation_interval_updates = {self.perturbation_interval}: expected fewer than num_updates = "
                f"{self.num_updates}, or pbt never changes anything"
            )

    def _check_axes(self) -> None:
        axes = self.axes
        if len(axes) < len(self.vary):
            raise ValueError(f"vary = {', '.join(self.vary)}: a setting is named twice; give all its values at once")
        for path, axis in axes.items():
            if self.search == "grid" and isinstance(axis, Range):
                raise ValueError(
                    f"vary {path}={axis.low:g}..{axis.high:g}: a range is sampled from; use --search random or optuna, "
                    "or list the values of the grid"
                )
            if isinstance(axis, Range) and not path.startswith("agent."):
                raise ValueError(f"vary {path}: every value has a copy of the data to itself; list a few values")
            ends = (axis.low, axis.high) if isinstance(axis, Range) else axis
            for value in ends:
                config_io.override(self, {path: value, "vary": []})
        if self.expectile_range is None:
            return
        low, high = self.expectile_range
        if self.search == "grid" or self.expectiles or not 0 < low < high < 1:
            raise ValueError(
                f"expectile_range = {low:g} {high:g}: expected lowest and highest in (0, 1), with --search random or "
                "optuna, and without --expectiles"
            )

    def _check_extraction(self) -> None:
        if self.extract == "during" and self.extract_updates is not None:
            raise ValueError("extract_updates is of policies that are extracted after: add --extract after")
        if self.extract == "after" and self.scheduler == "asha":
            raise ValueError(
                "scheduler = asha with extract = after: before its end there is no policy to judge; leave one out"
            )
        if self.critics_from is not None and (self.extract == "during" or self.search != "grid" or self.vary):
            raise ValueError(
                f"critics_from = {self.critics_from}: from critics that are there only policies are learned; use "
                "iql-ray extract, without --search and --vary"
            )


def parse_axis(text: str) -> tuple[str, Axis]:
    """`path=value,value` or `path=low..high`.

    Raises:
        ValueError: neither, or a setting that a search does not vary.
    """
    path, equals, values = text.partition("=")
    if not equals or not values:
        raise ValueError(f"vary '{text}': expected PATH=VALUE,VALUE or PATH=LOW..HIGH, as agent.discount=0.97,0.99")
    if path in OWN_AXES:
        raise ValueError(f"vary '{text}': {path} is set by a flag of its own: {OWN_AXES[path]}")
    if not path.startswith(VARIED_GROUPS) and path not in VARIED_FIELDS:
        raise ValueError(
            f"vary '{text}': {path} is not varied; expected agent.NAME, transforms.NAME, {' or '.join(VARIED_FIELDS)}"
        )
    low, dots, high = values.partition("..")
    if dots:
        return path, _range(text, config_io.parse_value(low), config_io.parse_value(high))
    parsed = hashable(config_io.parse_value(f"[{values}]"))
    if len(set(parsed)) < len(parsed):
        raise ValueError(f"vary '{text}': a value is there twice")
    return path, parsed


def hashable(value: Any) -> Any:
    """A list as a tuple, those inside it too."""
    return tuple(map(hashable, value)) if isinstance(value, list) else value


def _range(text: str, low: Any, high: Any) -> Range:
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not low < high:
        raise ValueError(f"vary '{text}': expected two numbers, the lower one first")
    return Range(low=float(low), high=float(high))
