"""The page of a search: whole in one file, with the verdict, the leaderboard and the way back to the best."""

from __future__ import annotations

from pathlib import Path

from iql_ray.evaluation.leaderboard import rank
from iql_ray.evaluation.leaderboard_words import verdict
from iql_ray.report.search_page import SearchStory, page, write_page
from tests.evaluation.search_scores import configuration, fitted
from tests.report.page_reader import read

STANDINGS = rank(
    [
        *fitted(configuration(0.9, schedule="<b>"), 4, 5),
        *fitted(configuration(0.7, schedule="cosine"), 1, 2),
        *fitted(configuration(0.5, schedule="cosine"), 9, is_stopped=True),
    ]
)


def story(folder: Path, **more) -> SearchStory:
    picture = folder / "search.png"
    picture.write_bytes(b"\x89PNG")
    return SearchStory(
        title="Search <b>",
        picture=picture,
        protocol="Ten episodes.\n\nOf <each>.",
        settings={"agent.hidden_sizes": (256, 256)},
        command=["iql-ray train", "--config best.yaml"],
        **more,
    )


def test_the_page_is_well_formed_and_needs_nothing_else(tmp_path: Path) -> None:
    reader = read(page(STANDINGS, story(tmp_path)))
    assert reader.references == ["data:image/png;base64,iVBORw=="]
    assert all(reader.alternatives)


def test_all_that_is_known_stands_on_it(tmp_path: Path) -> None:
    reader = read(page(STANDINGS, story(tmp_path)))
    text = "".join(reader.text)
    assert verdict(STANDINGS) in text
    assert "iql-ray train \\\n    --config best.yaml" in text
    assert {"Search <b>", "Ten episodes.", "Of <each>.", "256 x 256", "<b>", "20,000, stopped"} <= set(reader.text)
    assert "Tracked runs" not in text


def test_runs_are_listed_by_configuration(tmp_path: Path) -> None:
    run_ids = {STANDINGS[0].configuration: ["abc", "def"]}
    text = read(page(STANDINGS, story(tmp_path, run_ids=run_ids))).text
    assert {"Tracked runs", STANDINGS[0].configuration.label, "abc", "def"} <= set(text)


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    path = write_page(tmp_path / "search.html", STANDINGS, story(tmp_path))
    assert path.read_text(encoding="utf-8") == page(STANDINGS, story(tmp_path))
    assert not list(tmp_path.glob("*.partial"))
