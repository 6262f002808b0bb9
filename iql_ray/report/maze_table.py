"""The maze's comparisons as text for a terminal: returns by method and dataset, then how far off the values are."""

from __future__ import annotations

from collections.abc import Mapping

from iql_ray.evaluation.maze_comparison import MazeComparison
from iql_ray.evaluation.maze_study import Outcome

NAME_WIDTH, COLUMN_WIDTH = 14, 29


def maze_table(comparisons: Mapping[str, MazeComparison]) -> str:
    """Lines of at most 14 + 29 characters per dataset.

    Args:
        comparisons: by the dataset's name.
    """
    methods = dict.fromkeys(name for comparison in comparisons.values() for name in comparison.outcomes)
    lines = [
        "exact return of the most likely action [95% interval over seeds], sampled in brackets",
        _line("", list(comparisons)),
        *(_line(name, [_returns(each.outcomes.get(name)) for each in comparisons.values()]) for name in methods),
        _line("V*, exact", [f"{each.study.best:.3f}" for each in comparisons.values()]),
        "",
        "error of V against the exact V of the same data, share of V*'s maximum",
    ]
    lines += [
        _line(name, [f"{expectile:g}: {error.mean:.1%}" for expectile, error in each.value_errors.items()], 14)
        for name, each in comparisons.items()
    ]
    lines += ["", "what critics promise beyond V*, mean and highest, over all actions and over those outside the data"]
    lines += [line for name, comparison in comparisons.items() for line in _overestimates(name, comparison)]
    return "\n".join(lines)


def _line(name: str, columns: list[str], width: int = COLUMN_WIDTH) -> str:
    return (name.ljust(NAME_WIDTH) + "".join(column.ljust(width) for column in columns)).rstrip()


def _returns(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    mean, low, high = outcome.earned
    return f"{mean:.3f} [{low:.3f}, {high:.3f}] ({outcome.sampled.mean:.2f})"


def _overestimates(name: str, comparison: MazeComparison) -> list[str]:
    lines = []
    for critic, by_where in comparison.overestimates.items():
        columns = [
            f"{where.replace('_', ' ')} ({found.num_actions}): {found.mean.mean:.2f}, {found.highest.mean:.2f}"
            for where, found in by_where.items()
            if found is not None
        ]
        lines.append(_line(name, [critic, *columns], 36))
    return lines
