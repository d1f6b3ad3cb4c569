"""Figures and the page of a front, as data; tests/browser looks at them in a browser."""

import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.front import Front, Member, Objective, pick
from cosearch.plots import front_figure, front_page, hypervolume_figure, panels
from cosearch.plots.figures import PALETTE
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape

ACCURACY = Objective("accuracy", "max")
LATENCY = Objective("latency_s", "min", "s")
ENERGY = Objective("energy_j", "min", "J")
MEMORY = Objective("peak_bytes", "min", "B")
OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


def member(dim: int, **metrics: float) -> Member:
    blocks = (
        BlockSpec(heads=2, mlp_hidden=96, keep_tokens=10, weight_bits=8, activation_bits=8),
        BlockSpec(heads=2, mlp_hidden=96, keep_tokens=6, weight_bits=4, activation_bits=8),
    )
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    model = ModelSpec(task=task, patch=4, dim=dim, blocks=blocks, token_method="prune", edge_bits=8)
    parameters = {"rows": 16, "cols": 32, "dataflow": "ws", "ifmap_kib": 8, "filter_kib": 8, "ofmap_kib": 4}
    return Member(Candidate(model=model, accelerator=AcceleratorSpec.of("systolic", parameters)), metrics)


MEMBERS = (
    member(16, accuracy=0.80, latency_s=1e-4, energy_j=9e-6, peak_bytes=4096, utilisation=0.5),
    member(32, accuracy=0.90, latency_s=2e-4, energy_j=2e-6, peak_bytes=8192, utilisation=0.4),
    member(48, accuracy=0.95, latency_s=9e-4, energy_j=8e-6, peak_bytes=16384, utilisation=0.3),
)
FRONT = Front.of((ACCURACY, LATENCY, ENERGY), MEMBERS)
BASELINE = Front.of((ACCURACY, LATENCY, ENERGY), [member(64, accuracy=0.7, latency_s=3e-4, energy_j=7e-6)])


def traces(figure, role, part=None):
    return [t for t in figure.data if t.meta["role"] == role and (part is None or t.meta.get("part") == part)]


def points(figure, role, axis="x"):
    return sorted(
        (ident, x, y)
        for trace in traces(figure, role, "members")
        if trace.xaxis in (axis, None)
        for ident, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    )


# --- the front --------------------------------------------------------------------------------------------------------


def test_there_is_a_panel_for_each_cost_against_accuracy():
    assert panels(FRONT) == (ACCURACY, (LATENCY, ENERGY))
    figure = front_figure(FRONT)
    for axis, cost in (("x", "latency_s"), ("x2", "energy_j")):
        assert points(figure, "front", axis) == sorted(
            (m.candidate.id, m.metrics[cost], m.metrics["accuracy"]) for m in FRONT.members
        )
    assert "Latency" in figure.layout.xaxis.title.text
    assert "Energy" in figure.layout.xaxis2.title.text
    assert "Accuracy" in figure.layout.yaxis.title.text


def test_costs_are_on_logarithmic_axes_with_ticks_in_words():
    figure = front_figure(Front.of((ACCURACY, LATENCY, MEMORY), MEMBERS))
    assert figure.layout.xaxis.type == figure.layout.xaxis2.type == "log"
    assert figure.layout.yaxis.type is None
    ticks = dict(zip(figure.layout.xaxis.ticktext, figure.layout.xaxis.tickvals, strict=True))
    assert ticks["100 us"] == 1e-4
    assert ticks["1 ms"] == 1e-3
    memory = dict(zip(figure.layout.xaxis2.ticktext, figure.layout.xaxis2.tickvals, strict=True))
    assert memory["8 KiB"] == 8192


@settings(deadline=None, max_examples=50)
@given(
    st.floats(min_value=1e-12, max_value=1e12),
    st.floats(min_value=1.0, max_value=1e6),
    st.sampled_from([LATENCY, MEMORY, Objective("area_mm2", "min", "mm2")]),
)
def test_any_span_of_costs_gets_a_handful_of_distinct_ticks(low, ratio, cost):
    front = Front(
        (ACCURACY, cost),
        (member(16, accuracy=0.5, **{cost.metric: low}), member(32, accuracy=0.6, **{cost.metric: low * ratio})),
    )
    axis = front_figure(front).layout.xaxis
    assert len(set(axis.tickvals)) == len(axis.tickvals)
    assert min(axis.tickvals) <= low
    assert max(axis.tickvals) >= low * ratio
    inside = [value for value in axis.tickvals if low / 1.1 <= value <= low * ratio * 1.1]
    assert len(inside) <= 12
    assert inside or ratio < 1.6
    assert all(text and "e" not in text.split()[0] for text in axis.ticktext if cost is LATENCY)


