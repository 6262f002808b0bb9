"""The gate of the registry: a version becomes the champion only by a comparison with the one that is champion then.

Comparing takes minutes and holds no lock; deciding takes a moment and holds it. If the champion has changed in between,
the candidate is compared again, with the new one. How two policies are compared is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iql_ray.evaluation.comparison import Comparison, Gate
from iql_ray.tracking import verdicts
from iql_ray.tracking.champions import CHAMPION, Champions, Change, Words, find_model, holding, version_of
from iql_ray.tracking.registry import known_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

Record = dict[str, Any]
Compare = Callable[[str | None], Comparison]
"""From the champion's version, None where there is none, to the comparison of the candidate with it."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A candidate, and what was found when it was compared with the champion of that time."""

    name: str
    version: str
    compared_with: str | None
    comparison: Comparison
    gate: Gate
    source: str | None = None
    """What the candidate was given as."""
    dataset_sha256: str | None = None
    """Of what it learned from."""


Decide = Callable[[Proposal], Record | None]


def promote(
    propose: Callable[[str | None], Proposal], champion_now: Callable[[], str | None], decide: Decide
) -> Record:
    """Compare and decide, again and again until nobody else has changed the champion in between.

    Ends: every repetition means that another candidate has just been promoted.

    Args:
        propose: compares the candidate with that version.
        decide: `decide` of this module, by way of whatever makes callers take turns.

    Returns:
        The record of the decision, as it is written on the version.
    """
    while True:
        record = decide(propose(champion_now()))
        if record is not None:
            return record


def decide(client: MlflowClient, uri: str, proposal: Proposal) -> Record | None:
    """Under the lock: promote the candidate or keep it as a version, and write down why.

    Returns:
        The record; None where the champion is no longer the one that the candidate was compared with.
    """
    with holding(client, uri, proposal.name) as champions:
        champion = champions.champion
        if champion != proposal.compared_with and champion != proposal.version:
            return None
        version = client.get_model_version(proposal.name, proposal.version)
        if champion == proposal.version:  # by another process, or by an attempt whose answer was lost
            return verdicts.read_record(version.tags) or verdicts.already_champion(proposal.version)
        record = would_decide(proposal)
        words = verdicts.words_of(record, version.description)
        if record["decision"] == verdicts.PROMOTED:
            champions.make(_replacement(champions, proposal.version, champion, words))
        else:
            champions.write(proposal.version, words)
        return record


def would_decide(proposal: Proposal) -> Record:
    """What `decide` would write if nothing changed meanwhile; nothing is locked or written."""
    is_promoted, reason = proposal.gate.passes(proposal.comparison)
    return verdicts.record_of(proposal, is_promoted=is_promoted, reason=reason)


def _replacement(champions: Champions, version: str, champion: str | None, words: Words) -> Change:
    """The candidate instead of the champion; where there was none, an earlier one may still be remembered."""
    previous = champion or champions.previous
    return Change(champion=version, previous=None if previous == version else previous, words={version: words})


def roll_back(client: MlflowClient, uri: str, name: str, reason: str | None = None) -> Record:
    """Swap @champion and @previous-champion, and write on both that it was done.

    Raises:
        ValueError: no such model, no champion, or none before it.
    """
    if find_model(client, name) is None:
        raise ValueError(f"model '{name}' cannot be rolled back: {known_versions(client, name)}")
    with holding(client, uri, name) as champions:
        champion, previous = champions.champion, champions.previous
        if champion is None or previous is None:
            missing = "no champion" if champion is None else f"no champion before version {champion}"
            raise ValueError(f"model '{name}' has {missing}: nothing to roll back to ({known_versions(client, name)})")
        record = verdicts.rollback_record(rolled_back=champion, restored=previous, reason=reason)
        words = {
            version: verdicts.rollback_words(record, client.get_model_version(name, version).description)
            for version in (champion, previous)
        }
        champions.make(Change(champion=previous, previous=champion, words=words))
        return record


def champion_of(client: MlflowClient, name: str) -> str | None:
    """The champion's version as of now; None without one, or without such a model."""
    return version_of(client, name, CHAMPION)
