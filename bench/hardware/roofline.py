"""Compares the roofline with measured latency on this machine, and with what data sheets and papers say of others.

Peaks of this machine are measured first, with small products, sums and copies in onnxruntime and numpy; no number is
fitted to the models. Run ``OMP_NUM_THREADS=1 python bench/hardware/roofline.py``: prints the tables and writes them to
roofline.md beside this file.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from cosearch_evaluators.measured import Measured
from numpy.typing import NDArray
from onnx import TensorProto, helper
from scipy.stats import spearmanr

from cosearch.hardware import technology
from cosearch.hardware.ledger import breakdown
from cosearch.hardware.roofline import DEVICES, Roofline, Rooflines, roofline_ledger
from cosearch.hardware.vector import OPERATIONS_PER_ROW, OPERATIONS_PER_VALUE
from cosearch.space import load_space
from cosearch.spec import FLOAT_BITS, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.workload import OperatorKind, Workload, workload

HERE = Path(__file__).parent
TASKS = {
    "vit_digits_systolic": TaskShape(image=(16, 16), channels=1, classes=10, labels=2),
    "vit_cifar_systolic": TaskShape(image=(32, 32), channels=3, classes=10),
    "deit_tiny_edge": TaskShape(image=(224, 224), channels=3, classes=1000),
}
EACH = 4
"""Models from each space."""
REPEATS = 31
BLOCKS = 5
CACHE_KIB = 2048
"""Second-level cache of a core of this machine: what does not fit is streamed."""


def times_s(call: Callable[[], object]) -> NDArray[np.float64]:
    """Of several blocks of calls, those with the least median: other work on the machine comes and goes."""
    blocks = []
    for _ in range(BLOCKS):
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        blocks.append(np.array(times))
    return min(blocks, key=lambda block: float(np.median(block)))


def median_s(call: Callable[[], object]) -> float:
    return float(np.median(times_s(call)))


def session(nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, ...]], output: str) -> Callable[[], object]:
    """Returns what runs a small graph on random floats, on one thread."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "g", values, [out]), opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    running = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=shape).astype(np.float32) for name, shape in inputs.items()}
    return lambda: running.run([output], feeds)


def peak_macs_per_s() -> float:
    size = 768
    run = session([helper.make_node("MatMul", ["a", "b"], ["c"])], {"a": (size, size), "b": (size, size)}, "c")
    return size**3 / median_s(run)


def vector_ops_per_s(launch_s: float) -> float:
    """The operations that the cost model counts, over the time that onnxruntime takes for them."""
    rows, cols = 197, 768
    x = {"x": (rows, cols)}
    row = {"x": (rows, cols), "w": (cols,), "b": (cols,)}
    runs = {
        OperatorKind.SOFTMAX: session([helper.make_node("Softmax", ["x"], ["y"])], x, "y"),
        OperatorKind.GELU: session([helper.make_node("Gelu", ["x"], ["y"])], x, "y"),
        OperatorKind.ADD: session([helper.make_node("Add", ["x", "x"], ["y"])], x, "y"),
        OperatorKind.LAYERNORM: session([helper.make_node("LayerNormalization", ["x", "w", "b"], ["y"])], row, "y"),
    }
    operations = sum(OPERATIONS_PER_VALUE[k] * rows * cols + OPERATIONS_PER_ROW.get(k, 0) * rows for k in runs)
    return operations / sum(max(median_s(run) - launch_s, 1e-9) for run in runs.values())


def launch_s() -> float:
    """The slope of the time over the number of tiny operators that depend on each other."""

    def chain(length: int) -> float:
        names = ["x", *(f"t{i}" for i in range(length))]
        kinds = (("MatMul", ["w"]), ("Softmax", []), ("Add", ["x"]), ("LayerNormalization", ["s", "s"]))
        nodes = []
        for i in range(length):
            kind, others = kinds[i % len(kinds)]
            nodes.append(helper.make_node(kind, [names[i], *others], [names[i + 1]]))
        return median_s(session(nodes, {"x": (1, 8), "w": (8, 8), "s": (8,)}, names[-1]))

    return max((chain(400) - chain(100)) / 300, 0.0)