def test_a_point_says_all_that_is_known_of_its_member():
    figure = front_figure(FRONT)
    texts = {
        i: t for trace in traces(figure, "front", "members") for i, t in zip(trace.customdata, trace.text, strict=True)
    }
    text = texts[MEMBERS[1].candidate.id].replace("<br>", " ")
    for part in (
        MEMBERS[1].candidate.id,
        "Latency: <b>200 us</b>",
        "Energy: <b>2.00 uJ</b>",
        "Accuracy: <b>0.900</b>",
        "Peak memory: 8 KiB",
        "Utilisation: 0.400",
        "dim 32, 2 blocks, 2 heads, MLP 96, patch 4, prune 16&gt;10&gt;6, W 8/4 A 8 edges 8",
        "16x32 ws, 8/8/4 KiB",
    ):
        assert part in text


def test_what_another_cost_put_on_the_front_is_pale():
    figure = front_figure(FRONT, only=ENERGY)
    pale, full = traces(figure, "front", "members")
    assert list(pale.customdata) == [MEMBERS[0].candidate.id]  # 9 uJ for 0.80, where 2 uJ give 0.90
    assert pale.opacity < 1
    assert list(full.customdata) == [MEMBERS[1].candidate.id, MEMBERS[2].candidate.id]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_the_step_line_is_the_best_that_a_budget_buys(values):
    found = Front(
        (ACCURACY, LATENCY),
        tuple(member(2 * i + 2, accuracy=a / 10, latency_s=t / 1e4) for i, (a, t) in enumerate(values)),
    )
    (line,) = traces(front_figure(found), "front", "line")
    for accuracy, time in values:
        affordable = [y for x, y in zip(line.x, line.y, strict=True) if x <= time / 1e4]
        assert max(affordable) == max(a / 10 for a, t in values if t <= time) >= accuracy / 10
    assert list(line.x) == sorted(set(line.x))
    assert list(line.y) == sorted(set(line.y))
    assert line.line.shape == "hv"


def test_a_baseline_and_a_cloud_are_told_apart_by_shape_and_colour():
    cloud = [{"accuracy": 0.5, "latency_s": 1e-3, "energy_j": 1e-6}, {"accuracy": math.nan}, {"latency_s": 1.0}]
    figure = front_figure(FRONT, baseline=BASELINE, cloud=cloud, names=("NSGA-II", "random"))
    assert {t.name for t in figure.data if t.showlegend} == {"NSGA-II", "random", "other candidates"}
    assert list(traces(figure, "cloud")[0].x) == [1e-3]
    ours, theirs = (traces(figure, role, "members")[-1].marker for role in ("front", "baseline"))
    assert ours.symbol != theirs.symbol
    assert ours.color != theirs.color
    assert {PALETTE["front"], PALETTE["baseline"], PALETTE["ring"]} <= OKABE_ITO


def test_a_large_cloud_is_thinned():
    cloud = [{"accuracy": 0.5, "latency_s": 1e-3 + i * 1e-6} for i in range(9999)]
    figure = front_figure(Front.of((ACCURACY, LATENCY), MEMBERS), cloud=cloud)
    assert 1000 < len(traces(figure, "cloud")[0].x) <= 2000


def test_without_anything_to_maximise_the_first_objective_stands_upright():
    front = Front.of((ENERGY, LATENCY), MEMBERS)
    assert panels(front) == (ENERGY, (LATENCY,))
    assert front_figure(front).layout.yaxis.type == "log"


def test_a_single_objective_is_drawn_against_what_else_was_measured():
    front = Front.of((ACCURACY,), MEMBERS)
    assert panels(front)[1] == (Objective("energy_j", "min", "J"),)
    assert len(points(front_figure(front), "front")) == 1
    alone = Front.of((ACCURACY,), [member(16, accuracy=0.5)])
    assert panels(alone) == (ACCURACY, (ACCURACY,))
    assert len(points(front_figure(alone), "front")) == 1


def test_an_empty_front_says_so():
    empty = Front((ACCURACY, LATENCY), ())
    assert "no candidate" in front_figure(empty).layout.annotations[0].text
    assert "no candidate kept all limits" in front_page(empty, run="none")


