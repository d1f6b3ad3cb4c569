"""What verification found: each point's mean with its interval beside what the search had seen, and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from cosearch.front import Front, Member, Objective
from cosearch.plots.figures import PALETTE, axis, layout, panels, ring
from cosearch.plots.page import document, head_cell, slot, unbroken
from cosearch.verification import MemberVerdict, ModelFigures, Verification
from cosearch.words import describe_accelerator, describe_model, label, quantity, unit_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["verified_figure", "verified_page"]


def verified_figure(front: Front, verification: Verification, cost: Objective) -> go.Figure:
    """Returns the verified points in one panel: means with 95 % intervals, and what the search had recorded.

    A dot is left on the front by the means, a square is not.

    Args:
        front: as the search found it.
        verification: of it.
        cost: the horizontal axis, one of `panels`.
    """
    import plotly.graph_objects as go

    vertical, _ = panels(front)
    known = {member.candidate.id: member for member in front.members}
    models = {model.model_id: model for model in verification.models}
    shown = [m for m in verification.members if vertical.metric in models[m.model_id].estimates]
    stay, leave = [m for m in shown if m.on_front], [m for m in shown if not m.on_front]
    searched = [known[member.id] for member in shown]
    figure = go.Figure()
    figure.add_scatter(
        x=[member.metrics[cost.metric] for member in searched],
        y=[member.metrics[vertical.metric] for member in searched],
        mode="markers",
        name="in the search, one training",
        meta={"role": "cloud"},
        marker={"symbol": "circle-open", "color": PALETTE["cloud"], "size": 8, "line": {"width": 1.4}},
        customdata=[member.candidate.id for member in searched],
        hovertemplate="in the search: %{y:.4f}<extra></extra>",
    )
    for members, role, name in (
        (leave, "baseline", "mean, off the front"),
        (stay, "front", "mean and 95 % interval, on the front"),
    ):
        figure.add_trace(_means(members, known, models, (cost, vertical), role, name))
    figure.add_trace(ring())
    values = [member.metrics[cost.metric] for member in searched]
    figure.update_layout(**layout(height=440))
    figure.update_xaxes(**axis(cost, values))
    figure.update_yaxes(**axis(vertical, []))
    return figure


def _means(
    members: Sequence[MemberVerdict],
    known: dict[str, Member],
    models: dict[str, ModelFigures],
    axes: tuple[Objective, Objective],
    role: str,
    name: str,
) -> Any:
    import plotly.graph_objects as go

    cost, vertical = axes
    found = [models[member.model_id].estimates[vertical.metric] for member in members]
    symbol = "circle" if role == "front" else "square"
    return go.Scatter(
        x=[known[member.id].metrics[cost.metric] for member in members],
        y=[one.mean for one in found],
        error_y={
            "type": "data",
            "array": [one.high - one.mean for one in found],
            "arrayminus": [one.mean - one.low for one in found],
            "thickness": 1.2,
            "width": 4,
        },
        mode="markers",
        name=name,
        meta={"role": role, "part": "members"},
        marker={"symbol": symbol, "color": PALETTE[role], "size": 9, "line": {"width": 1, "color": "white"}},
        customdata=[member.id for member in members],
        text=[
            f"<b>{member.id}</b><br>{member.verdict}, falls with probability {member.falls:.2f}<br>"
            f"mean <b>{one.mean:.4f}</b>, {one.low:.4f} to {one.high:.4f}, {one.n} seeds"
            for member, one in zip(members, found, strict=True)
        ],
        hovertemplate="%{text}<extra></extra>",
    )


def verified_page(front: Front, verification: Verification, *, run: str) -> str:
    """Returns a page that shows a verification; everything it needs is inside.

    Args:
        front: as the search found it.
        verification: of it.
        run: the run's name.
    """
    vertical, costs = panels(front)
    drawn = vertical.metric in verification.metrics
    figures = {f"verified-{cost.metric}": verified_figure(front, verification, cost) for cost in costs if drawn}
    facts = {
        "Points": f"{len(verification.members)} of {verification.front_size}",
        "Survive": str(verification.count("survives")),
        "Fall": str(verification.count("falls")),
        "Cannot be told apart": str(verification.count("open")),
    }
    if tau := verification.tau.get(vertical.metric):
        facts["Kendall's tau, search and means"] = f"{tau:.2f}"
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())
    parts = [
        f"<header><h1>Verified front of {escape(run)}</h1>",
        "<p>Its models trained again with several seeds.</p></header>",
        f'<dl class="facts">{items}</dl>',
        f"<h2>{escape(label(vertical.metric))} and what it costs</h2>",
        f'<div class="panels">{"".join(slot(name) for name in figures)}</div>',
        '<p class="hint">A point falls if another one dominates it or a limit is broken, by the means; the probability '
        "says how sure that is. It survives below 5 %, falls above 95 %, and is open in between.</p>",
        _table(front, verification, vertical.metric),
        "<footer>Made by cosearch. This page works offline and loads nothing.</footer>",
    ]
    data = "".join(
        f'<script type="application/json" id="{escape(name)}">{figure.to_json(engine="json")}</script>'
        for name, figure in figures.items()
    )
    return document(f"{run}: verified front", "\n".join(parts), data)


def _table(front: Front, verification: Verification, metric: str) -> str:
    known = {member.candidate.id: member for member in front.members}
    models = {model.model_id: model for model in verification.models}
    name = label(metric)
    heads = [head_cell("Pair"), head_cell("Verdict"), head_cell("Falls with probability", "number")]
    heads += [head_cell(text, "number") for text in (f"{name} in search", "Mean", "95 % interval", "Test mean")]
    heads += [head_cell(text) for text in ("Dominated by", "Model", "Accelerator")]
    rows = "".join(_row(one, known[one.id], models[one.model_id], metric) for one in verification.members)
    return f'<div class="scroll"><table><thead><tr>{"".join(heads)}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(verdict: MemberVerdict, member: Member, model: ModelFigures, metric: str) -> str:
    own, test, candidate = model.estimates.get(metric), model.test.get(metric), member.candidate
    searched = member.metrics[metric]
    rivals = ", ".join(f"{rival.id[:8]} ({rival.probability:.2f})" for rival in verdict.rivals[:3])
    cells = [
        f'<td data-value="{verdict.id}"><code title="{verdict.id}">{verdict.id[:8]}</code></td>',
        f'<td data-value="{verdict.verdict}">{verdict.verdict}</td>',
        _number(verdict.falls, f"{verdict.falls:.2f}"),
        _number(searched, quantity(searched, unit_of(metric))),
        _number(own.mean if own else None, f"{own.mean:.4f}" if own else ""),
        _number(own.high - own.low if own else None, f"{own.low:.4f} - {own.high:.4f}" if own else ""),
        _number(test.mean if test else None, f"{test.mean:.4f}" if test else ""),
        f'<td data-value="{rivals}">{rivals}</td>',
        _text(unbroken(describe_model(candidate.model))),
        _text(unbroken(describe_accelerator(candidate.accelerator))),
    ]
    return f'<tr data-id="{verdict.id}">{"".join(cells)}</tr>'


def _text(text: str) -> str:
    return f'<td class="words" data-value="{escape(text)}">{escape(text)}</td>'


def _number(value: float | None, text: str) -> str:
    return f'<td class="number" data-value="{"" if value is None else value}">{escape(text)}</td>'
