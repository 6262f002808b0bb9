"""The picture of settings that changed along the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from iql_ray.evaluation.schedules import Change, TrialCourse, TrialSchedule
from iql_ray.report.schedule_figure import draw_schedules


def course(name: str, rate: float, changes: tuple[Change, ...] = ()) -> TrialCourse:
    first = {
        "expectile": 0.7,
        "inverse_temperature": 3.0,
        "agent.learning_rate": rate,
        "agent.policy_schedule": "cosine",
    }
    return TrialCourse(
        name=name,
        points=[(1000, rate), (2000, 1.0 + rate)],
        schedule=TrialSchedule(first=first, changes=changes),
    )


def test_it_is_drawn_with_numbers_and_words(tmp_path: Path):
    settings = {
        "expectile": 0.7, "inverse_temperature": 3.0, "agent.learning_rate": 1e-2, "agent.policy_schedule": "constant",
    }  # fmt: skip
    change = Change(num_updates=1000, source="2", settings=settings)
    courses = [course("1", 1e-4, (change,)), course("2", 1e-3)]
    path = draw_schedules(tmp_path / "picture.svg", courses, "1", "pendulum", "return")
    text = path.read_text()
    assert "pendulum" in text
    for words in ("learning rate", "policy schedule", "updates", "return"):
        assert f"<!-- {words} -->" in text
    assert "<!-- expectile -->" not in text, "it never changes"


def test_without_trials_there_is_no_picture(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one trial"):
        draw_schedules(tmp_path / "picture.svg", [], "1", "pendulum", "return")
