"""Measures what number formats cost in accuracy, without training and with a little of it.

Run ``python bench/model/formats.py`` (minutes, one thread): trains a model of the quickstart's size in floating point,
puts every format in, prints the tables and writes them to formats.md beside this file.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cosearch.data import Task, load_task
from cosearch.formats import number_format
from cosearch.model import Block, Linear, VisionTransformer
from cosearch.model.formats import Calibration, adaround, lmul_matmul, quantizer
from cosearch.spec import BlockSpec, ModelSpec
from cosearch.train import Recipe, accuracy, normalised, train
from cosearch.train.batches import Batches
from cosearch.train.loop import steps

HERE = Path(__file__).parent
TRAINED = Recipe(steps=360, batch=64)
TUNED = Recipe(steps=60, batch=64, lr=6e-4, matrix_lr=0.003, scale_lr=0.03, calibration=256)
CALIBRATED: tuple[Calibration, ...] = ("minmax", "percentile", "mse")
ADAROUND_STEPS, LMUL_IMAGES = 300, 256
Pair = tuple[str, str]

POST_TRAINING: list[Pair] = [
    *[("int8", "int8"), ("int6", "int6"), ("int4", "int8"), ("int4", "int4"), ("int3", "int8"), ("int2", "int8")],
    *[("fp16", "fp16"), ("bf16", "bf16"), ("fp8_e4m3", "fp8_e4m3"), ("fp8_e5m2", "fp8_e5m2")],
    *[("fp6_e3m2", "fp6_e3m2"), ("fp6_e2m3", "fp6_e2m3"), ("fp4_e2m1", "fp8_e4m3"), ("fp4_e2m1", "fp4_e2m1")],
    *[(name, name) for name in ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxint8", "mxfp4")],
    *[("pow2_5", "int8"), ("pow2_4", "int8"), ("pow2_3", "int8"), ("pow2_2", "int8"), ("ternary", "int8")],
]
"""Formats of weights and of activations in the blocks."""

AWARE: list[Pair] = [
    *[("int8", "int8"), ("int4", "int4"), ("int2", "int8"), ("ternary", "int8"), ("pow2_3", "int8")],
    *[("fp8_e4m3", "fp8_e4m3"), ("fp4_e2m1", "fp4_e2m1"), ("mxfp4", "mxfp4")],
]


TIMED = ["int8", "fp8_e4m3", "fp4_e2m1", "mxfp8_e4m3", "mxfp4", "mxint8", "ternary", "pow2_4", "bf16"]


class Attended(nn.Module):
    """q, k and v of shape (3, ...), each with blocks along the dimension that its product reduces."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.q, self.k, self.v = quantizer(name), quantizer(name), quantizer(name, axis=-2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack((self.q(x[0]), self.k(x[1]), self.v(x[2])))


def microseconds(name: str, rounds: int = 60) -> float:
    """Returns the least time of one quantiser, forwards and backwards, on tokens of a batch of 64."""
    made = quantizer(name)
    x = torch.randn(64, 17, 64, requires_grad=True)
    dy = torch.randn_like(made(x))
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        made(x).backward(dy)
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def spec_of(task: Task) -> ModelSpec:
    block = BlockSpec(heads=4, mlp_hidden=128)
    return ModelSpec(task=task.shape, patch=4, dim=64, overlap=2, stem_hidden=64, blocks=(block,) * 3)


def with_formats(model: VisionTransformer, pair: Pair, calibration: Calibration, images: Tensor) -> VisionTransformer:
    """Returns a copy whose blocks compute in the formats and whose edges have 8-bit integers, calibrated."""
    model = copy.deepcopy(model)
    weights, activations = pair
    edges: list[Any] = [model.stem.conv, model.stem.proj, model.head]
    for layer in edges:
        put(layer, "int8", "int8", "mse")
    for block in model.blocks:
        assert isinstance(block, Block)
        for layer in (block.mixer.qkv, block.mixer.proj, block.mlp.fc1, block.mlp.fc2):
            put(layer, weights, activations, calibration)
        attend(block.mixer, activations, calibration)
    with torch.no_grad():
        model(images)
    return model


