"""The policy behind a name of the registry, kept at hand while the name moves on to other versions.

It is fetched whole, checked and tried out before it takes the place of the one before. Nothing here answers requests,
and no alias is moved.
"""

from __future__ import annotations

import shutil
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iql_ray.policy import Policy
from iql_ray.redaction import redacted
from iql_ray.tracking.names import parse_reference
from iql_ray.tracking.registry import download_policy
from iql_ray.tracking.saved_policy import policy_digest
from iql_ray.tracking.store import open_client, require_store


@dataclass(frozen=True, kw_only=True)
class ServedPolicy:
    """One version of a registered model, ready to act."""

    policy: Policy
    name: str
    version: str
    digest: str
    """Of weights and description, as the registry has it."""


def fetch(name: str, version: str, tracking_uri: str) -> ServedPolicy:
    """Download a version, refuse it if it is not what was registered, and act once with it.

    Raises:
        ValueError: there is no such version, it was changed, or it does not load.
    """
    uri = f"models:/{name}/{version}"
    folder = Path(tempfile.mkdtemp(prefix="iql_ray_policy_"))
    try:
        policy_folder = download_policy(uri, tracking_uri, folder)
        policy, digest = Policy.load(policy_folder), policy_digest(policy_folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    policy.act(np.zeros((1, policy.description.observation_dim)))
    return ServedPolicy(policy=policy, name=name, version=version, digest=digest)


class Follower:
    """The policy that an alias names, or once named while the registry is away.

    Args:
        uri: models:/NAME@ALIAS is followed, models:/NAME/VERSION stays.
        tracking_uri: the store that knows the model.

    Raises:
        ValueError: there is no such model, alias or version, it was changed, or the store does not answer.
    """

    def __init__(self, uri: str, tracking_uri: str) -> None:
        self._uri = uri
        self._tracking_uri = tracking_uri
        named = parse_reference(uri)
        self._name, self._alias = named.name, named.alias
        require_store(tracking_uri)
        self.current = self._first(named.version)
        """Replaced as a whole: whoever took it before keeps a policy that is all of one version."""
        self._problem: str | None = None
        self._checked_at = time.time()

    def refresh(self) -> None:
        """Look which version the alias names, and change over to it; whatever fails, the policy at hand stays."""
        if self._alias is None:
            return
        try:
            version = self._resolve()
            if version != self.current.version:
                self.current = self._fitting(fetch(self._name, version, self._tracking_uri))
            self._problem, self._checked_at = None, time.time()
        except Exception as error:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 400)
            self._problem = f"still version {self.current.version} of '{self._name}': {reason}"

    def status(self) -> dict[str, Any]:
        """What is served, since when the registry has not confirmed it, and why."""
        return {
            "model": self._uri,
            "version": self.current.version,
            "policy_digest": self.current.digest,
            "problem": self._problem,
            "seconds_since_registry": round(time.time() - self._checked_at, 1),
        }

    def _first(self, version: str | None) -> ServedPolicy:
        from mlflow.exceptions import MlflowException

        try:
            return fetch(self._name, version or self._resolve(), self._tracking_uri)
        except MlflowException as error:
            reason = textwrap.shorten(str(error), 300)
            raise ValueError(
                f"the registry {redacted(self._tracking_uri)} does not say what '{self._uri}' is; check that it runs, "
                f"and --tracking-uri: {reason}"
            ) from error

    def _resolve(self) -> str:
        """The version that the alias names now."""
        from mlflow.exceptions import MlflowException

        assert self._alias is not None
        client = open_client(self._tracking_uri)
        try:
            return str(client.get_model_version_by_alias(self._name, self._alias).version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise ValueError(
                f"no version of '{self._name}' has the alias '{self._alias}' on {redacted(self._tracking_uri)}; "
                f"promote one with `iql-ray promote`, or name a version: models:/{self._name}/1"
            ) from error

    def _fitting(self, served: ServedPolicy) -> ServedPolicy:
        """Refuse a version that the clients of the one before could not talk to."""
        mine, other = (_interface(each.policy) for each in (self.current, served))
        if mine != other:
            raise ValueError(
                f"version {served.version} takes and gives {other}, version {self.current.version} {mine}; "
                "serve it by a process of its own"
            )
        return served


def _interface(policy: Policy) -> str:
    description = policy.description
    is_choice = description.kind == "categorical"
    actions = f"one of {description.num_actions}" if is_choice else f"{len(description.action_low)} numbers"
    return f"{description.observation_dim} observations -> {actions}"
