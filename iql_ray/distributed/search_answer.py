"""What a search found: every member's last score out of the trials' histories, and the leaderboard made of them.

It ranks and draws; nothing here trains or talks to a store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from iql_ray import config as config_io
from iql_ray import run_folder
from iql_ray.data.locations import last_name
from iql_ray.distributed.search_config import SearchConfig
from iql_ray.distributed.search_plan import MemberKey, TrialSpec, member_config, member_key
from iql_ray.distributed.search_schedules import ended, numbered_lineage, trained_alone, trial_courses
from iql_ray.distributed.search_trainable import trial_folder
from iql_ray.distributed.search_trial import HISTORY_FILE
from iql_ray.distributed.train_config import TrainConfig
from iql_ray.evaluation import schedules
from iql_ray.evaluation.leaderboard import Configuration, MemberScore, Standing, rank, to_json
from iql_ray.evaluation.leaderboard_words import verdict
from iql_ray.evaluation.schedules import TRIAL, Stretch
from iql_ray.evaluation.setting_effects import effects

LEADERBOARD_FILE = "leaderboard.json"
FIGURE_FILE = "search.png"
PAGE_FILE = "search.html"
BEST_FILE = "best.yaml"
EXTRACTED = (
    " Its policies were extracted after their critics: a run of best.yaml, which learns both side by side, is another "
    "one, and may score otherwise."
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a search found."""

    scored: dict[MemberKey, MemberScore]
    standings: tuple[Standing, ...]
    best: MemberKey
    """Of the best configuration, the member with the best score."""
    verdict: str
    lineages: dict[Configuration, tuple[Stretch, ...]] = field(default_factory=dict)
    """Of pbt, by its trials as they ended: what their agents have gone through."""

    @property
    def scores(self) -> tuple[MemberScore, ...]:
        return tuple(self.scored.values())


def find_answer(config: SearchConfig, folder: Path, specs: Sequence[TrialSpec]) -> Answer:
    """Rank what the trials have come to.

    Args:
        folder: the search's.

    Raises:
        RuntimeError: none has a score.
    """
    ends = ended(config, folder, specs) if config.scheduler == "pbt" else {}
    scored = {
        key: score for spec in specs for key, score in _scores_of(config, folder, spec, ends.get(spec.name)).items()
    }
    if not scored:
        raise RuntimeError(f"no member of the search in {folder} has a score: its trials failed, or all have diverged")
    standings = rank(tuple(scored.values()), seed=config.seed)
    of_best = {key: score for key, score in scored.items() if score.configuration == standings[0].configuration}
    furthest = max(score.num_updates for score in of_best.values())
    best = max((key for key in of_best if of_best[key].num_updates == furthest), key=lambda key: of_best[key].score)
    if not ends:
        words = verdict(standings) + (EXTRACTED if config.extract == "after" else "")
        return Answer(scored=scored, standings=standings, best=best, verdict=words)
    lineages = {ends[spec.name]: numbered_lineage(config, folder, spec, specs) for spec in specs}
    words = schedules.verdict(standings, lineages[standings[0].configuration])
    return Answer(scored=scored, standings=standings, best=best, verdict=words, lineages=lineages)


def write_answer(
    answer: Answer, config: SearchConfig, folder: Path, member_runs: Mapping[MemberKey, str]
) -> dict[str, Path]:
    """Leaderboard, figure, page and the best configuration's file, in the search's folder.

    Args:
        member_runs: the MLflow run of each member.
    """
    from iql_ray.report.schedule_figure import CAPTION, draw_schedules
    from iql_ray.report.search_figure import draw_search
    from iql_ray.report.search_page import SearchStory, write_page

    paths = {name: folder / name for name in (LEADERBOARD_FILE, FIGURE_FILE, PAGE_FILE, BEST_FILE)}
    board = {"verdict": answer.verdict, "protocol": protocol(config), "standings": _rows(answer)}
    config_io.write_json(board, paths[LEADERBOARD_FILE])
    write_best(answer, config, paths[BEST_FILE])
    title = f"{last_name(config.dataset)}, {config.env or 'judged from data'}"
    if answer.lineages:
        courses = trial_courses(config, folder)
        best = str(dict(answer.standings[0].configuration.varied)[TRIAL])
        draw_schedules(paths[FIGURE_FILE], courses, best, title, score_name(config))
    else:
        of_each = effects(answer.scores, seed=config.seed)
        draw_search(paths[FIGURE_FILE], answer.standings, of_each, title, score_name(config))
    story = SearchStory(
        title=title,
        picture=paths[FIGURE_FILE],
        protocol=protocol(config),
        settings=common_settings(config),
        command=["iql-ray train", f"--config {paths[BEST_FILE]}"],
        run_ids=_run_ids(answer, member_runs),
        verdict=answer.verdict,
        **({"caption": CAPTION, "schedules": _in_words(answer)} if answer.lineages else {}),
    )
    write_page(paths[PAGE_FILE], answer.standings, story)
    return paths