def put(layer: Any, weights: str, activations: str, calibration: Calibration) -> None:
    ternary = number_format(weights).family == "ternary"
    plain: Calibration = "mse" if calibration == "absmean" else calibration
    layer.weight_quantizer = quantizer(
        weights, channels=len(layer.weight), calibration=calibration if ternary else plain, values=layer.weight.shape[1]
    )
    layer.input_quantizer = quantizer(activations, calibration=plain)


def attend(mixer: Any, name: str, calibration: Calibration) -> None:
    """Puts quantisers before the two products of attention; the softmax has no sign to spend a bit on."""
    plain: Calibration = "mse" if calibration == "absmean" else calibration
    found = number_format(name)
    mixer.qkv_quantizer = Attended(name) if found.family == "mx" else quantizer(name, channels=3, calibration=plain)
    softmax = f"u{name}" if found.family == "integer" else name
    mixer.softmax_quantizer = quantizer(softmax, calibration=plain)


def rounded(quantised: VisionTransformer, model: VisionTransformer, images: Tensor) -> VisionTransformer:
    """Returns a copy with the blocks' weights rounded by AdaRound, layer after layer, towards the model's outputs."""
    result = copy.deepcopy(quantised)
    for name, layer in result.named_modules():
        if not isinstance(layer, Linear) or not name.startswith("blocks."):
            continue
        seen = captured(result, name, images)
        wanted = captured(model, name, images)
        inputs = layer.quantized_input(seen[0]).detach()
        scales: Any = layer.weight_quantizer
        found = adaround(layer, inputs, scales.format, steps=ADAROUND_STEPS, targets=wanted[1], scales=scales)
        with torch.no_grad():
            layer.weight.copy_(found.weight)
    return result


