"""Which version of a name is the champion, and how another becomes it: under a lock, repaired after a crash.

A change is first written down whole on the registered model, then carried out, then struck off:

    note on the model   ->   tags, descriptions   ->   @previous-champion   ->   @champion   ->   note gone

Whoever comes next finishes what a note still says, so that a crash between any two steps leaves nothing to mend by
hand. Whether a version deserves it is not decided here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from iql_ray.tracking.locks import StillHeld, promotion_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION = "champion"
PREVIOUS_CHAMPION = "previous-champion"
NOTE_TAG = "promotion.unfinished"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Words:
    """What is written on a version."""

    tags: dict[str, str] = field(default_factory=dict)
    description: str | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to be true afterwards."""

    champion: str
    previous: str | None
    """None removes the alias."""
    words: dict[str, Words]
    """Version -> what is written on it."""


class Champions:
    """The aliases of one registered model, as they were when its lock was taken; made by `holding`."""

    def __init__(self, client: MlflowClient, name: str, still_held: StillHeld) -> None:
        self._client = client
        self._name = name
        self._still_held = still_held
        model = find_model(client, name)
        if model and NOTE_TAG in model.tags:
            self._finish(_change_of(json.loads(model.tags[NOTE_TAG])))
            model = find_model(client, name)
        self.champion = _aliased(model, CHAMPION)
        self.previous = _aliased(model, PREVIOUS_CHAMPION)

    def write(self, version: str, words: Words) -> None:
        """Tags and description of a version, nothing moved."""
        for name, value in words.tags.items():
            self._step(lambda name=name, value=value: self._set_tag(version, name, value))
        if words.description is not None:
            text = words.description
            self._step(lambda: self._client.update_model_version(self._name, version, text))

    def make(self, change: Change) -> None:
        """Note the change, carry it out, strike the note off; `champion` and `previous` stay what they were."""
        note = json.dumps(asdict(change))
        self._step(lambda: self._client.set_registered_model_tag(self._name, NOTE_TAG, note))
        self._carry_out(change)

    def _carry_out(self, change: Change) -> None:
        for version, words in change.words.items():
            self.write(version, words)
        self._point(PREVIOUS_CHAMPION, change.previous)
        self._point(CHAMPION, change.champion)
        self._step(lambda: self._client.delete_registered_model_tag(self._name, NOTE_TAG))

    def _finish(self, change: Change) -> None:
        """What somebody noted and did not come to do."""
        if missing := self._missing(change):
            logger.warning("%s: an unfinished promotion is dropped, because %s was deleted", self._name, missing)
            self._step(lambda: self._client.delete_registered_model_tag(self._name, NOTE_TAG))
            return
        logger.warning("%s: finishing the promotion of version %s, which was cut off", self._name, change.champion)
        self._carry_out(change)

    def _missing(self, change: Change) -> str | None:
        """A version of the change that there is no more."""
        versions = {str(each.version) for each in self._client.search_model_versions(f"name = '{self._name}'")}
        wanted = {change.champion, *change.words, *([change.previous] if change.previous else [])}
        return f"version {min(wanted - versions)}" if wanted - versions else None

    def _point(self, alias: str, version: str | None) -> None:
        if version is None:
            self._step(lambda: self._client.delete_registered_model_alias(self._name, alias))
        else:
            self._step(lambda: self._client.set_registered_model_alias(self._name, alias, version))

    def _set_tag(self, version: str, name: str, value: str) -> None:
        self._client.set_model_version_tag(self._name, version, name, value)

    def _step(self, write: Callable[[], Any]) -> None:
        self._still_held()
        write()


@contextmanager
def holding(client: MlflowClient, uri: str, name: str) -> Iterator[Champions]:
    """The champions of `name`, nobody else's for the length of a `with` block; what was cut off is finished first."""
    with promotion_lock(client, uri, name) as still_held:
        yield Champions(client, name, still_held)


def find_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """The registered model, None where there is none of that name."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def version_of(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that an alias names, None where it names none."""
    return _aliased(find_model(client, name), alias)


def _aliased(model: RegisteredModel | None, alias: str) -> str | None:
    found = model.aliases.get(alias) if model else None
    return None if found is None else str(found)


def _change_of(note: Mapping[str, Any]) -> Change:
    words = {version: Words(**each) for version, each in note["words"].items()}
    return Change(champion=note["champion"], previous=note["previous"], words=words)
