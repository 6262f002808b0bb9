"""What is written on a version about its promotion: one record for programs, a few tags and a text for people.

Words only; who wins is decided in `evaluation.comparison`, and moved in `champions`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from iql_ray.redaction import redacted
from iql_ray.tracking.champions import Words

if TYPE_CHECKING:
    from iql_ray.tracking.promotion import Proposal

PROMOTED, KEPT, ALREADY = "promoted", "kept", "already champion"
PREFIXES = ("promotion.", "rollback.")
RECORD_TAG = "promotion.record"
DECISION_TAG = "promotion.decision"
SCORE_TAG = "promotion.score"
ROLLBACK_TAG = "rollback.record"
MAX_TAG_LENGTH = 100_000
"""MLflow's limit for a tag of a version."""
HEADING = "**Promotion:**"
"""From it on the description is ours, above it is whoever's. MLflow's list of versions shows the first line."""


def record_of(proposal: Proposal, *, is_promoted: bool, reason: str) -> dict[str, Any]:
    """Everything about the decision, as plain JSON types."""
    found = json.loads(json.dumps(asdict(proposal.comparison)))
    record = {
        "decision": PROMOTED if is_promoted else KEPT,
        "reason": reason,
        "at": _now(),
        "version": proposal.version,
        "source": redacted(proposal.source) if proposal.source else None,
        "compared_with": proposal.compared_with,
        "replaced": proposal.compared_with if is_promoted else None,
        **asdict(proposal.gate),
        "dataset_sha256": proposal.dataset_sha256,
        "protocol_sha256": proposal.comparison.protocol.sha256,
        **found,
    }
    if len(json.dumps(record)) > MAX_TAG_LENGTH:  # of so many episodes; they follow from the protocol
        record["seeds"] = "too many for a tag: iql_ray.evaluation.episodes.split_into_groups(num_episodes, seed)"
    return record


def already_champion(version: str) -> dict[str, Any]:
    """The record of a version that is the champion, and was not made so here."""
    return {"decision": ALREADY, "reason": f"version {version} is the champion", "version": version}


def read_record(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """The record on a version, None where it was never proposed."""
    return json.loads(tags[RECORD_TAG]) if RECORD_TAG in tags else None


def words_of(record: Mapping[str, Any], description: str | None) -> Words:
    """The record as tags, and as the last section of the version's description."""
    tags = {
        RECORD_TAG: json.dumps(record),
        DECISION_TAG: decision_in_words(record),
        SCORE_TAG: with_interval(record["score"], record["score_ci"]),
    }
    above = (description or "").partition(HEADING)[0].rstrip()
    return Words(tags=tags, description="\n\n".join(filter(None, [above, _text(record)])))


def decision_in_words(record: Mapping[str, Any]) -> str:
    """`promoted, replacing version 3`, and the like."""
    if record["decision"] != PROMOTED:
        against = record["compared_with"]
        return f"kept, compared with version {against}" if against else "kept, without a champion"
    return f"promoted, replacing version {record['replaced']}" if record["replaced"] else "promoted, the first champion"


def with_interval(value: float, interval: tuple[float, float] | list[float]) -> str:
    """`-146.3 [-164.3, -127.9]`."""
    low, high = interval
    return f"{value:.5g} [{low:.5g}, {high:.5g}]"


def rollback_record(*, rolled_back: str, restored: str, reason: str | None) -> dict[str, Any]:
    return {"decision": "rolled back", "rolled_back": rolled_back, "restored": restored, "reason": reason, "at": _now()}


def rollback_words(record: Mapping[str, Any], description: str | None) -> Words:
    """The same on both versions: the record as a tag, and a line below the description."""
    because = f": {record['reason']}" if record["reason"] else ""
    line = f"**Rolled back** from version {record['rolled_back']} to {record['restored']} ({record['at']}){because}."
    text = "\n\n".join(filter(None, [description, line]))
    return Words(tags={ROLLBACK_TAG: redacted(json.dumps(record))}, description=redacted(text))


def _text(record: Mapping[str, Any]) -> str:
    """For the model's page: Markdown."""
    rows = [("this version", record["score"], record["score_ci"])]
    if record["difference"] is not None:
        rows += [
            (
                f"the champion (version {record['compared_with']})",
                record["champion_score"],
                record["champion_score_ci"],
            ),
            ("difference, paired", record["difference"], record["difference_ci"]),
        ]
    table = [f"| {label} | {with_interval(value, interval)} |" for label, value, interval in rows]
    warnings = [f"- **{each['kind']}**: {each['message']}" for each in record["warnings"]]
    return "\n".join(
        [
            f"{HEADING} {decision_in_words(record)} ({record['at']}): {record['reason']}.",
            "",
            "| | score, 95% interval |",
            "| --- | --- |",
            *table,
            "",
            f"{_how(record)} Protocol `{record['protocol_sha256'][:12]}`, "
            f"learned from dataset `{(record['dataset_sha256'] or 'not recorded')[:12]}`.",
            *([""] * bool(warnings)),
            *warnings,
        ]
    )


def _how(record: Mapping[str, Any]) -> str:
    """The protocol in a sentence."""
    protocol = record["protocol"]
    shared = ", both from the same seeds" if record["difference"] is not None else ""
    if protocol["method"] == "fqe":
        data = (protocol["dataset_sha256"] or "")[:12]
        return (
            f"Fitted Q evaluation on dataset `{data}`, discounted at {protocol['discount']:g}, seed "
            f"{protocol['seed']}, temperature {protocol['temperature']:g}: from logged data alone, tried nowhere."
        )
    return (
        f"Mean return of {protocol['num_episodes']} episodes of {protocol['environment']}, seed {protocol['seed']}, "
        f"temperature {protocol['temperature']:g}{shared}."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