def captured(model: nn.Module, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the inputs and outputs of a layer."""
    kept: list[tuple[Tensor, Tensor]] = []
    hook = model.get_submodule(name).register_forward_hook(lambda _, args, out: kept.append((args[0], out)))
    with torch.no_grad():
        model(images)
    hook.remove()
    return kept[0]


class LMul(TorchFunctionMode):
    """Every matrix product by L-Mul."""

    def __init__(self, mantissa_bits: int) -> None:
        super().__init__()
        self.bits = mantissa_bits

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.matmul:
            return lmul_matmul(args[0], args[1], self.bits)
        if func is nn.functional.linear:
            x, weight, bias = args
            return lmul_matmul(x.flatten(0, -2), weight.T, self.bits).unflatten(0, x.shape[:-1]) + bias
        return func(*args, **(kwargs or {}))


def lmul_accuracy(model: nn.Module, task: Task, mantissa_bits: int | None) -> float:
    """Returns the accuracy on the first validation images, with ordinary products for None."""
    images = normalised(task.validation.images[:LMUL_IMAGES], task)
    labels = torch.tensor(task.validation.labels[:LMUL_IMAGES])
    with torch.no_grad():
        if mantissa_bits is None:
            logits = model(images)
        else:
            with LMul(mantissa_bits):
                logits = model(images)
    return (logits.argmax(2) == labels).double().mean().item()


def tuned(quantised: VisionTransformer, task: Task, seed: int) -> VisionTransformer:
    """Returns a copy trained a little further with its formats in place."""
    result = copy.deepcopy(quantised)
    for _ in steps(result, Batches(task.train, task), TUNED, torch.Generator().manual_seed(seed)):
        pass
    return result.eval()


Figures = dict[tuple[str, str], list[float]]


def measure(task: Task, seed: int, figures: Figures) -> None:
    """Adds the accuracies of one seed, by (row, column)."""
    model = train(spec_of(task), task, TRAINED, seed).model

    def note(row: str, column: str, value: float) -> None:
        figures.setdefault((row, column), []).append(value)

    note("float", "", accuracy(model, task.validation, task))
    note("float", "tuned", accuracy(tuned(model, task, seed), task.validation, task))
    picked = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))[: TUNED.calibration]
    images = Batches(task.train, task).images(picked)
    start = time.process_time()
    for pair in POST_TRAINING:
        row, family = " / ".join(pair), number_format(pair[0]).family
        methods = ("mse",) if family == "mx" or pair[0] in ("fp16", "bf16") else CALIBRATED
        for method in (*methods, "absmean") if family == "ternary" else methods:
            quantised = with_formats(model, pair, method, images)
            note(row, method, accuracy(quantised, task.validation, task))
            if method != "mse":
                continue
            if family in ("integer", "ternary"):
                note(row, "adaround", accuracy(rounded(quantised, model, images), task.validation, task))
            if pair in AWARE:
                note(row, "tuned", accuracy(tuned(quantised, task, seed), task.validation, task))
        print(f"seed {seed}: {row} {time.process_time() - start:.0f} s", flush=True)
    for bits in (None, 7, 4, 3, 2, 1):
        note(f"L-Mul, {bits}-bit mantissas" if bits else "ordinary products", "lmul", lmul_accuracy(model, task, bits))


def cell(figures: Figures, row: str, column: str) -> str:
    values = figures.get((row, column))
    return "-" if values is None else f"{statistics.fmean(values):.3f}"


def tables(figures: Figures, seeds: int) -> list[str]:
    spread = statistics.stdev(figures["float", ""]) if seeds > 1 else float("nan")
    columns = [*CALIBRATED, "absmean", "adaround"]
    before = {"float": "", **{" / ".join(pair): "mse" for pair in AWARE}}
    rows = [" / ".join(pair) for pair in POST_TRAINING]
    products = [row for row, column in figures if column == "lmul"]
    return [
        "# What number formats cost in accuracy",
        "",
        f"`digit-pairs`, 16 x 16; dim 64, 3 blocks, 4 heads, MLP 128, trained {TRAINED.steps} steps of {TRAINED.batch}",
        f"in floating point with {seeds} seed{'s' if seeds > 1 else ''}: accuracy {cell(figures, 'float', '')}"
        + (f" (standard deviation of seeds {spread:.3f})." if seeds > 1 else "."),
        "Accuracy is the share of labels read right on the 1,024 validation images; means over seeds. Stem and head",
        f"have 8-bit integers throughout. torch {torch.__version__}. Differences of 0.005 are ten labels: noise.",
        "",
        "## Without training",
        "",
        "Weights / activations of the blocks' products; scales, by the column's calibration, from",
        f"{TUNED.calibration} training images: per output for weights, per tensor for activations. What needs no",
        "calibration (16-bit floats; MX, per block of 32) stands under `mse`. Softmax in unsigned integers where",
        "activations are integers. AdaRound: weights only, scales of least squared error,",
        f"{ADAROUND_STEPS} steps a layer.",
        "",
        f"| format | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
        *(f"| {row} | {' | '.join(cell(figures, row, column) for column in columns)} |" for row in rows),
        "",
        f"## With {TUNED.steps} steps of training",
        "",
        f"From the `mse` column: {TUNED.steps} steps of {TUNED.batch} with learned scales, a tenth of the usual rates.",
        "Float, trained on in the same way, says what these steps do by themselves.",
        "",
        "| format | before | after |",
        "|---|---:|---:|",
        *(f"| {row} | {cell(figures, row, at)} | {cell(figures, row, 'tuned')} |" for row, at in before.items()),
        "",
        "## L-Mul",
        "",
        f"Every product of the floating-point model by L-Mul, no training; the first {LMUL_IMAGES} validation images.",
        "",
        "| products | accuracy |",
        "|---|---:|",
        *(f"| {row} | {cell(figures, row, 'lmul')} |" for row in products),
        "",
        "## Time of a quantiser, forwards and backwards",
        "",
        "69,632 values (64 x 17 x 64), one learned scale where there is one; least of 60, one thread of a shared",
        "machine.",
        "",
        "| format | microseconds |",
        "|---|---:|",
        *(f"| {name} | {microseconds(name):.0f} |" for name in TIMED),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task({"name": "digit-pairs", "size": 16})
    figures: Figures = {}
    for seed in range(options.seeds):
        measure(task, seed, figures)
    lines = tables(figures, options.seeds)
    print("\n".join(lines))
    (HERE / "formats.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
