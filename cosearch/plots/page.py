"""The front as one HTML page: figures, table, and the command that exports each member. Works offline."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from cosearch.front import Front, Member, Objective, pick
from cosearch.plots.figures import front_figure, hypervolume_figure, panels
from cosearch.words import describe_accelerator, describe_model, label, quantity, unit_of

__all__ = ["document", "front_page", "head_cell", "slot", "unbroken"]

LEGEND = (
    "W and A: bits of weights and activations, block by block where they differ; edges: bits of stem and head. "
    "prune or merge 16&gt;10: image tokens before and after. Accelerator: rows x columns, dataflow, scratchpads for "
    "inputs/weights/outputs, DRAM bandwidth, clock."
)
History = Sequence[tuple[float, float]]


def front_page(
    front: Front,
    *,
    run: str,
    seed: int | None = None,
    facts: Mapping[str, str | int | float] | None = None,
    baseline: Front | None = None,
    cloud: Sequence[Mapping[str, float]] = (),
    history: History = (),
    baseline_history: History = (),
    names: tuple[str, str] = ("search", "baseline"),
    runs: str = "",
) -> str:
    """Returns a page that shows a front; everything it needs is inside, Plotly's 5 MB included.

    Args:
        front: what was found.
        run: the run's name, for the title and the export commands.
        seed: the run's seed.
        facts: what else to say at the top, by name, such as ``{"Models trained": 48}``.
        baseline: the front of another search to compare with.
        cloud: metrics of other scored candidates, for the background.
        history: (trainings spent, hypervolume) as the search went on.
        baseline_history: the same of the other search, in the same box.
        names: what to call the two searches.
        runs: the runs folder, where it is not the default; goes into the export commands.
    """
    vertical, costs = panels(front)
    figures = {
        f"front-{cost.metric}": front_figure(front, baseline=baseline, cloud=cloud, names=names, only=cost)
        for cost in costs
    }
    if history:
        figures["hypervolume"] = hypervolume_figure(history, baseline=baseline_history, names=names)
    aims = ", ".join(f"{'high' if o.direction == 'max' else 'low'} {_name(o)}" for o in front.objectives)
    parts = [
        f"<header><h1>Pareto front of {escape(run)}</h1>",
        f"<p>Vision transformers and accelerators, searched together for {escape(aims)}.</p></header>",
        _facts(front, seed, facts or {}),
        f"<h2>{escape(label(vertical.metric))} and what it costs</h2>",
        f'<div class="panels">{"".join(slot(name) for name in figures if name != "hypervolume")}</div>',
        '<p class="hint">Point at a member to find it in every panel and in the table; click it to go to its row. '
        "A full dot is the best that its cost buys in that panel; a pale one is on the front for another cost.</p>",
        _table(front, run, runs),
    ]
    if history:
        parts += ["<h2>How the search went</h2>", slot("hypervolume")]
    parts.append("<footer>Made by cosearch. This page works offline and loads nothing.</footer>")
    # Plotly writes every "<" as \u003c, so nothing in a figure can end its script element
    data = "".join(
        f'<script type="application/json" id="{escape(name)}">{figure.to_json(engine="json")}</script>'
        for name, figure in figures.items()
    )
    return document(f"{run}: Pareto front", "\n".join(parts), data)


def document(title: str, body: str, data: str) -> str:
    """Returns a whole page.

    Args:
        title: of the browser's tab.
        body: HTML.
        data: elements of type ``application/json``, one for each figure, with the figure's name as their id.
    """
    from plotly.offline import get_plotlyjs

    own = files("cosearch.plots")
    style, script = (own.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # an empty icon of its own keeps the browser from asking a server for one
        f'<link rel="icon" href="data:,">\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n{data}\n'
        f"<script>{get_plotlyjs()}</script>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def slot(name: str) -> str:
    """Returns the place that a figure is drawn in."""
    return f'<div class="figure" data-figure="{escape(name)}"></div>'


def _name(objective: Objective) -> str:
    text = label(objective.metric)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def _facts(front: Front, seed: int | None, facts: Mapping[str, str | int | float]) -> str:
    shown: dict[str, str] = {"On the front": f"{len(front)} {'pair' if len(front) == 1 else 'pairs'}"}
    for objective, best in zip(front.objectives, front.points().min(axis=0), strict=True) if front.members else ():
        shown[f"Best {_name(objective)}"] = quantity(objective.minimised(float(best)), _unit(objective))
    for name, value in facts.items():
        shown[name] = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value
    if seed is not None:
        shown["Seed"] = str(seed)
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in shown.items())
    return f'<dl class="facts">{items}</dl>'


def _unit(objective: Objective) -> str:
    return objective.unit or unit_of(objective.metric)


def _table(front: Front, run: str, runs: str) -> str:
    """Returns the members as a table; metrics that are no objectives wait behind a switch."""
    if not front.members:
        return '<h2>Members</h2><p class="hint">None: no candidate kept all limits.</p>'
    units = {objective.metric: _unit(objective) for objective in front.objectives}
    others = sorted({name for member in front.members for name in member.metrics} - set(units))
    heads = [head_cell("Pair")]
    heads += [head_cell(label(name), "number") for name in units]
    heads += [head_cell(label(name), "number more") for name in others]
    heads += [head_cell("Model"), head_cell("Accelerator"), "<th>Export</th>"]
    badges = _badges(front)
    rows = "".join(_row(member, units, others, badges, run, runs) for member in front.members)
    switch = '<label><input type="checkbox" id="all"> all metrics</label>' if others else ""
    return (
        f'<div class="bar"><h2>Members</h2>{switch}</div><div class="scroll"><table>'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="hint">{LEGEND}</p>'
    )


def head_cell(text: str, kind: str = "") -> str:
    """Returns a column's head, which sorts the table; of the kind ``number``, by value."""
    return f'<th scope="col" class="{kind}"><button type="button">{escape(text)}</button></th>'


