"""Latency by running the model: in onnxruntime on this processor, or on a CUDA GPU."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import EvaluationError, UserError, did_you_mean
from cosearch.evaluator import Context, Metric
from cosearch.spec import FLOAT_BITS, Candidate, ModelSpec

__all__ = ["Measured"]

Device = Literal["cpu", "cuda"]
Arithmetic = Literal["exported", "float", "int8"]

_CALIBRATION_IMAGES = 4
"""Random images that scales are set from: they must have some value, and time does not depend on which."""


class Measured:
    """Median time of one inference, measured; no accelerator is modelled.

    The model is built with random weights and exported as `cosearch.export` exports it. Times are those of one call
    with a batch of images, Python's overhead of the call included (some 10 us). They are stored like any costly
    evaluation and never taken again when a run goes on; a new run measures anew, so fronts of two runs differ by the
    noise.

    One measurement runs at a time on a machine, but trainings beside it disturb it: give such a run
    ``pool: {workers: 1}``, and read the spread.

    Args:
        device: ``cpu``, or ``cuda`` (onnxruntime's CUDA provider where it is installed, otherwise torch with events).
        arithmetic: ``exported``: the graph that an exported pair has, whose quantised layers are products of floats
            between steps that round, so fewer bits are not faster. ``float``: single precision, whatever the widths.
            ``int8``: products with weights in 8-bit integers, activations scaled on the fly, as
            ``onnxruntime.quantization.quantize_dynamic`` makes them, whatever the widths; on a processor alone.
        threads: of onnxruntime, on a processor.
        batch: images in each call; the time is for all of them.
        runs: calls that are timed.
        warm_up: calls before them that are not.
        metric: name of the time, ending in ``_s``; the spread is called after it.

    Raises:
        UserError: an option makes no sense.
    """

    scope: Literal["model", "pair"] = "model"
    cheap = False
    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(
        self,
        device: str = "cpu",
        arithmetic: str = "exported",
        threads: int = 1,
        batch: int = 1,
        runs: int = 50,
        warm_up: int = 10,
        metric: str = "latency_s",
    ) -> None:
        _one_of("device", device, get_args(Device))
        _one_of("arithmetic", arithmetic, get_args(Arithmetic))
        for name, value, least in (
            ("threads", threads, 1),
            ("batch", batch, 1),
            ("runs", runs, 3),
            ("warm_up", warm_up, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} is {value!r}; write a whole number of at least {least}")
        if not metric.endswith("_s"):
            raise UserError(f"metric is {metric!r}, but the name of a time ends in _s; write {metric}_s")
        if device == "cuda" and arithmetic == "int8":
            raise UserError("arithmetic is 'int8', which runs on a processor alone; write device: cpu, or another one")
        self.device, self.arithmetic, self.threads, self.batch = device, arithmetic, threads, batch
        self.runs, self.warm_up = runs, warm_up
        where = f"{threads} thread{'s' * (threads > 1)} of onnxruntime" if device == "cpu" else "a GPU"
        what = "one image" if batch == 1 else f"{batch} images"
        self.metrics: tuple[Metric, ...] = (
            Metric(
                name=metric,
                unit="s",
                direction="min",
                description=f"measured time for {what} on {where}, median of {runs}",
            ),
            Metric(
                name=f"{metric.removesuffix('_s')}_iqr_s",
                unit="s",
                direction="min",
                description="interquartile range of these times",
            ),
        )

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """Returns the median time and its interquartile range, in seconds.

        Raises:
            EvaluationError: there is no CUDA GPU to run it on, or the model cannot be exported.
        """
        model = _as_float(candidate.model) if self.arithmetic != "exported" else candidate.model
        call = self._call(model, context.seed)
        with _alone():
            for _ in range(self.warm_up):
                call()
            times = np.array([call() for _ in range(self.runs)])
        low, median, high = (float(value) for value in np.quantile(times, (0.25, 0.5, 0.75)))
        return {self.metrics[0].name: median, self.metrics[1].name: high - low}

    def _call(self, model: ModelSpec, seed: int) -> Callable[[], float]:
        """Returns what runs the model once and gives the seconds that it took."""
        rng = np.random.default_rng(seed)
        height, width = model.task.image
        images = rng.integers(0, 256, (self.batch, height, width, model.task.channels), dtype=np.uint8)
        if self.device == "cpu":
            return self._onnx_call(_graph(model, seed, int8=self.arithmetic == "int8"), images, "CPUExecutionProvider")
        return self._cuda_call(model, seed, images)

    def _cuda_call(self, model: ModelSpec, seed: int, images: NDArray[np.uint8]) -> Callable[[], float]:
        import onnxruntime
        import torch

        providers = onnxruntime.get_available_providers()
        if "CUDAExecutionProvider" in providers:
            return self._onnx_call(_graph(model, seed, int8=False), images, "CUDAExecutionProvider")
        if torch.cuda.is_available():
            return _torch_call(model, seed, images)
        raise EvaluationError(
            f"device is 'cuda', but there is no CUDA here: onnxruntime {onnxruntime.__version__} offers "
            f"{', '.join(providers)}, and torch {torch.__version__} sees no GPU; install onnxruntime-gpu or a CUDA "
            "build of torch on a machine with a GPU, or write device: cpu"
        )

    def _onnx_call(self, graph: bytes, images: NDArray[np.uint8], provider: str) -> Callable[[], float]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        running = onnxruntime.InferenceSession(graph, options, providers=[provider])
        if provider not in running.get_providers():
            raise EvaluationError(
                f"onnxruntime offers {provider} but cannot start it; see that its libraries are found"
            )
        feeds, clock = {"image": images}, self.clock

        def call() -> float:
            start = clock()
            running.run(["logits"], feeds)
            return clock() - start

        return call


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} is {value!r}; {did_you_mean(str(value), choices)}")


def _as_float(model: ModelSpec) -> ModelSpec:
    blocks = tuple(replace(block, weight_bits=FLOAT_BITS, activation_bits=FLOAT_BITS) for block in model.blocks)
    return replace(model, blocks=blocks, edge_bits=FLOAT_BITS)


def _built(model: ModelSpec, seed: int) -> Any:
    """Returns the torch module, its scales set."""
    import torch

    from cosearch.model import build_model, calibrate

    height, width = model.task.image
    module = build_model(model, seed).eval()
    shape = (_CALIBRATION_IMAGES, model.task.channels, height, width)
    calibrate(module, torch.randn(shape, generator=torch.Generator().manual_seed(seed % 2**63)))
    return module


def _graph(model: ModelSpec, seed: int, *, int8: bool) -> bytes:
    """Returns the ONNX file of ``model`` with random weights."""
    from cosearch.export import onnx_graph

    half = [0.5] * model.task.channels
    try:
        graph = onnx_graph(_built(model, seed), half, half, {})
    except RuntimeError as error:
        raise EvaluationError(f"the model cannot be exported: {error}") from error
    return _dynamic_int8(graph) if int8 else graph


def _dynamic_int8(graph: bytes) -> bytes:
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it logs that the model was not optimised before
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_dynamic(onnx.load_from_string(graph), path, weight_type=QuantType.QInt8)
            return path.read_bytes()
    finally:
        root.setLevel(before)


def _torch_call(model: ModelSpec, seed: int, images: NDArray[np.uint8]) -> Callable[[], float]:
    import torch

    from cosearch.export import PixelModel

    half = [0.5] * model.task.channels
    module = PixelModel(_built(model, seed), half, half).cuda()
    batch = torch.from_numpy(images).cuda()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def call() -> float:
        with torch.inference_mode():
            start.record()
            module(batch)
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    return call


@contextmanager
def _alone() -> Iterator[None]:
    """Waits until no other process of this user measures on this machine."""
    path = Path(tempfile.gettempdir()) / f"cosearch-measured-{os.getuid()}.lock"
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
