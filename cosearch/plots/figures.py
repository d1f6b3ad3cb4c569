"""Figures of fronts and of how a search went.

Colours are those of Okabe & Ito 2008 ("Color Universal Design"), which people with any kind of colour vision tell
apart; shapes (dots, squares, dashes) say the same once more.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cosearch.front import Front, Member, Objective
from cosearch.words import describe_accelerator, describe_model, label, quantity, unit_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["PALETTE", "axis", "front_figure", "hypervolume_figure", "layout", "panels", "ring"]

PALETTE = {"front": "#0072B2", "baseline": "#D55E00", "cloud": "#8A8F98", "ring": "#CC79A7"}
"""Colour by role (Okabe & Ito 2008: blue, vermillion, reddish purple); the page swaps them by role in the dark."""

INK, GRID = "#3A3F47", "#E3E6EA"
CLOUD = 2000
"""Background points drawn at most; more only slow the browser down."""


def panels(front: Front) -> tuple[Objective, tuple[Objective, ...]]:
    """Returns the objective on the vertical axis, and those on the horizontal axis, one a panel.

    Vertical is the first objective to be maximised (accuracy, as a rule), else the first. A single objective is drawn
    against the metrics that were measured beside it, or against itself.
    """
    vertical = next((o for o in front.objectives if o.direction == "max"), front.objectives[0])
    others = tuple(o for o in front.objectives if o is not vertical)
    if not others:
        names = sorted({name for member in front.members for name in member.metrics} - {vertical.metric})
        others = tuple(Objective(name, "min", unit_of(name)) for name in names[:1])
    return vertical, others or (vertical,)


def front_figure(
    front: Front,
    *,
    baseline: Front | None = None,
    cloud: Sequence[Mapping[str, float]] = (),
    names: tuple[str, str] = ("search", "baseline"),
    only: Objective | None = None,
) -> go.Figure:
    """Returns the front as an interactive figure: one panel for each cost, accuracy upwards.

    A filled dot is best in its panel for what it costs there; a pale dot owes its place on the front to another
    objective. The step line is the best that this panel's budget buys.

    Args:
        front: what was found.
        baseline: the front of another search to compare with.
        cloud: metrics of other candidates that were scored, for the background.
        names: what to call the two searches.
        only: draw this objective's panel alone (one of `panels`).
    """
    from plotly.subplots import make_subplots

    vertical, costs = panels(front)
    costs = costs if only is None else (only,)
    figure = make_subplots(rows=1, cols=len(costs), shared_yaxes=True, horizontal_spacing=0.03)
    for column, cost in enumerate(costs, start=1):
        traces = [_cloud(cloud, cost, vertical)]
        if baseline is not None:
            traces += _front_traces(baseline, cost, vertical, names[1], "baseline")
        traces += [*_front_traces(front, cost, vertical, names[0], "front"), ring()]
        for trace in traces:
            trace.showlegend = bool(trace.showlegend) and column == 1
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(**axis(cost, _values((front, baseline), cost)), row=1, col=column)
    figure.update_yaxes(**axis(vertical, _values((front, baseline), vertical)), row=1, col=1)
    figure.update_layout(**layout(height=440))
    if len(costs) > 1:
        figure.update_yaxes(title_text="", col=2)
    if not front.members:
        figure.add_annotation(text="no candidate kept all limits", showarrow=False, font={"size": 16}, x=0.5, y=0.5)
    return figure


def hypervolume_figure(
    history: Sequence[tuple[float, float]],
    *,
    baseline: Sequence[tuple[float, float]] = (),
    names: tuple[str, str] = ("search", "baseline"),
) -> go.Figure:
    """Returns the hypervolume against the trainings spent.

    Args:
        history: (trainings spent, hypervolume), in order.
        baseline: the same of another search, measured in the same box.
        names: what to call the two.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for points, name, role, dash in ((baseline, names[1], "baseline", "dash"), (history, names[0], "front", "solid")):
        if not points:
            continue
        figure.add_scatter(
            x=[trained for trained, _ in points],
            y=[volume for _, volume in points],
            name=name,
            meta={"role": role},
            mode="lines",
            line={"shape": "hv", "color": PALETTE[role], "width": 2.5, "dash": dash},
            hovertemplate=f"{name}: %{{y:.4f}} after %{{x}} models<extra></extra>",
        )
    figure.update_layout(**layout(height=320))
    figure.update_xaxes(**_frame("Trainings spent"), rangemode="tozero")
    figure.update_yaxes(**_frame("Hypervolume"))
    return figure


