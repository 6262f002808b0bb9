"""Names and aliases: what can stand in a model's URI, and what cannot."""

from __future__ import annotations

import pytest

from iql_ray.tracking.names import ModelReference, check_alias, check_model_name, parse_reference


@pytest.mark.parametrize("name", ["pen", "p", "pen v2", "pen_2.b-1", "Stift-für-alles", "x" * 200])
def test_a_plain_name_is_taken(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " pen", "pen ", "../pen", "pen/2", "pen:2", "pen@a", "it's", 'a"b', "a`b", "a%20b", "a\nb", "x" * 201,
     "m-" + "0" * 32],
)  # fmt: skip
def test_a_name_that_a_uri_a_filter_or_a_path_would_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 200 letters"):
        check_model_name(name)


def test_the_names_of_locks_are_reserved() -> None:
    with pytest.raises(ValueError, match="reserved for the lock of a promotion"):
        check_model_name("pen.promotion-lock.1")


@pytest.mark.parametrize("alias", ["champion", "previous-champion", "A1_b"])
def test_a_plain_alias_is_taken(alias: str) -> None:
    assert check_alias(alias) == alias


@pytest.mark.parametrize("alias", ["", "latest", "Latest", "v3", "3", "-a", "a b", "a/b", "a@b", "x" * 101])
def test_an_alias_that_mlflow_reserves_or_refuses_is_refused(alias: str) -> None:
    with pytest.raises(ValueError, match="must be a letter and up to 99"):
        check_alias(alias)


@pytest.mark.parametrize("text", ["pen@champion", "models:/pen@champion"])
def test_a_reference_names_a_version_by_alias(text: str) -> None:
    assert parse_reference(text) == ModelReference(name="pen", alias="champion")


@pytest.mark.parametrize("text", ["pen/7", "models:/pen/7", "models://pen/7"])
def test_a_reference_names_a_version_by_number(text: str) -> None:
    assert parse_reference(text) == ModelReference(name="pen", version="7")


@pytest.mark.parametrize("text", ["pen", "", "pen/seven", "pen@", "runs:/abc/policy", "a/b/3"])
def test_anything_else_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected models:/NAME/VERSION or models:/NAME@ALIAS|must be"):
        parse_reference(text)
