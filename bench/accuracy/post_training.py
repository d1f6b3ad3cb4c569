"""Measures what fewer tokens and fewer bits cost a trained model in accuracy: without training it, and trained in.

Run ``python bench/accuracy/post_training.py`` (minutes, one thread): trains a small model in floating point with all
its tokens on digit-pairs, gives its weights to models with fewer tokens and bits as the evaluator ``post_training``
does, trains the same models from scratch beside, prints the tables and writes them to post_training.md beside this
file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cosearch.data import Task, load_task
from cosearch.imported import quantise, with_weights
from cosearch.model.formats import Calibration
from cosearch.spec import TOKEN_METHODS, BlockSpec, ModelSpec, bits_and_format
from cosearch.train import Recipe, accuracy, model_from_file, normalised, train, weights_to_bytes

HERE = Path(__file__).parent
STEPS, QUICK_STEPS = 300, 20
SEED = 0
CACHE = Path(tempfile.gettempdir()) / "cosearch-post-training"
IMAGES = 64
METHODS = tuple(name for name, method in TOKEN_METHODS.items() if method.after_training and name != "none")
KEEPS = (0.8, 0.6, 0.5)
FORMATS = (
    *(("int8", "int8"), ("int6", "int8"), ("int4", "int8"), ("int3", "int8"), ("int2", "int8"), ("int4", "int4")),
    *(("ternary", "int8"), ("fp8_e4m3", "fp8_e4m3"), ("mxfp4", "mxfp4")),
)
CALIBRATIONS: tuple[Calibration, ...] = ("minmax", "percentile", "mse")
COUNTS = (4, 16, 64, 256)


class Bench:
    """Trainings, kept in a folder, and readings of models whose weights come from one of them."""

    def __init__(self, cache: Path, steps: int) -> None:
        self.cache, self.recipe = cache, Recipe(steps=steps)
        self.task: Task = load_task({"name": "digit-pairs", "size": 16})
        self.seconds = {"training": 0.0, "nearest": 0.0, "adaround": 0.0}
        self.counts = dict.fromkeys(self.seconds, 0)
        block = BlockSpec(heads=4, mlp_hidden=128)
        self.float = ModelSpec(task=self.task.shape, patch=4, dim=64, overlap=2, stem_hidden=64, blocks=(block,) * 3)
        self.weights = self.trained(self.float).state_dict()

    def trained(self, spec: ModelSpec) -> torch.nn.Module:
        """Returns the model trained from scratch."""
        path = self.cache / f"{spec.id}-{self.recipe.steps}-{SEED}.safetensors"
        if not path.is_file():
            start = time.process_time()
            model = train(spec, self.task, self.recipe, SEED).model
            self.cache.mkdir(parents=True, exist_ok=True)
            path.write_bytes(weights_to_bytes(model))
            path.with_suffix(".json").write_text(json.dumps({"seconds": time.process_time() - start}))
        self.seconds["training"] += json.loads(path.with_suffix(".json").read_text())["seconds"]
        self.counts["training"] += 1
        return model_from_file(path)

    def read(self, model: torch.nn.Module) -> float:
        """Returns the accuracy on the test split."""
        return accuracy(model, self.task.test, self.task)

    def images(self, count: int) -> Tensor:
        """Returns training images, evenly spread."""
        places = np.linspace(0, len(self.task.train) - 1, count).round().astype(int)
        return normalised(self.task.train.images[places], self.task)

    def untrained(
        self, spec: ModelSpec, calibration: Calibration = "mse", *, learned: bool = False, images: int = IMAGES
    ) -> float:
        """Returns the accuracy of the floating-point model's weights in the model that ``spec`` describes."""
        start = time.process_time()
        model = with_weights(spec, self.float, self.weights)
        rounding = "adaround" if learned else "nearest"
        quantise(model, self.images(images), calibration=calibration, rounding=rounding)
        found = self.read(model)
        self.seconds[rounding] += time.process_time() - start
        self.counts[rounding] += 1
        return found


def with_tokens(spec: ModelSpec, method: str, keep: float) -> ModelSpec:
    """Returns the model with a share ``keep`` of its image tokens left after each block but the last."""
    tokens, blocks = spec.patches, []
    for block in spec.blocks[:-1]:
        tokens = round(tokens * keep)
        blocks.append(dataclasses.replace(block, keep_tokens=tokens))
    return dataclasses.replace(spec, blocks=(*blocks, spec.blocks[-1]), token_method=method)


def with_formats(spec: ModelSpec, weights: str, activations: str) -> ModelSpec:
    """Returns the model with its blocks in these formats, and 8-bit integers in stem and head."""
    (weight_bits, weight_format), (bits, name) = bits_and_format(weights), bits_and_format(activations)
    blocks = tuple(
        dataclasses.replace(
            block,
            weight_bits=weight_bits,
            weight_format=weight_format,
            activation_bits=bits,
            activation_format=name,
        )
        for block in spec.blocks
    )
    return dataclasses.replace(spec, blocks=blocks, edge_bits=8)


