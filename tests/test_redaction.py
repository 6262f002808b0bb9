"""Secrets leave nothing but three stars; what is no secret stays as it was."""

from __future__ import annotations

import json

import pytest

from iql_ray.config import save
from iql_ray.redaction import redacted, redacted_values
from iql_ray.tracking.store import RunAddress, load_address
from pipelines import command_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql+psycopg://ann:pa55@host:5432/db", "postgresql+psycopg://ann:***@host:5432/db"),
        ("postgresql://ann:p@55/word@host/db", "postgresql://ann:***@host/db"),
        ("store https://ann:pa55@host/x is away", "store https://ann:***@host/x is away"),
        ("https://ghp_1234567890@github.com/x", "https://***@github.com/x"),
        ("s3://AKIA123:se/cret@bucket/key", "s3://AKIA123:***@bucket/key"),
        ("https://host/x?sig=abc&part=1", "https://host/x?sig=***&part=1"),
        ("postgresql://host/db?user=ann&password=pa55", "postgresql://host/db?user=ann&password=***"),
        ("s3://b/k?X-Amz-Security-Token=abc", "s3://b/k?X-Amz-Security-Token=***"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ***"),
    ],
)
def test_a_secret_is_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/ann/runs/mlflow.db",
        "models:/pen@champion",
        "http://host:5000/#/models/pen@champion",
        "http://127.0.0.1:5000",
        "postgresql+psycopg://ann@host/db",
        "minari:D4RL/pen/human-v2",
        "mail ann@host.org",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_value_named_after_a_secret_is_hidden_whole() -> None:
    values = {"store.password": "x", "api_key": "y", "token": None, "num_tokens": 3, "uri": "https://a:b@c"}
    hidden = {"store.password": "***", "api_key": "***", "token": None, "num_tokens": 3, "uri": "https://a:***@c"}
    assert redacted_values(values) == hidden


def test_an_error_message_a_traceback_and_a_result_show_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    uri = "postgresql://ann:pa55@host/db"

    def misuse(_: RunAddress) -> dict[str, str]:
        raise ValueError(uri)

    def failure(_: RunAddress) -> dict[str, str]:
        raise RuntimeError(uri)

    arguments = ["--run-id", "r", "--tracking-uri", uri, "--experiment", "e"]
    codes = [command_line.main(RunAddress, execute, arguments) for execute in (misuse, failure, lambda _: {"uri": uri})]
    assert codes == [2, 1, 0]
    output = capsys.readouterr()
    assert "pa55" not in output.out + output.err
    assert json.loads(output.out) == {"uri": "postgresql://ann:***@host/db"}


def test_the_address_of_a_store_with_a_password_is_for_its_user_alone(tmp_path) -> None:
    address = RunAddress(run_id="r", tracking_uri="postgresql://ann:pa55@host/db", experiment="e")
    address.save(tmp_path)
    assert load_address(tmp_path) == address
    assert (tmp_path / "tracking.json").stat().st_mode & 0o077 == 0
    save(address, tmp_path / "open.json")
    assert (tmp_path / "open.json").stat().st_mode & 0o077 != 0