def _front_traces(front: Front, cost: Objective, vertical: Objective, name: str, role: str) -> list[Any]:
    """Returns the step line and the dots of one front in one panel."""
    import plotly.graph_objects as go

    best = _best(front.members, cost, vertical)
    inside = {id(member) for member in best}
    elsewhere = [member for member in front.members if id(member) not in inside]
    line = go.Scatter(
        x=[member.metrics[cost.metric] for member in best],
        y=[member.metrics[vertical.metric] for member in best],
        mode="lines",
        line={
            "shape": "vh" if cost.direction == "max" else "hv",
            "color": PALETTE[role],
            "width": 1.6,
            "dash": "solid" if role == "front" else "dash",
        },
        meta={"role": role, "part": "line"},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=role,
    )
    pale = _dots(front, elsewhere, cost, vertical, name, role)
    pale.update(opacity=0.4, showlegend=False)
    return [pale, line, _dots(front, best, cost, vertical, name, role)]


def _dots(front: Front, members: Sequence[Member], cost: Objective, vertical: Objective, name: str, role: str) -> Any:
    """Returns members as dots that name themselves under the pointer."""
    import plotly.graph_objects as go

    shown = [member for member in members if {cost.metric, vertical.metric} <= member.metrics.keys()]
    colour = PALETTE[role]
    marker: dict[str, Any] = {"symbol": "circle", "color": colour, "size": 10, "line": {"width": 1, "color": "white"}}
    if role == "baseline":
        marker = {"symbol": "square-open", "color": colour, "size": 8, "line": {"width": 1.6, "color": colour}}
    return go.Scatter(
        x=[member.metrics[cost.metric] for member in shown],
        y=[member.metrics[vertical.metric] for member in shown],
        mode="markers",
        name=name,
        meta={"role": role, "part": "members"},
        customdata=[member.candidate.id for member in shown],
        text=[_hover(member, front.objectives) for member in shown],
        hovertemplate="%{text}<extra></extra>",
        marker=marker,
        legendgroup=role,
        legendrank=1 if role == "front" else 2,
        showlegend=True,
    )