def token_rows(bench: Bench) -> Iterator[Sequence[str]]:
    """Yields the rows of the first table."""
    for method in METHODS:
        for keep in KEEPS:
            spec = with_tokens(bench.float, method, keep)
            left = " > ".join(str(after - 1) for _, after in spec.tokens)
            found, learnt = bench.untrained(spec), bench.read(bench.trained(spec))
            yield method, f"{keep:g}", left, f"{found:.3f}", f"{learnt:.3f}", f"{found - learnt:+.3f}"


def format_rows(bench: Bench) -> Iterator[Sequence[str]]:
    """Yields the rows of the second table."""
    for weights, activations in FORMATS:
        spec = with_formats(bench.float, weights, activations)
        nearest = [bench.untrained(spec, calibration) for calibration in CALIBRATIONS]
        rounds = bits_and_format(weights)[1] in ("", "ternary")
        learned = bench.untrained(spec, learned=True) if rounds else None
        learnt = bench.read(bench.trained(spec))
        best = max(value for value in (*nearest, learned) if value is not None)
        yield (
            f"{weights} / {activations}",
            *(f"{value:.3f}" for value in nearest),
            "" if learned is None else f"{learned:.3f}",
            f"{learnt:.3f}",
            f"{best - learnt:+.3f}",
        )


def count_rows(bench: Bench) -> Iterator[Sequence[str]]:
    """Yields the rows of the third table."""
    for weights, activations in (("int3", "int8"), ("int4", "int4")):
        spec = with_formats(bench.float, weights, activations)
        for learned in (False, True):
            found = [bench.untrained(spec, learned=learned, images=count) for count in COUNTS]
            yield f"{weights} / {activations}", "AdaRound" if learned else "nearest", *(f"{v:.3f}" for v in found)


def both_rows(bench: Bench) -> Iterator[Sequence[str]]:
    """Yields the rows of the fourth table."""
    for method, weights, activations in (
        ("merge", "int6", "int8"),
        ("merge", "int4", "int8"),
        ("prune", "int4", "int8"),
    ):
        spec = with_formats(with_tokens(bench.float, method, KEEPS[0]), weights, activations)
        nearest, learned = bench.untrained(spec), bench.untrained(spec, learned=True)
        learnt = bench.read(bench.trained(spec))
        yield method, f"{KEEPS[0]:g}", f"{weights} / {activations}", f"{nearest:.3f}", f"{learned:.3f}", f"{learnt:.3f}"


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    """Returns a table's lines, printing them as they come."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for line in lines:
        print(line, flush=True)
    for row in rows:
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    print(flush=True)
    return [*lines, ""]


def report(bench: Bench) -> list[str]:
    """Returns the page."""
    first = bench.read(bench.trained(bench.float))
    page = [
        "# Fewer tokens and bits without training",
        "",
        f"`python bench/accuracy/post_training.py`; digit-pairs, 16 x 16 pixels; test split ({len(bench.task.test):,} "
        f"images, 2 digits each). The model (dim 64, 3 blocks, 16 tokens) was trained {bench.recipe.steps} steps in "
        f"floating point with all its tokens, seed {SEED}: **{first:.3f}**. `untrained` gives these weights to the "
        "row's model, as the evaluator `post_training` does; `trained in` trains the row's model from scratch, as many "
        "steps, same seed. Another seed alone moves an accuracy by about 0.016 (standard deviation).",
        "",
        "## Tokens",
        "",
        "A share `keep` of the image tokens goes on after the first block and again after the second; floating point.",
        "",
        *table(("method", "keep", "tokens", "untrained", "trained in", "difference"), token_rows(bench)),
        "## Number formats",
        "",
        f"Weights / activations of the blocks; 8-bit integers in stem and head; scales from {IMAGES} images. AdaRound "
        "(300 steps a layer) on scales of least squares, where it applies.",
        "",
        *table(
            ("formats", "min-max", "percentile", "MSE", "MSE, AdaRound", "trained in", "best less trained in"),
            format_rows(bench),
        ),
        "## Calibration images",
        "",
        *table(("formats", "rounding", *(f"{count} images" for count in COUNTS)), count_rows(bench)),
        "## Both",
        "",
        *table(("method", "keep", "formats", "untrained", "untrained, AdaRound", "trained in"), both_rows(bench)),
    ]
    each = {name: bench.seconds[name] / max(1, bench.counts[name]) for name in bench.seconds}
    page += [
        f"CPU-seconds a model, one thread, test split read: {each['nearest']:.1f} untrained with nearest rounding, "
        f"{each['adaround']:.1f} with AdaRound, {each['training']:.0f} trained (without reading).",
        "",
    ]
    return page


def main() -> None:
    """Measures, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"train {QUICK_STEPS} steps, write nothing")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of finished trainings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options.cache, QUICK_STEPS if options.quick else STEPS)
    page = report(bench)
    if not options.quick:
        (HERE / "post_training.md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