def write_best(answer: Answer, config: SearchConfig, path: Path) -> None:
    """The best configuration as a file that `iql-ray train --config` takes: what differs from the defaults, and where
    runs go left to whoever takes it."""
    _, seed, _, _ = answer.best
    best = member_config(config, trained_alone(answer.standings[0].configuration), seed)
    best = replace(best, tracking_uri=None, storage="runs", register_as=None, run_name=None, resume=None)
    best = replace(best, device="auto", compile="auto", memory_limit=None)  # as that cluster had it
    best = replace(best, recipe=None)  # its values are here, and would come back where they are the defaults
    if config.evaluation_method == "rollouts":
        best = replace(best, eval_method="auto")
    told = _different(config_io.to_dict(best), config_io.to_dict(TrainConfig(dataset=best.dataset)))
    named = {"dataset": best.dataset, **told}
    path.write_text(f"# {answer.verdict}\n" + yaml.safe_dump(named, sort_keys=False))


def _rows(answer: Answer) -> list[dict[str, Any]]:
    """The leaderboard's, and of each trial of pbt the schedule."""
    rows = to_json(answer.standings)
    for row, standing in zip(rows, answer.standings, strict=True):
        if answer.lineages:
            row["schedule"] = schedules.to_json(answer.lineages[standing.configuration])
    return rows


def _in_words(answer: Answer) -> dict[Configuration, str]:
    return {configuration: schedules.in_words(lineage) for configuration, lineage in answer.lineages.items()}


def _run_ids(answer: Answer, member_runs: Mapping[MemberKey, str]) -> dict[Configuration, list[str]]:
    """By configuration, one for each seed."""
    runs: dict[Configuration, list[str]] = {}
    for key, score in sorted(answer.scored.items(), key=lambda item: item[1].seed):
        runs.setdefault(score.configuration, []).append(member_runs[key])
    return runs


def score_name(config: SearchConfig) -> str:
    return config.score.replace("-", " ") if config.evaluation_method == "rollouts" else "fitted value"


def protocol(config: SearchConfig) -> str:
    """How the scores were made, in words."""
    if config.evaluation_method == "rollouts":
        how = (
            f"the mean {score_name(config)} of {config.num_final_episodes} episodes in {config.env}, the same ones for "
            "every member and others than along its way, by the policy's most likely action"
        )
    else:
        how = f"fitted Q evaluation on the dataset, discounted at {config.agent.discount:g}: no environment was asked"
    when = f"after its last update ({config.policy_updates:,})"
    if config.scheduler == "pbt":
        first, interval = config.generations[0], config.perturbation_interval
        when += f"; trials took one another over from {first:,} updates on, every {interval:,}"
    if config.scheduler == "asha":
        when += f"; members that were stopped, after {', '.join(f'{rung:,}' for rung in config.rungs)}"
    return f"A member's score is {how}, {when}."


def common_settings(config: SearchConfig) -> dict[str, Any]:
    """What no member differs in, and differs from the defaults."""
    own = _different(config_io.to_dict(config), config_io.to_dict(SearchConfig(dataset=config.dataset)))
    return {"dataset": config.dataset, **config_io.flatten(own)}


def _scores_of(
    config: SearchConfig, folder: Path, spec: TrialSpec, end: Configuration | None
) -> dict[MemberKey, MemberScore]:
    """Each member's last evaluation; a member that has diverged has none.

    Args:
        end: what the trial ended as, where that is not what it began with.
    """
    scores: dict[MemberKey, MemberScore] = {}
    for line in run_folder.read_lines(trial_folder(folder, spec) / HISTORY_FILE):
        if line["kind"] != "evaluation":
            continue
        for each in line["members"]:
            result = each["result"]
            key = member_key(spec.name, each)
            if not math.isfinite(result["return_mean"]):
                scores.pop(key, None)
                continue
            scores[key] = MemberScore(
                configuration=end or spec.configuration(each["expectile"], each["inverse_temperature"]),
                seed=each["seed"],
                num_updates=line["num_updates"],
                score=result["return_mean"],
                interval=tuple(result["return_ci"]),
                returns=tuple(result.get("returns", ())),
                is_stopped=line["num_updates"] < config.policy_updates,
            )
    return scores


def _different(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not as they are by default, nested as they were."""
    different: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            inner = _different(value, defaults[name])
            different |= {name: inner} if inner else {}
        elif value != defaults[name]:
            different[name] = value
    return different
