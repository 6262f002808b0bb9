"""A store with versions of one registered model, for the tests of who fetches and serves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iql_ray.policy import Policy
from iql_ray.tracking.registry import log_policy_model
from iql_ray.tracking.store import default_tracking_uri
from tests.tracking.examples import client_of, new_storage

NAME = "small"


class Registry:
    """An SQLite store, its client, and the versions in it."""

    def __init__(self, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.storage = new_storage(tmp_path, tmp_path_factory)
        self.tracking_uri = default_tracking_uri(self.storage)
        self.client: Any = client_of(self.storage)
        self._experiment = self.client.create_experiment("tests", str(self.storage / "mlartifacts"))
        self._scratch = tmp_path

    def register(self, policy: Policy) -> str:
        """The policy as the next version, logged by a run of its own; returns the version."""
        run_id = self.client.create_run(self._experiment).info.run_id
        folder = self._scratch / run_id
        folder.mkdir()
        policy.save(folder)
        version = log_policy_model(self.client, run_id, folder, register_as=NAME).version
        assert version is not None
        return version

    def crown(self, version: str) -> None:
        """Move the alias `champion`."""
        self.client.set_registered_model_alias(NAME, "champion", version)

    def files_of(self, version: str) -> Path:
        """Where the version's policy lies."""
        return Path(self.client.get_model_version(NAME, version).source) / "artifacts" / "policy"
