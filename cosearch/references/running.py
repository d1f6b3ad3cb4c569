"""Runs a tool on matrix products: in its own process, in a folder that is gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosearch.errors import EvaluationError, SpecError
from cosearch.hardware import SystolicArray, Technology, technology
from cosearch.references.catalogue import Reference, reference
from cosearch.references.inputs import payload
from cosearch.references.interpreters import interpreter
from cosearch.workload import Operator, OperatorKind, Workload

__all__ = ["matrix_products", "run"]

LIMIT_S = 600.0
_SHOWN_LINES = 12


def matrix_products(load: Workload) -> tuple[Operator, ...]:
    """Returns the operators of ``load`` that the tools know."""
    return tuple(operator for operator in load.operators if operator.kind is OperatorKind.MATMUL)


def run(
    name: str,
    products: Sequence[Operator],
    array: SystolicArray,
    prices: Technology | None = None,
    *,
    limit_s: float = LIMIT_S,
) -> list[dict[str, float]]:
    """Returns what the tool says of each product, by the names in its `Reference`; for all of a product's repetitions.

    Products of the same shape and widths are given to the tool once.

    Args:
        name: one of `REFERENCES`.
        products: matrix products.
        array: the accelerator.
        prices: what memories and arithmetic cost; by default ``horowitz_45nm``.
        limit_s: seconds that the tool may take, altogether.

    Raises:
        NotFoundError: no tool has this name.
        SpecError: an operator is no matrix product.
        EnvironmentProblem: the tool is not there; says what is missing and the command that mends it.
        EvaluationError: the tool failed, or took too long.
    """
    tool = reference(name)
    for position, product in enumerate(products):
        if product.kind is not OperatorKind.MATMUL:
            raise SpecError(
                f"products[{position}]",
                f"is {product.name}, a {product.kind}",
                "give matrix products (matrix_products)",
            )
    alone = [replace(product, name="", count=1, inputs=(), output="", weights=False) for product in products]
    distinct = list(dict.fromkeys(alone))
    if not distinct:
        return []
    given = payload(name, distinct, array, prices or technology("horowitz_45nm"))
    results = _drive(tool, interpreter(name), given, limit_s)
    names = [quantity.name for quantity in tool.quantities]
    if len(results) != len(distinct) or any(set(result) != set(names) for result in results):
        raise EvaluationError(f"{name} {tool.version} gave other figures than it should: {results!r:.200}")
    of = dict(zip(distinct, results, strict=True))
    return [
        {key: float(of[one][key]) * product.count for key in names}
        for one, product in zip(alone, products, strict=True)
    ]


def _drive(tool: Reference, python: Path, given: dict[str, Any], limit_s: float) -> list[dict[str, float]]:
    """Returns what the tool's driver answers to ``given``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory(prefix=f"cosearch-{tool.name}-") as work:
        process = subprocess.Popen(
            [str(python), "-I", str(tool.driver)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=work,
            env=environment,
            start_new_session=True,  # so that what the tool starts ends with it
        )
        try:
            answer, noise = process.communicate(json.dumps(given), timeout=limit_s)
        except BaseException as error:
            _end(process)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise EvaluationError(
                f"{tool.name} took longer than {limit_s:g} s; give it fewer or smaller products, or more time"
            ) from None
    if process.returncode != 0:
        raise EvaluationError(
            f"{tool.name} {tool.version} failed:\n{_last(noise) or f'exit code {process.returncode}'}"
        )
    try:
        results: list[dict[str, float]] = json.loads(answer)
    except json.JSONDecodeError:
        raise EvaluationError(f"{tool.name} {tool.version} did not answer:\n{_last(answer) or _last(noise)}") from None
    return results


def _end(process: subprocess.Popen[str]) -> None:
    """Ends ``process`` and whatever it started that still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _last(text: str) -> str:
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(lines[-_SHOWN_LINES:])
