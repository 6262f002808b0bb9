"""The table has a line for every method and a column for every dataset that fit a terminal."""

from __future__ import annotations

from iql_ray.envs.umaze_data import maze_data
from iql_ray.evaluation.maze_comparison import compare
from iql_ray.evaluation.maze_study import MazeStudy
from iql_ray.report.maze_table import COLUMN_WIDTH, NAME_WIDTH, maze_table
from tests.evaluation.maze_examples import grid, learned_exactly

CRITICS = {"narrow": [("implicit", 0.9), ("td", 0.9)], "lucky": [("implicit", 0.9), ("single-q", 0.9)]}


def table() -> list[str]:
    studies = {name: MazeStudy(data=maze_data(name)) for name in CRITICS}
    learned = {name: learned_exactly(study, grid(CRITICS[name])) for name, study in studies.items()}
    return maze_table({name: compare(study, learned[name]) for name, study in studies.items()}).splitlines()


def test_every_method_has_a_line_with_a_return_where_it_was_trained():
    lines = {line.split()[0]: line for line in table() if line}
    column = NAME_WIDTH + COLUMN_WIDTH
    assert lines["iql-0.9"].split()[1:5] == ["0.572", "[0.572,", "0.572]", "(0.57)"]
    assert lines["td"][column:] == ""
    assert lines["single-q-0.9"][NAME_WIDTH:column].strip() == ""
    assert "4.397" in lines["single-q-0.9"]
    assert lines["V*,"].split()[-2:] == ["0.572", "7.372"]


def test_errors_and_overestimates_follow():
    text = "\n".join(table())
    assert "narrow        0.9: 0.0%" in text
    assert "outside data (135): 0.00, 0.00" in text
    assert max(map(len, text.splitlines())) <= NAME_WIDTH + 4 * COLUMN_WIDTH
