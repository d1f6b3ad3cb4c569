"""An exported graph computes what the model computes, and a graph that does not is caught."""

import numpy as np
import onnx
import pytest
import torch

from cosearch.export import MismatchError, PixelModel, follow, onnx_graph
from cosearch.export._agreement import compare, logits, session
from cosearch.model import build_model, calibrate
from cosearch.spec import BlockSpec, ModelSpec, TaskShape

MEAN, STD = (0.3, 0.5), (0.25, 0.2)
KEEP = {"none": (None, None), "prune": (10, 5), "merge": (11, 6)}


def model_of(method="none", bits=(8, 8), overlap=0, stem_hidden=0, edge_bits=8):
    spec = ModelSpec(
        task=TaskShape(image=(16, 16), channels=2, classes=5, labels=2),
        patch=4,
        dim=24,
        token_method=method,
        overlap=overlap,
        stem_hidden=stem_hidden,
        edge_bits=edge_bits,
        blocks=tuple(
            BlockSpec(heads=2, mlp_hidden=20, keep_tokens=keep, weight_bits=w, activation_bits=a)
            for keep, (w, a) in zip(KEEP[method], (bits, bits[::-1]), strict=True)
        ),
    )
    model = build_model(spec, seed=3)
    pixels = (torch.from_numpy(images(32, seed=9)).permute(0, 3, 1, 2).float() / 255 - 0.4) / 0.22
    calibrate(model, pixels)
    return model.eval()


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 2), dtype=np.uint8)


@pytest.fixture(scope="module")
def pruned():
    model = model_of("prune", (3, 5))
    return model, onnx_graph(model, MEAN, STD, {"task": "noise"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "bits", "overlap", "stem_hidden", "edge_bits"),
    [
        ("none", (2, 3), 1, 0, 4),
        ("none", (32, 32), 0, 12, 32),
        ("prune", (4, 6), 0, 12, 8),
        ("prune", (2, 2), 2, 0, 2),
        ("merge", (7, 8), 1, 12, 5),
        ("merge", (12, 16), 0, 0, 16),
        ("merge", (3, 2), 0, 0, 8),
    ],
)
def test_onnxruntime_takes_only_decisions_that_torch_allows(method, bits, overlap, stem_hidden, edge_bits):
    model = model_of(method, bits, overlap, stem_hidden, edge_bits)
    graph = onnx_graph(model, MEAN, STD, {})
    found = follow(PixelModel(model, MEAN, STD), graph, images(33))
    assert found.images == 33
    assert found.logit_difference < 1e-5
    assert found.borders <= 1e-3 * found.decisions
    assert (found.decisions > 0) == (bits != (32, 32) or method != "none")
    stored = {c.name: c for c in onnx.load_from_string(graph).graph.initializer}
    for name, layer in model.named_modules():
        quantizer = getattr(layer, "weight_quantizer", None)
        if quantizer is not None:
            codes = onnx.numpy_helper.to_array(stored[f"{name}.weight.codes"])
            expected = quantizer.codes(layer.weight.detach()).numpy()
            assert codes.dtype == (np.int8 if quantizer.bits <= 8 else np.int16)
            assert np.array_equal(np.sort(codes, axis=None), np.sort(expected, axis=None))
            assert codes.shape in (expected.shape, expected.T.shape)
            assert np.array_equal(codes if codes.shape == expected.shape else codes.T, expected) or np.array_equal(
                codes.T, expected
            )


def test_any_batch_gives_the_same_logits(pruned):
    running = session(pruned[1])
    some = images(7)
    whole = logits(running, some)
    assert whole.shape == (7, 2, 5)
    single = np.concatenate([logits(running, some[i : i + 1]) for i in range(7)])
    assert np.array_equal(whole.argmax(axis=2), single.argmax(axis=2))


def test_input_is_raw_pixels_and_facts_are_in_the_file(pruned):
    proto = onnx.load_from_string(pruned[1])
    (given,) = proto.graph.input
    shape = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
    assert given.name == "image"
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert shape == ["batch", 16, 16, 2]
    assert {p.key: p.value for p in proto.metadata_props} == {"task": "noise"}


def test_the_file_tells_nothing_of_the_machine(pruned):
    assert b"site-packages" not in pruned[1]
    assert b".py" not in pruned[1]


def test_the_same_model_gives_the_same_bytes(pruned):
    assert onnx_graph(pruned[0], MEAN, STD, {"task": "noise"}) == pruned[1]


def test_exporting_says_nothing_and_leaves_the_model_alone(capfd):
    model = model_of()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    onnx_graph(model, MEAN, STD, {})
    assert capfd.readouterr() == ("", "")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def floor_for_round(graph):
    # where it matters most: on the inputs of the head
    [node for node in graph.node if node.op_type == "Round"][-1].op_type = "Floor"


def some_codes_off(graph):
    for constant in graph.initializer:
        if constant.name == "blocks.1.mlp.fc2.weight.codes":
            codes = onnx.numpy_helper.to_array(constant).copy()
            codes[:4, :] = -codes[:4, :] - 1
            constant.CopyFrom(onnx.numpy_helper.from_array(codes, constant.name))


def another_order(graph):
    for node in graph.node:
        if node.op_type == "TopK":
            for attribute in node.attribute:
                if attribute.name == "largest":
                    attribute.i = 1 - attribute.i
            return


def another_mean(graph):
    for constant in graph.initializer:
        if constant.name == "mean":
            shifted = onnx.numpy_helper.to_array(constant) + np.float32(1 / 255)
            constant.CopyFrom(onnx.numpy_helper.from_array(shifted, constant.name))


@pytest.mark.parametrize("change", [floor_for_round, some_codes_off, another_order, another_mean])
def test_a_graph_that_computes_something_else_is_caught(pruned, change):
    model, graph = pruned
    proto = onnx.load_from_string(graph)
    change(proto.graph)
    changed = proto.SerializeToString()
    assert changed != graph
    with pytest.raises(MismatchError):
        follow(PixelModel(model, MEAN, STD), changed, images(16))


def test_another_models_graph_is_caught(pruned):
    other = model_of("none", (3, 5))
    with pytest.raises(MismatchError):
        follow(PixelModel(other, MEAN, STD), pruned[1], images(4))


def test_logits_that_are_no_numbers_are_caught():
    good = np.zeros((3, 1, 4), np.float32)
    with pytest.raises(MismatchError, match="1 of them are no numbers"):
        compare(good, np.where(np.arange(12).reshape(3, 1, 4) == 5, np.nan, good), "three images")


def test_agreement_counts_labels_and_takes_the_largest_difference_of_each_image():
    ours = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]], np.float32)
    theirs = np.array([[[1.0, 0.25]], [[0.0, 1.0]], [[0.5, 1.0]]], np.float32)
    found = compare(ours, theirs, "three images")
    assert (found.images, found.equal_predictions) == (3, pytest.approx(2 / 3))
    assert (found.max_difference, found.median_difference) == (1.0, 0.25)