def _cloud(cloud: Sequence[Mapping[str, float]], cost: Objective, vertical: Objective) -> Any:
    import plotly.graph_objects as go

    scored = [m for m in cloud if math.isfinite(m.get(cost.metric, math.nan) + m.get(vertical.metric, math.nan))]
    step = -(-len(scored) // CLOUD) or 1
    drawn = scored[::step]
    return go.Scatter(
        x=[metrics[cost.metric] for metrics in drawn],
        y=[metrics[vertical.metric] for metrics in drawn],
        mode="markers",
        name="other candidates",
        meta={"role": "cloud"},
        marker={"color": PALETTE["cloud"], "size": 4, "opacity": 0.35},
        hoverinfo="skip",
        legendrank=3,
        showlegend=bool(drawn),
    )


def ring() -> Any:
    """Returns an empty trace; the page puts the ring around the member under the pointer, in every panel."""
    import plotly.graph_objects as go

    return go.Scatter(
        x=[],
        y=[],
        mode="markers",
        meta={"role": "ring"},
        marker={"symbol": "circle-open", "size": 20, "color": PALETTE["ring"], "line": {"width": 3}},
        hoverinfo="skip",
        showlegend=False,
    )


def _best(members: Sequence[Member], cost: Objective, vertical: Objective) -> list[Member]:
    """Returns the members that no other beats in both of a panel's objectives, cheapest first."""

    def place(member: Member) -> tuple[float, float]:
        return cost.minimised(member.metrics[cost.metric]), vertical.minimised(member.metrics[vertical.metric])

    best: list[Member] = []
    for member in sorted((m for m in members if {cost.metric, vertical.metric} <= m.metrics.keys()), key=place):
        if not best or place(member)[1] < place(best[-1])[1]:
            best.append(member)
    return best


def _hover(member: Member, objectives: Sequence[Objective]) -> str:
    units = {objective.metric: objective.unit for objective in objectives}
    order = [*units, *sorted(set(member.metrics) - set(units))]
    lines = [f"<b>{member.candidate.id}</b>"]
    for name in order:
        text = quantity(member.metrics[name], units.get(name) or unit_of(name))
        lines.append(f"{label(name)}: <b>{text}</b>" if name in units else f"{label(name)}: {text}")
    for words in (describe_model(member.candidate.model), describe_accelerator(member.candidate.accelerator)):
        lines += [_escaped(line) for line in textwrap.wrap(words, 44)]
    return "<br>".join(lines)


def _escaped(text: str) -> str:
    """Returns ``text`` for Plotly, which reads HTML: the ``>`` of ``16>10`` must not end a tag."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _values(fronts: Sequence[Front | None], objective: Objective) -> list[float]:
    return [
        member.metrics[objective.metric]
        for front in fronts
        if front is not None
        for member in front.members
        if objective.metric in member.metrics
    ]


def axis(objective: Objective, values: Sequence[float]) -> dict[str, Any]:
    """Returns an axis for an objective; costs go by their logarithm, with ticks in readable units."""
    aim = "higher is better" if objective.direction == "max" else "lower is better"
    made = _frame(f"{label(objective.metric)}  <span style='font-size:0.85em'>{aim}</span>")
    unit = objective.unit or unit_of(objective.metric)
    if objective.direction == "min" and values and min(values) > 0:
        ticks = _ticks(min(values), max(values), binary=unit == "B")
        # three digits read well in a table; on an axis, 10.0 us is 10 us
        texts = [re.sub(r"\.?0+(?= |$)", "", text) if "." in (text := quantity(t, unit)) else text for t in ticks]
        made |= {"type": "log", "tickvals": ticks, "ticktext": texts, "tickangle": 0}
    elif unit:
        made |= {"tickformat": ".3~s", "ticksuffix": unit}
    return made


def _ticks(low: float, high: float, *, binary: bool) -> list[float]:
    """Returns round values for a logarithmic axis, up to a decade beyond the data for those who zoom out."""
    span = math.log10(high / low)
    if binary:
        every = 1 if span < 2 else 2
        return [2.0**power for power in range(math.floor(math.log2(low)) - 3, math.ceil(math.log2(high)) + 4, every)]
    if 0.01 < span < 0.3:  # so narrow that the scale is as good as linear
        wish = (high - low) / 4
        size = 10.0 ** math.floor(math.log10(wish))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= wish)
        return [step * i for i in range(math.floor(low / step * 0.7), math.ceil(high / step * 1.4) + 1) if i > 0]
    digits: tuple[float, ...] = (1,)
    for reach, finer in ((3.5, (1, 3)), (1.8, (1, 2, 5)), (0.8, (1, 1.5, 2, 3, 4, 5, 7))):
        if span < reach:
            digits = finer
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    return [float(f"{digit}e{decade}") for decade in decades for digit in digits]


def _frame(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 12},
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "ticks": "outside",
        "tickcolor": GRID,
        "automargin": True,
    }


def layout(*, height: int) -> dict[str, Any]:
    """Returns what all figures look like."""
    return {
        "template": "none",
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 64, "b": 56},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"},
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": PALETTE["cloud"], "activecolor": PALETTE["front"]},
        "hoverlabel": {"align": "left", "bgcolor": "white", "bordercolor": GRID, "font": {"color": INK, "size": 12}},
    }