def _row(
    member: Member, units: Mapping[str, str], others: Sequence[str], badges: Mapping[str, str], run: str, runs: str
) -> str:
    candidate = member.candidate
    ident = candidate.id[:8]
    command = ["cosearch", "export", run, "--pick", ident, "--out", f"{run}-{ident}"]
    command += ["--runs", runs] if runs else []
    cells = [f'<td data-value="{candidate.id}"><code title="{candidate.id}">{ident}</code>{badges[candidate.id]}</td>']
    for name in [*units, *others]:
        kind = "number" if name in units else "number more"
        value = member.metrics.get(name)
        text = "" if value is None else quantity(value, units.get(name, unit_of(name)))
        cells.append(f'<td class="{kind}" data-value="{"" if value is None else value}">{escape(text)}</td>')
    for words in (describe_model(candidate.model), describe_accelerator(candidate.accelerator)):
        cells.append(f'<td class="words" data-value="{escape(words)}">{escape(unbroken(words))}</td>')
    copy = escape(shlex.join(command))
    cells.append(f'<td><button type="button" data-copy="{copy}" title="{copy}">copy command</button></td>')
    return f'<tr data-id="{candidate.id}">{"".join(cells)}</tr>'


def unbroken(words: str) -> str:
    """Returns a description that a line break does not tear: ``patch 4`` stays together."""
    return ", ".join(part.replace(" ", "\u00a0") if len(part) < 28 else part for part in words.split(", "))


def _badges(front: Front) -> dict[str, str]:
    """Returns, for each member's id, what it is best at, and whether it is the knee."""
    said: dict[str, list[str]] = {member.candidate.id: [] for member in front.members}
    if len(front) > 1:
        said[pick(front, "knee").candidate.id].append('<span class="badge knee">knee</span>')
        for objective, row in zip(front.objectives, front.points().argmin(axis=0), strict=True):
            said[front.members[int(row)].candidate.id].append(
                f'<span class="badge">best {escape(_name(objective))}</span>'
            )
    return {ident: f"<div>{''.join(spans)}</div>" if spans else "" for ident, spans in said.items()}
