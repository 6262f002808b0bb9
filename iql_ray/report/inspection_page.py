"""An inspection as one HTML page that needs nothing else: no network, no script, figures inside.

What is said comes from the inspection; how the figures are drawn is `inspection_figures.py`, how a page is put
together `page_parts.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from iql_ray.data.inspection import Finding, Inspection
from iql_ray.report import inspection_figures as figures
from iql_ray.report.inspection_figures import number
from iql_ray.report.page_parts import command, svg_figure, table, whole_page, write_whole

MAX_OBSERVATIONS = 64
NUM_SKETCH_BINS = 24


def write_page(path: str | Path, inspection: Inspection) -> Path:
    """Write the page; the folder of `path` must exist."""
    return write_whole(path, page(inspection))


def page(inspection: Inspection) -> str:
    """The page's whole HTML."""
    name = escape(inspection.folder.absolute().name)
    sections = (
        _header(inspection, name),
        _findings(inspection),
        _settings(inspection),
        _episodes(inspection),
        _rewards(inspection),
        _actions(inspection),
        _observations(inspection),
        _lineage(inspection),
    )
    return whole_page(f"{name}: inspection", sections)


def verdict(findings: Sequence[Finding]) -> str:
    """How many things were found, in words."""
    if not findings:
        return "Nothing looks wrong."
    counts = {
        severity: sum(each.severity == severity for each in findings) for severity in ("problem", "warning", "note")
    }
    said = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
    return f"{', '.join(said[:-1])} and {said[-1]}." if len(said) > 1 else f"{said[0]}."


def _header(inspection: Inspection, name: str) -> str:
    facts = inspection.facts
    manifest, episodes = facts.manifest, facts.episodes
    lengths, returns = episodes.lengths, manifest.episode_returns
    spaces = manifest.spaces
    actions = f"{spaces.num_actions} choices" if spaces.num_actions else f"{spaces.action_dim} numbers"
    tiles = (
        ("Rows", f"{manifest.num_rows:,}", f"{spaces.observation_dim} observations, {actions}"),
        ("Episodes", f"{manifest.num_episodes:,}", _ends(episodes.is_terminated)),
        ("Return", number(returns.mean), f"mean; {number(returns.min)} to {number(returns.max)}"),
        ("Length", number(float(np.median(lengths))), _spread(lengths)),
        (
            "Reward",
            number(manifest.columns["rewards"].mean[0]),
            f"mean a row; spread {number(manifest.columns['rewards'].std[0])}",
        ),
    )
    shown = "".join(
        f"<div><dt>{title}</dt><dd>{value}<small>{more}</small></dd></div>\n" for title, value, more in tiles
    )
    environment = escape(manifest.environment_id or "no environment named")
    return (
        f'<h1>{name}</h1>\n<p class="muted">A look at the data before learning from it &middot; {environment} &middot;'
        f" digest <code>{manifest.digest[:12]}</code></p>\n"
        f'<p class="verdict">{verdict(inspection.findings)}</p>\n<dl class="tiles">\n{shown}</dl>\n'
    )


def _spread(lengths: np.ndarray) -> str:
    if lengths.min() == lengths.max():
        return "steps, all of them"
    return f"median; {lengths.min():,} to {lengths.max():,} steps"


def _ends(is_terminated: np.ndarray) -> str:
    if is_terminated.all():
        return "all terminated"
    return f"{is_terminated.mean():.0%} terminated, the rest cut" if is_terminated.any() else "all cut, none terminated"


def _findings(inspection: Inspection) -> str:
    if not inspection.findings:
        return "<h2>What stands out</h2>\n<p>Nothing: no flaw that is looked for was found.</p>\n"
    repair = ""
    if inspection.repair:
        repair = f"<p>All that a rule can repair, in one command:</p>\n{command(inspection.repair)}"
    return f"<h2>What stands out</h2>\n{''.join(map(_finding, inspection.findings))}{repair}"


def _finding(finding: Finding) -> str:
    numbers = [f"{name.replace('_', ' ')}: {_value(value)}" for name, value in finding.evidence.items()]
    rows = ", ".join(f"({episode}, {step})" for episode, step in finding.examples)
    evidence = [*numbers, *([f"rows (episode, step) such as {rows}"] if rows else [])]
    return (
        f'<div class="finding {finding.severity}">\n<h3>{finding.severity} &middot; {finding.kind}</h3>\n'
        f"<p>{escape(finding.sentence)}</p>\n<p><strong>What to do:</strong> {escape(finding.fix)}.</p>\n"
        f'<p class="evidence">{escape("; ".join(evidence))}</p>\n</div>\n'
    )


def _value(value: float | int | str) -> str:
    return value if isinstance(value, str) else number(value)


def _settings(inspection: Inspection) -> str:
    settings = inspection.settings
    rows = (
        (f"<code>--{each.setting}</code>", f"<code>{each.value}</code>", escape(each.reason))
        for each in settings.suggestions
    )
    start = ["iql-ray train", shlex.join(["--dataset", str(inspection.folder)])]
    return (
        "<h2>Settings to start from</h2>\n"
        f"<p>The paper's, chosen by what these data look like; nearest is the recipe <code>{settings.recipe}</code>."
        " They are a start, not a promise: search around them.</p>\n"
        f"{table(('setting', 'value', 'because'), rows)}{command([*start, *settings.flags()])}"
    )


