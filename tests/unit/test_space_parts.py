"""Domains, expressions, reading, counting and reduction: the parts that spaces are made of."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from cosearch.errors import FileError, SpecError, UserError
from cosearch.space import Choice, Float, Integer, kept, reduction_blocks
from cosearch.space.counting import Factor, total
from cosearch.space.expression import UncomputableError, parse
from cosearch.space.reduction import schedules
from cosearch.yamlfile import read_yaml

KNOWN = {"model": {"dim", "heads", "bits", "method"}, "accelerator": {"rows", "cols"}}
SCOPE = {
    "model": {"dim": 48, "heads": 4, "bits": (2, 4, 8), "method": "prune"},
    "accelerator": {"rows": 16, "cols": 32},
}


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        (Choice(("ws", "os")), ["ws", "os"]),
        (Integer(2, 9, 3), [2, 5, 8]),
        (Integer(4, 64, 2, True), [4, 8, 16, 32, 64]),
        (Integer(3, 40, 3, True), [3, 9, 27]),
        (Float(0.4, 1.0, 0.1), [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (Float(0.1e9, 1e9, 2, True), [1e8, 2e8, 4e8, 8e8]),
        (Integer(5, 5), [5]),
    ],
)
def test_values_of_a_finite_domain(domain, values):
    rng = np.random.default_rng(0)
    assert list(domain.values()) == values
    assert domain.size() == len(values)
    assert {domain.sample(rng) for _ in range(200)} == set(values)
    for index, value in enumerate(values):
        assert domain.contains(value)
        assert domain.from_unit(domain.to_unit(value)) == value
        near = {*values[max(index - 1, 0) : index], *values[index + 1 : index + 2]}
        assert set(domain.neighbours(value)) == (near if domain.ordered else set(values) - {value})
    assert domain.from_unit(0.0) == values[0]
    assert domain.from_unit(1.0) == values[-1]
    assert not domain.contains(None)
    assert not domain.contains([4])
    assert not domain.contains(True)


def test_domains_hand_out_their_own_values():
    assert type(Integer(1, 9).normal(np.int64(4))) is int
    assert type(Integer(1, 9).normal(4.0)) is int
    assert Integer(1, 9).normal(4.5) is None
    assert Float(0.4, 1.0, 0.1).normal(0.4 + 3 * 0.1) == 0.7
    assert Float(0.4, 1.0, 0.1).normal(0.75) is None
    assert type(Choice(("ws",)).normal(np.str_("ws"))) is str
    assert Choice((1, 2)).normal(True) is None
    assert Float(1, 2).normal(np.float32(1.5)) == 1.5
    assert Float(1, 2).normal(math.nan) is None
    assert Float(1, 2).normal(2.1) is None


def test_a_continuous_domain():
    line, scale = Float(1.0, 3.0), Float(1.0, 100.0, None, True)
    assert line.size() == math.inf
    assert line.neighbours(2.0) == pytest.approx((1.8, 2.2))
    assert line.neighbours(1.0) == pytest.approx((1.2,))
    assert scale.from_unit(0.5) == pytest.approx(10)
    assert scale.to_unit(10.0) == pytest.approx(0.5)
    with pytest.raises(SpecError, match="no step"):
        line.values()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("model.dim % model.heads == 0", True),
        ("8 < accelerator.rows <= 16 < accelerator.cols", True),
        ("8 < accelerator.rows < 16", False),
        ("model.bits[0] + model.bits[-1] ** 2 // 3 - 1.5 * 2", 20),
        ("sum(model.bits) / len(model.bits)", 14 / 3),
        ("all(b >= 2 for b in model.bits) and not any([b > 8 for b in model.bits if b > 4])", True),
        ("model.method in ('prune', 'merge') or model.method not in ['none']", True),
        ("min(model.bits) if model.dim > 40 else max(3, 4)", 2),
        ("ceil(1.2) + floor(1.8) + round(2.5) + abs(-3) + log2(8) + +1", 12),
    ],
)
def test_expressions_compute_like_python(text, value):
    assert parse(text, KNOWN)(SCOPE) == value


def test_expressions_know_what_they_mention():
    assert parse("model.dim > sum(accelerator.rows for b in model.bits)", KNOWN).names == {
        "model.dim",
        "accelerator.rows",
        "model.bits",
    }


@pytest.mark.parametrize(
    ("text", "excess"),
    [
        ("model.dim <= 48", 0),
        ("model.dim <= 40", 0.2),
        ("model.dim < 48", 1e-9),
        ("model.dim >= 64", 0.25),
        ("40 >= model.dim", 8 / 48),
        ("model.dim <= 0", 48),
        ("model.dim == 47", 1),
        ("not model.dim", 1),
        ("model.dim <= 40 and accelerator.rows <= 8", 1),
        ("model.dim <= 40 or accelerator.rows <= 8", 0.2),
        ("0 < model.dim < 40", 0.2),
    ],
)
def test_excess_measures_by_how_much(text, excess):
    assert parse(text, KNOWN).excess(SCOPE) == pytest.approx(excess)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model.dim / (accelerator.rows - 16) > 1", "division by zero"),
        ("model.bits[7] > 1", "index out of range"),
        ("model.bits + 1 > 1", r"\+ needs numbers, not one value per block or stage"),
        ("model.method * 9 > 1", r"\* needs numbers, not a text"),
        ("model.dim ** 1000 > 1", "too large to compute"),
        ("(9 ** 60) ** 60 > 1", "too large to compute"),
        ("(-model.dim) ** 0.5 > 1", "not a real number"),
        ("log2(model.dim - 48) > 1", "math domain error|expected a positive input"),
        ("all(b for b in model.dim)", "nothing to loop over"),
        ("model.method < 3", "< needs numbers, not a text"),
    ],
)
def test_what_cannot_be_computed_says_so(text, reason):
    with pytest.raises(UncomputableError, match=reason):
        parse(text, KNOWN)(SCOPE)


@pytest.mark.parametrize(
    "text",
    [
        "().__class__",
        "model.__class__",
        "open('x')",
        "model.dim.real",
        "getattr(model, 'dim')",
        "[b for b in model.bits for c in model.bits]",
        "lambda: 1",
        "{1: 2}",
        "f'{model.dim}'",
        "(x := 3)",
        "max(*model.bits)",
        "max(model.bits, key=abs)",
        "model.bits[0:1]",
        "~model.dim",
        "model.dim | 1",
        "model.dim is None",
        "None",
        "b''",
        "3j",
        "model",
        "min",
        "model.dim = 3",
        "\0",
        "(" * 300 + ")" * 300,
        "1 + " * 400 + "1",
        "await model.dim",
    ],
)
def test_other_syntax_is_refused(text):
    with pytest.raises(SpecError):
        parse(text, KNOWN)


def test_yaml_reads_the_scalars_people_mean(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "a: 1e9\nb: no\nc: 1:30\nd: 010\ne: 1_000\nf: true\ng: ~\nh: none\ni: .5\nj: -2.5e-3\nk: 2026-01-01\n"
    )
    read = read_yaml(path, "space file")
    assert read == {
        "a": 1e9, "b": "no", "c": "1:30", "d": 10.0, "e": 1000, "f": True, "g": None, "h": "none", "i": 0.5,
        "j": -0.0025, "k": "2026-01-01",
    }  # fmt: skip


def test_yaml_refuses_duplicate_keys_at_any_depth(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text("a:\n  - {b: 1,\n     b: 2}\n")
    with pytest.raises(FileError, match="line 3 gives the key 'b' again, after line 2; remove or rename it"):
        read_yaml(path, "space file")


def test_counting_agrees_with_listing():
    variables = {"a": range(3), "b": range(4), "c": range(2)}
    factors = [
        Factor(("a", "b"), lambda env: env["a"] + 2 * env["b"]),
        Factor(("b", "c"), lambda env: 1 + env["b"] * env["c"]),
        Factor(("a",), lambda env: 5 - env["a"]),
        Factor((), lambda env: 7),
    ]
    assignments = (dict(zip("abc", values, strict=True)) for values in itertools.product(*variables.values()))
    assert total(variables, factors) == sum(math.prod(f.weight(env) for f in factors) for env in assignments)


def test_counting_gives_up_before_it_takes_forever():
    variables = {name: range(3000) for name in "ab"}
    with pytest.raises(UserError, match="tie a, b together"):
        total(variables, [Factor(("a", "b"), lambda env: 1)])


def test_stages_end_where_the_text_says():
    assert reduction_blocks(12, 4) == (2, 5, 8)
    assert reduction_blocks(5, 3) == (0, 2)
    assert reduction_blocks(2, 3) == (0,)
    assert reduction_blocks(1, 3) == reduction_blocks(4, 1) == ()
    for depth, stages in itertools.product(range(1, 20), range(1, 8)):
        blocks = reduction_blocks(depth, stages)
        assert len(set(blocks)) == len(blocks) == min(stages, depth) - 1
        assert not blocks or max(blocks) < depth - 1


def test_ratios_leave_the_tokens_that_people_expect():
    assert kept("prune", 0.55, 100) == 55  # 0.55 * 100 is more than 55 in floating point
    assert kept("prune", 0.7, 196) == 138
    assert kept("prune", 0.01, 196) == 2
    assert kept("merge", 0.01, 9) == 5
    assert kept("prune", 0.5, 1) == 1
    assert kept("none", 0.5, 9) == 9


@pytest.mark.parametrize("method", ["prune", "merge"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_ratios_of_a_continuous_domain_stand_for_every_schedule(method, length):
    for tokens in (1, 2, 3, 7, 16):
        fine = schedules(Float(0.27, 0.97, 1e-4), method, tokens, length)
        line = schedules(Float(0.27, 0.97), method, tokens, length)
        assert line.keys() == fine.keys()
        for counts, ratio in line.items():
            assert schedules(Choice((ratio,)), method, tokens, length).keys() == {counts}
