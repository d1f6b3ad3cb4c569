"""Fits surrogates and judges them on candidates that they have not seen.

Intervals are cross-conformal (Vovk 2015): as wide as the residuals that regressions have on folds left out of their
fit. They hold for candidates drawn like the learnt ones, on average over them, not for each one (Lei et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import NotFoundError, UserError, did_you_mean
from cosearch.surrogate.features import Encoding, features
from cosearch.surrogate.learnt import COVERAGE, Kind, MetricReport, Report, Surrogate, Target
from cosearch.surrogate.pairs import Pairs, read_pairs
from cosearch.surrogate.regress import best_shape, fit_kernel, fit_trees, nearest

__all__ = ["LEAST_PAIRS", "fit_surrogate"]

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

LEAST_PAIRS = 20
"""Pairs below which nothing is learnt."""

_FOLDS = 5
_HELD_OUT = 5
"""One in so many is held out."""
_LEAST_MODELS = 10
"""Distinct models from which on whole models are held out."""


def fit_surrogate(
    source: Path | Pairs,
    *,
    evaluator: str = "",
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    most: int = 1000,
) -> Surrogate:
    """Returns a surrogate of an evaluator.

    One pair in five is held out, by whole models where there are ten or more; a surrogate of the others is judged on
    them, for the report. The one that is returned learns from all. For each metric trees, a kernel method, or the mean
    of both is taken, whichever has the least mean absolute error over five folds (of the logarithm, where all values
    are above 0).

    Args:
        source: a run's folder, or candidates with their metrics.
        evaluator: where ``source`` is a folder, the evaluator to learn; left out: the only costly one.
        metrics: those to learn; all, where left out.
        seed: of what is held out, of the folds, and of the trees.
        most: pairs to learn from at most; of more, a sample is taken.

    Raises:
        NotFoundError: a metric is not there.
        UserError: there are fewer than `LEAST_PAIRS` different pairs.
    """
    pairs = _distinct(read_pairs(source, evaluator) if isinstance(source, Path) else source)
    wanted = list(metrics) if metrics is not None else list(pairs.metrics)
    for name in wanted:
        if name not in pairs.metrics:
            raise NotFoundError(f"no pair has {name!r}; {did_you_mean(name, pairs.metrics)}")
    if len(pairs.candidates) < LEAST_PAIRS:
        raise UserError(
            f"there are {len(pairs.candidates)} pairs to learn from, fewer than {LEAST_PAIRS}; evaluate more first"
        )
    values = {name: np.array(pairs.metrics[name], dtype=np.float64) for name in wanted}
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pairs.candidates))[:most]
    models = np.array([pairs.candidates[int(i)].model.id for i in order])
    fold = _folds(models, _HELD_OUT, rng)
    learnt, held = order[fold != 0], order[fold == 0]
    judged = _fit(pairs, values, learnt, seed)
    report = _judge(judged, pairs, values, held, len(order))
    whole = _fit(pairs, values, order, seed)
    return replace(whole, report=report)


def _distinct(pairs: Pairs) -> Pairs:
    """Returns ``pairs`` with each candidate once, or each model where nothing else is looked at: the first of them."""
    first: dict[str, int] = {}
    for position, candidate in enumerate(pairs.candidates):
        first.setdefault(candidate.id if pairs.pair else candidate.model.id, position)
    if len(first) == len(pairs.candidates):
        return pairs
    return replace(
        pairs,
        candidates=[pairs.candidates[i] for i in first.values()],
        metrics={name: [values[i] for i in first.values()] for name, values in pairs.metrics.items()},
    )


def _folds(models: NDArray[np.str_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns a fold for each row; rows of a model share one, where there are enough models."""
    distinct, member = np.unique(models, return_inverse=True)
    if len(distinct) < _LEAST_MODELS:
        return np.asarray(rng.permutation(len(models)) % count)
    return np.asarray((rng.permutation(len(distinct)) % count)[member])


