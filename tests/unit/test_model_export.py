"""The exported model gives what the model gives, for any batch."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnxruntime
import pytest
import torch

from cosearch.model import build_model, calibrate
from cosearch.spec import BlockSpec, ModelSpec, TaskShape

KEEPS: dict[str, tuple[int | None, int | None]] = {"none": (None, None), "prune": (6, None), "merge": (6, 4)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "bits", "overlap", "stem_hidden"),
    [("none", 32, 1, 10), ("prune", 32, 0, 0), ("merge", 32, 0, 0), ("prune", 4, 1, 10), ("merge", 8, 0, 0)],
)
def test_onnxruntime_gives_the_same_logits(
    tmp_path: Path, method: str, bits: int, overlap: int, stem_hidden: int
) -> None:
    blocks = tuple(
        BlockSpec(heads=2, mlp_hidden=24, keep_tokens=keep, weight_bits=bits, activation_bits=bits)
        for keep in KEEPS[method]
    )
    spec = ModelSpec(
        task=TaskShape(image=(12, 12), channels=2, classes=5, labels=2),
        patch=4,
        dim=16,
        blocks=blocks,
        token_method=method,
        overlap=overlap,
        stem_hidden=stem_hidden,
        edge_bits=bits,
    )
    images = torch.randn(64, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    model = build_model(spec, seed=1).eval()
    calibrate(model, images)
    with torch.no_grad():
        model.head.weight.mul_(20)  # so that logits are of the order of 1
    calibrate(model, images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations are not ours
        program = torch.onnx.export(
            model, (images[:2],), dynamo=True, dynamic_shapes={"images": {0: torch.export.Dim("batch")}}, verbose=False
        )
    assert program is not None
    program.save(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(images)
    assert float(expected.std()) > 0.1
    for batch in (1, 64):
        (logits,) = session.run(None, {session.get_inputs()[0].name: images[:batch].numpy()})
        error = (torch.from_numpy(logits) - expected[:batch]).abs().amax((1, 2))
        if bits == 32:
            assert float(error.max()) < 1e-4
        else:
            # a value within rounding error of a half may take the next code, which no tolerance of 1e-4 covers
            assert int((error < 1e-4).sum()) >= batch - max(0, batch // 16)
            assert float(error.max()) < 0.5
