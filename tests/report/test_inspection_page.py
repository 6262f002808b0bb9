"""The page of an inspection: well-formed, whole in one file, with everything that was found on it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from iql_ray.data.inspection import Finding
from iql_ray.report import inspection_figures as figures
from iql_ray.report.inspection_page import page, verdict, write_page
from tests.data.inspected import clean_columns, inspected
from tests.report.page_reader import read


def discrete_columns() -> dict[str, np.ndarray]:
    columns = clean_columns()
    rewards = np.ones_like(columns["rewards"])
    return {**columns, "actions": np.arange(len(rewards)) % 3, "rewards": rewards}


@pytest.mark.parametrize("columns", [clean_columns(), discrete_columns()], ids=["box", "discrete"])
def test_the_page_is_well_formed_and_needs_nothing_else(tmp_path: Path, columns: dict[str, np.ndarray]) -> None:
    html = page(inspected(tmp_path, columns))
    reader = read(html)
    assert all(reference.startswith("data:image/svg+xml;base64,") for reference in reader.references)
    assert not re.search(r"<(script|iframe|link|object)|@import|url\(", html)
    assert all(reader.alternatives)
    for reference in reader.references:
        svg = base64.b64decode(reference.partition(",")[2], validate=True).decode()
        assert svg.rstrip().endswith("</svg>")
        assert not re.search(r'(href|src)="(?!#)', svg)


def test_findings_settings_and_lineage_stand_on_it(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["next_observations"][2] += 1
    inspection = inspected(tmp_path, columns, licence="CC BY <4.0>")
    text = "".join(read(page(inspection)).text)
    assert "1 warning." in text
    assert inspection.findings[0].sentence in text
    assert "such as (0, 2)" in text
    for each in inspection.settings.suggestions:
        assert each.reason in text
        assert f"--{each.setting}" in text
    assert inspection.facts.manifest.digest in text
    assert "CC BY <4.0>" in text, "escaped, and read back"


def test_a_repair_stands_as_one_command(tmp_path: Path) -> None:
    columns = clean_columns()
    columns["terminations"] |= columns["truncations"]
    columns["truncations"][:] = False
    text = "".join(read(page(inspected(tmp_path, columns))).text)
    assert "--fix time-limit-is-truncation \\\n    --out" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "a<b>&c"
    folder.mkdir()
    html = page(inspected(folder, clean_columns()))
    assert "a<b>" not in html
    assert "a&lt;b&gt;&amp;c" in html


def test_many_dimensions_are_cut_short_and_it_is_said(tmp_path: Path) -> None:
    columns = clean_columns()
    generator = np.random.default_rng(2)
    num_rows = len(columns["rewards"])
    columns["actions"] = generator.uniform(-1, 1, (num_rows, 45)).astype(np.float32)
    walk = np.cumsum(generator.standard_normal((num_rows + 1, 70)), axis=0).astype(np.float32)
    columns["observations"], columns["next_observations"] = walk[:-1], walk[1:]
    text = "".join(read(page(inspected(tmp_path, columns))).text)
    assert "The first 64 of 70 are shown." in text
    assert f"the first {figures.MAX_PANELS} of 45 dimensions" in text


def test_a_page_is_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    inspection = inspected(tmp_path, clean_columns())
    path = write_page(tmp_path / "page.html", inspection)
    assert path.read_text(encoding="utf-8") == page(inspection)
    assert not list(tmp_path.glob("*.partial"))


def finding(severity: str) -> Finding:
    return Finding(kind="k", severity=severity, sentence="s", fix="f")  # pyright: ignore[reportArgumentType]


def test_the_verdict_counts() -> None:
    assert verdict([]) == "Nothing looks wrong."
    assert verdict([finding("problem")]) == "1 problem."
    assert verdict([finding("problem"), *[finding("note")] * 2]) == "1 problem and 2 notes."
    three = [finding("problem"), finding("warning"), finding("note")]
    assert verdict(three) == "1 problem, 1 warning and 1 note."


def test_numbers_are_short() -> None:
    assert [figures.number(value) for value in (0.0, -1.5, 1234567.0, 0.000012345, -0.0)] == [
        "0",
        "\N{MINUS SIGN}1.5",
        "1,234,567",
        "1.234e\N{MINUS SIGN}05",
        "0",
    ]