def _episodes(inspection: Inspection) -> str:
    return (
        "<h2>Episodes</h2>\n"
        + svg_figure(
            figures.returns_figure(inspection),
            "Undiscounted returns of the rows that are kept. A policy learned offline is as good as the best parts of"
            " the data put together; where all episodes earn the same, there is little to prefer. A trend to the right"
            " is a behaviour that learned.",
        )
        + svg_figure(
            figures.lengths_figure(inspection),
            "After a termination nothing follows, so nothing is bootstrapped; an episode that was merely cut goes on"
            " beyond the log. A time limit belongs to the cut ones.",
        )
    )


def _rewards(inspection: Inspection) -> str:
    return "<h2>Rewards</h2>\n" + svg_figure(
        figures.rewards_figure(inspection), "Rewards as logged, before any scaling; counted over all rows."
    )


def _actions(inspection: Inspection) -> str:
    facts = inspection.facts
    parts = ["<h2>Actions</h2>\n"]
    if facts.manifest.spaces.is_discrete:
        parts.append(svg_figure(figures.actions_figure(inspection), "How often each choice was taken."))
    else:
        shown = f", the first {figures.MAX_PANELS} of {facts.manifest.spaces.action_dim} dimensions"
        more = shown if facts.manifest.spaces.action_dim > figures.MAX_PANELS else ""
        parts.append(
            svg_figure(
                figures.actions_figure(inspection),
                f"Each dimension over its whole box{more}. What the box is wide for and the data never do is unknown.",
            )
        )
        parts.append(
            svg_figure(
                figures.bounds_figure(inspection),
                "At or within 1% of the box's width of a bound. A behaviour that switches between the bounds is hard to"
                " imitate with one Gaussian.",
            )
        )
    parts.append(_behaviour(inspection))
    return "".join(parts)


def _behaviour(inspection: Inspection) -> str:
    behaviour = inspection.facts.behaviour
    if behaviour.overall is None:
        return (
            "<p>There are too few episodes, or the actions vary too little, to tell how random the behaviour was.</p>\n"
        )
    said = (
        f"At most {behaviour.overall:.0%} of the actions' variance is not explained by the observations: near 0 the"
        " data show one action per situation and there is nothing to choose from, near 100% the behaviour was random,"
        f" or many behaviours. Measured on {behaviour.num_rows:,} random rows: half of the episodes predict the actions"
        " of the other half, by the nearest observation and by a ridge regression, with random features and without;"
        " the best of them counts, so the true share may be lower."
    )
    if inspection.facts.manifest.spaces.is_discrete:
        return f"<p>{said}</p>\n"
    return svg_figure(figures.behaviour_figure(inspection), said)


def _observations(inspection: Inspection) -> str:
    columns = inspection.facts.manifest.columns["observations"]
    shown = min(len(columns.mean), MAX_OBSERVATIONS)
    rows = (
        (
            f"<code>{index}</code>",
            number(columns.mean[index]),
            number(columns.std[index]),
            number(columns.min[index]),
            number(columns.max[index]),
            _sketch(inspection.sample.observations[:, index]),
        )
        for index in range(shown)
    )
    more = "" if shown == len(columns.mean) else f" The first {shown} of {len(columns.mean)} are shown."
    return (
        "<h2>Observations</h2>\n"
        f"<p>Mean, spread and range over all rows; the sketch is of a random sample.{more}</p>\n"
        f"{table(('column', 'mean', 'spread', 'least', 'largest', 'distribution'), rows, numbers=(1, 2, 3, 4))}"
    )


def _sketch(values: np.ndarray) -> str:
    """A histogram in a table's cell."""
    counts, _ = np.histogram(values, NUM_SKETCH_BINS)
    heights = 20 * counts / counts.max()
    bars = "".join(
        f'<rect x="{5 * index}" y="{22 - height:.1f}" width="4.2" height="{height:.1f}"/>'
        for index, height in enumerate(np.where(counts > 0, np.maximum(heights, 0.8), 0))
        if height
    )
    return f'<svg class="sketch" viewBox="0 0 120 22" role="img" aria-label="distribution">{bars}</svg>'


def _lineage(inspection: Inspection) -> str:
    manifest, provenance = inspection.facts.manifest, inspection.facts.manifest.provenance
    prepared_by = f"iql_ray {provenance.iql_ray_version}"
    facts: dict[str, str] = {
        "folder": str(inspection.folder),
        "digest of the content": manifest.digest,
        "source": provenance.source,
        "licence": manifest.licence or "not said",
        "columns": ", ".join(f"{ours} = {theirs}" for ours, theirs in provenance.columns.items()),
        "truncations": "recorded by the source"
        if provenance.are_truncations_recorded
        else "not recorded by the source",
        "prepared by": f"{prepared_by} at {provenance.git_commit}" if provenance.git_commit else prepared_by,
        "prepared at": provenance.created_at,
    }
    fixes = {
        f"fix {fix.rule}": f"{fix.num_rows:,} rows of {fix.num_episodes:,} episodes; {fix.description}"
        for fix in provenance.fixes
    }
    files = {f"file {file.name}": f"{file.num_bytes:,} bytes, sha256 {file.sha256}" for file in provenance.files[:20]}
    rows = ((escape(name), escape(value)) for name, value in {**facts, **fixes, **files}.items())
    return f"<h2>Where the data come from</h2>\n{table(('', ''), rows, long=True)}"