def _fit(pairs: Pairs, values: Mapping[str, Floats], rows: Rows, seed: int) -> Surrogate:
    """Returns a surrogate of some of the pairs, without a report."""
    seen = [features(pairs.candidates[int(i)], pair=pairs.pair) for i in rows]
    encoding = Encoding.of(seen)
    x = encoding.encode(seen)
    models = np.array([pairs.candidates[int(i)].model.id for i in rows])
    fold = _folds(models, _FOLDS, np.random.default_rng(seed))
    return Surrogate(
        pair=pairs.pair,
        encoding=encoding,
        rows=x,
        reach=float(nearest(x, x, without_self=True).max()),
        targets={name: _target(x, column[rows], fold, seed) for name, column in values.items()},
        report=Report(learnt=len(rows), held_out=0, inside=1.0, metrics={}),
    )


def _target(x: Floats, raw: Floats, fold: NDArray[np.int64], seed: int) -> Target:
    """Returns what predicts one metric."""
    log = bool(np.all(raw > 0))
    y = np.log(raw) if log else raw
    centre, spread = float(y.mean()), float(y.std())
    spread = spread if spread > 1e-12 * max(abs(centre), 1e-300) else 1.0
    y = (y - centre) / spread
    trees = fit_trees(x, y, seed)
    shape = best_shape(x, y, trees.relevance)
    left_out: dict[Kind, Floats] = {kind: np.empty(len(y)) for kind in get_args(Kind)}
    for number in range(_FOLDS):
        out, rest = fold == number, fold != number
        grown = fit_trees(x[rest], y[rest], seed)
        middle = float(y[rest].mean())
        left_out["trees"][out] = grown.predict(x[out])
        kernel = fit_kernel(x[rest], y[rest] - middle, grown.relevance, shape)
        left_out["kernel"][out] = middle + kernel.predict(x[out])
    left_out["blend"] = 0.5 * (left_out["trees"] + left_out["kernel"])
    residuals = {kind: np.abs(predicted - y) for kind, predicted in left_out.items()}
    kind = min(residuals, key=lambda k: float(residuals[k].mean()))
    return Target(
        kind=kind,
        log=log,
        centre=centre,
        spread=spread,
        width=_conformal(residuals[kind]),
        trees=None if kind == "kernel" else trees,
        kernel=None if kind == "trees" else fit_kernel(x, y, trees.relevance, shape),
    )


def _conformal(residuals: Floats) -> float:
    """Returns the residual that a share of `COVERAGE` stays below, as a sample of this size can promise it."""
    rank = min(len(residuals), math.ceil(COVERAGE * (len(residuals) + 1)))
    return float(np.sort(residuals)[rank - 1])


def _judge(surrogate: Surrogate, pairs: Pairs, values: Mapping[str, Floats], held: Rows, learnt: int) -> Report:
    said = surrogate.predict([pairs.candidates[int(i)] for i in held])
    inside = held[said.inside]
    metrics = {}
    for name, column in values.items():
        truth, target = column[inside], surrogate.targets[name]
        guess, low, high = (part[name][said.inside] for part in (said.values, said.low, said.high))
        error = np.abs(guess - truth) / (np.abs(truth) if target.log else 1.0)
        if len(error) == 0:
            error, covered = np.array([np.nan]), math.nan
        else:
            covered = float(np.mean((low <= truth) & (truth <= high)))
        q50, q90, q95, worst = (float(q) for q in np.quantile(error, (0.5, 0.9, 0.95, 1.0)))
        metrics[name] = MetricReport(
            kind=target.kind,
            relative=target.log,
            median=q50,
            q90=q90,
            q95=q95,
            worst=worst,
            coverage=covered,
            rho=_spearman(guess, truth),
        )
    return Report(learnt=learnt, held_out=len(held), inside=float(np.mean(said.inside)), metrics=metrics)


def _spearman(a: Floats, b: Floats) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