def bandwidth_bytes_per_s() -> float:
    source: NDArray[np.float32] = np.ones(1 << 25, dtype=np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / median_s(lambda: np.copyto(target, source))


def as_float(model: ModelSpec) -> ModelSpec:
    blocks = tuple(
        BlockSpec(heads=block.heads, mlp_hidden=block.mlp_hidden, keep_tokens=block.keep_tokens)
        for block in model.blocks
    )
    return ModelSpec(
        task=model.task,
        patch=model.patch,
        dim=model.dim,
        blocks=blocks,
        token_method=model.token_method,
        overlap=model.overlap,
        stem_hidden=model.stem_hidden,
        edge_bits=FLOAT_BITS,
    )


def latency_s(load: Workload, device: Roofline) -> float:
    tech = technology("horowitz_45nm")
    return breakdown(load, roofline_ledger(load, Rooflines((device,)), tech), tech).latency_s


def chosen() -> list[tuple[str, Candidate]]:
    rng, out = np.random.default_rng(0), []
    for name, task in TASKS.items():
        space, seen = load_space(name, task), set()
        while len(seen) < EACH:
            candidate = space.decode(space.sample(rng))
            if (single := as_float(candidate.model)) not in seen:
                seen.add(single)
                out.append((name, candidate))
    return out


def compare(device: Roofline) -> list[str]:
    lines, predicted, taken = [], [], []
    for name, candidate in chosen():
        model = as_float(candidate.model)
        times = times_s(Measured(arithmetic="float")._call(model, 0))
        low, got, high = np.quantile(times, (0.25, 0.5, 0.75))
        said = latency_s(workload(model), device)
        predicted.append(said)
        taken.append(got)
        tokens = f"{model.tokens[0][0]} to {model.tokens[-1][1]}"
        lines.append(
            f"| {name} | {model.dim} x {len(model.blocks)}, {model.token_method}, {tokens} | "
            f"{workload(model).macs / 1e6:.2f} | {1e3 * said:.3f} | {1e3 * got:.3f} | "
            f"{1e3 * (high - low):.3f} | {100 * (said / got - 1):+.0f} % |"
        )
        print(lines[-1], flush=True)
    error = np.abs(np.array(predicted) / np.array(taken) - 1)
    rho = spearmanr(predicted, taken).statistic
    return [
        *("| space | width x blocks, tokens | MMAC | roofline ms | measured ms | range ms | error |",),
        "|---|---|---:|---:|---:|---:|---:|",
        *lines,
        "",
        f"Median error {100 * np.median(error):.0f} %, worst {100 * error.max():.0f} %, Spearman {rho:.3f} over "
        f"{len(lines)} models.",
    ]


def published() -> list[str]:
    """DeiT-Tiny and DeiT-Small on named devices."""
    lines = [
        "| device | DeiT-Tiny fp32 ms | fp16 ms | int8 ms | share of launches in int8 | DeiT-Small fp16 ms | "
        "W in fp16 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    tech = technology("horowitz_45nm")

    def deit(dim: int, heads: int, bits: int) -> Workload:
        block = BlockSpec(heads=heads, mlp_hidden=4 * dim, weight_bits=bits, activation_bits=bits)
        task = TASKS["deit_tiny_edge"]
        return workload(ModelSpec(task=task, patch=16, dim=dim, blocks=(block,) * 12, edge_bits=bits))

    for name in DEVICES:
        single, half = Roofline(device=name), Roofline(device=name, float_as="fp16")
        tiny, small = deit(192, 3, FLOAT_BITS), deit(384, 6, FLOAT_BITS)
        whole = deit(192, 3, 8)
        cost = breakdown(small, roofline_ledger(small, Rooflines((half,)), tech), tech)
        launches = len(whole.operators) * single.resolved().launch_s / latency_s(whole, single)
        lines.append(
            f"| {name} | {1e3 * latency_s(tiny, single):.3f} | {1e3 * latency_s(tiny, half):.3f} | "
            f"{1e3 * latency_s(whole, single):.3f} | {100 * launches:.0f} % | {1e3 * cost.latency_s:.3f} | "
            f"{cost.power_w:.0f} |"
        )
    return lines


def main() -> None:
    overhead = launch_s()
    device = Roofline(
        device="custom",
        fp32_macs_per_s=peak_macs_per_s(),
        vector_ops_per_s=vector_ops_per_s(overhead),
        dram_bytes_per_s=bandwidth_bytes_per_s(),
        cache_kib=CACHE_KIB,
        launch_s=overhead,
        tdp_w=1.0,
    )
    text = "\n".join(
        [
            "# Roofline",
            "",
            "Made by `bench/hardware/roofline.py`.",
            "",
            "## Against latency measured on this machine",
            "",
            f"One thread of onnxruntime {onnxruntime.__version__}, single precision, {platform.machine()}; other work "
            "ran on the machine. Its numbers, measured apart from the models: "
            f"{device.fp32_macs_per_s / 1e9:.0f} GMAC/s (a product of 768 x 768 x 768), "
            f"{device.vector_ops_per_s / 1e9:.1f} Gop/s (softmax, layer norm, GELU and add, as the cost model counts "
            f"their operations), {device.dram_bytes_per_s / 1e9:.1f} GB/s (a copy of 128 MiB), "
            f"{1e6 * device.launch_s:.2f} us for each operator (chains of tiny ones), {CACHE_KIB} KiB of second-level "
            f"cache. Measured are the median of {REPEATS} calls "
            f"and their interquartile range, as `measured` takes them, in the fastest of {BLOCKS} blocks; so are the "
            "machine's own numbers.",
            "",
            *compare(device),
            "",
            "The roofline has no efficiency of small products, and no operators beside the model's own (reshapes, "
            "transposes, splits, gathers); onnxruntime in turn fuses some. Use it for ranks, and `measured` for times.",
            "",
            "## Named devices",
            "",
            "One image through DeiT (Touvron et al. 2021), every operator launched by itself. On large GPUs an image "
            "is too small to be anything but launches: graphs, fusion or batches would change that; they are not "
            "modelled.",
            "",
            *published(),
            "",
        ]
    )
    print(text)
    (HERE / "roofline.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