def test_the_hypervolume_rises_in_steps():
    figure = hypervolume_figure([(1, 0.1), (4, 0.3)], baseline=[(1, 0.05)], names=("NSGA-II", "random"))
    ours = traces(figure, "front")[0]
    assert (list(ours.x), list(ours.y), ours.line.shape) == ([1, 4], [0.1, 0.3], "hv")
    assert [t.name for t in figure.data] == ["random", "NSGA-II"]
    assert len(hypervolume_figure([(1, 0.1)]).data) == 1


# --- the page ---------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Collects addresses, table cells, commands and the JSON of figures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses, self.commands, self.rows, self.json, self.titles = [], [], [], {}, []
        self._inside: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[name] for name in ("src", "href", "action", "data") if given.get(name)]
        if "data-copy" in given:
            self.commands.append(given["data-copy"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "link", "input"):
            self._inside.append((tag, given))

    def handle_endtag(self, tag):
        assert self._inside.pop()[0] == tag, "tags are not nested"

    def handle_data(self, data):
        tags = [tag for tag, _ in self._inside]
        if tags[-1:] == ["script"] and "id" in self._inside[-1][1]:
            name = self._inside[-1][1]["id"]
            self.json[name] = self.json.get(name, "") + data
        elif {"td", "th"} & set(tags):
            self.rows[-1][-1] += data
        elif tags[-1:] in (["title"], ["h1"]):
            self.titles.append(data)


@pytest.fixture(scope="module")
def page():
    return front_page(
        FRONT,
        run="quickstart",
        seed=7,
        facts={"Models trained": 48, "Pairs costed": 12345, "Hypervolume": 0.70123, "Sampler": "NSGA-II"},
        baseline=BASELINE,
        history=[(1, 0.1), (2, 0.2)],
        baseline_history=[(1, 0.05)],
    )


def test_the_page_says_what_was_searched(page):
    for text in ("Pareto front of quickstart", "high accuracy, low latency, low energy", "3 pairs", "12,345", "0.7012"):
        assert text in page
    assert re.search(r"<dt>Seed</dt><dd>7</dd>", page)
    assert re.search(r"<dt>Best latency</dt><dd>100 us</dd>", page)
    assert re.search(r"<dt>Best accuracy</dt><dd>0.950</dd>", page)


def test_the_table_has_a_row_and_an_export_command_for_each_member(page):
    reader = Reader(page)
    assert len(reader.rows) == 1 + len(FRONT)
    first = [cell.replace("\u00a0", " ") for cell in reader.rows[1]]
    best = FRONT.members[0].candidate.id[:8]
    assert first[0].startswith(best)
    assert first[1:4] == ["0.950", "900 us", "8.00 uJ"]
    assert "dim 48, 2 blocks, 2 heads, MLP 96, patch 4, prune 16>10>6, W 8/4 A 8 edges 8" in first
    assert reader.commands[0] == f"cosearch export quickstart --pick {best} --out quickstart-{best}"
    assert page.count('class="badge knee"') == 1
    knee = pick(FRONT, "knee").candidate.id[:8]
    assert next(row for row in reader.rows[1:] if "knee" in row[0])[0].startswith(knee)


def test_the_page_loads_nothing(page):
    assert Reader(page).addresses == ["data:,"]
    own = page[: page.index("plotly.js v")] + page[page.rindex("<script>") :]
    assert not re.search(r"https?:|//cdn|@import|url\(", own)


def test_figures_travel_as_json_that_cannot_end_its_element(page):
    reader = Reader(page)
    assert set(reader.json) == {"front-latency_s", "front-energy_j", "hypervolume"}
    for text in reader.json.values():
        assert "<" not in text
        assert json.loads(text)["data"]
    assert set(re.findall(r'data-figure="([^"]+)"', page)) == set(reader.json)


def test_names_are_data_not_markup():
    run = "</title><script>alert(1)</script>"
    page = front_page(FRONT, run=run, facts={"<b>x": "<i>y"}, runs="my runs")
    reader = Reader(page)
    assert "<script>alert" not in page
    assert "<b>x" not in page
    assert "<i>y" not in page
    assert reader.titles == [f"{run}: Pareto front", f"Pareto front of {run}"]
    ident = FRONT.members[0].candidate.id[:8]
    assert reader.commands[0] == (f"cosearch export '{run}' --pick {ident} --out '{run}-{ident}' --runs 'my runs'")
