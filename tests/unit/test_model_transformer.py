"""The transformer: against a second implementation, and what its parts hand to each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cosearch.errors import SpecError
from cosearch.model import VisionTransformer, build_model, calibrate
from cosearch.model.formats import IntegerQuantizer
from cosearch.model.positions import wave_positions
from cosearch.model.tokens import Stream
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import OperatorKind, workload

TASK = TaskShape(image=(12, 16), channels=2, classes=5, labels=2)
KEEPS: dict[str, list[int | None]] = {"none": [None] * 3, "prune": [9, None, 4], "merge": [8, 5, None]}


def make_spec(method: str = "none", bits: int = 32, *, overlap: int = 0, stem_hidden: int = 0) -> ModelSpec:
    blocks = tuple(
        BlockSpec(heads=2, mlp_hidden=24, keep_tokens=keep, weight_bits=bits, activation_bits=bits)
        for keep in KEEPS[method]
    )
    return ModelSpec(
        task=TASK,
        patch=4,
        dim=16,
        blocks=blocks,
        token_method=method,
        overlap=overlap,
        stem_hidden=stem_hidden,
        edge_bits=bits,
    )


def draw(batch: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(batch, TASK.channels, *TASK.image, generator=torch.Generator().manual_seed(seed))


class Reference(nn.Module):
    """The same network from torch's own convolution and encoder layers (which hold `nn.MultiheadAttention`)."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        spec = model.spec
        side = spec.patch + 2 * spec.overlap
        width = spec.stem_hidden or spec.dim
        stem: list[nn.Module] = [
            nn.Conv2d(spec.task.channels, width, side, stride=spec.patch, padding=spec.overlap),
            nn.Flatten(2),
        ]
        stem[0].load_state_dict(
            {
                "weight": model.stem.conv.weight.view(width, spec.task.channels, side, side),
                "bias": model.stem.conv.bias,
            }
        )
        self.stem, self.hidden = nn.Sequential(*stem), model.stem.proj
        self.model = model
        self.layers = nn.ModuleList()
        for block in model.blocks:
            layer = nn.TransformerEncoderLayer(
                spec.dim,
                block.mixer.asked,
                dim_feedforward=block.mlp.fc1.weight.shape[0],
                dropout=0.0,
                activation="gelu",
                layer_norm_eps=1e-6,
                batch_first=True,
                norm_first=True,
            )
            state = {"self_attn.in_proj_weight": block.mixer.qkv.weight, "self_attn.in_proj_bias": block.mixer.qkv.bias}
            names = {
                "self_attn.out_proj": block.mixer.proj,
                "linear1": block.mlp.fc1,
                "linear2": block.mlp.fc2,
                "norm1": block.norm1,
                "norm2": block.norm2,
            }
            for name, part in names.items():
                state |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
            layer.load_state_dict(state)
            self.layers.append(layer)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).transpose(1, 2)
        if self.hidden is not None:
            x = nn.functional.gelu(x) @ self.hidden.weight.t() + self.hidden.bias
        first = self.model.class_token.view(1, 1, -1).repeat(len(images), 1, 1)
        x = torch.cat((first, x), dim=1) + self.model.position
        for layer in self.layers:
            x = layer(x)
        x = self.model.norm(x)[:, 0] @ self.model.head.weight.t() + self.model.head.bias
        return x.reshape(len(images), self.model.spec.task.labels, self.model.spec.task.classes)


def shake(model: nn.Module) -> None:
    """Moves every parameter, so that biases and norms that start at 0 and 1 are seen to be used."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(("overlap", "stem_hidden"), [(0, 0), (2, 0), (0, 10), (1, 10)])
def test_float_model_equals_torchs_own_layers(overlap: int, stem_hidden: int) -> None:
    model = build_model(make_spec(overlap=overlap, stem_hidden=stem_hidden))
    shake(model)
    reference = Reference(model).train()
    torch.testing.assert_close(model(draw()), reference(draw()), rtol=1e-4, atol=1e-5)


def test_attention_of_many_tokens_equals_torchs_own_layers() -> None:
    spec = ModelSpec(
        task=TaskShape(image=(18, 18), channels=2, classes=3),
        patch=2,
        dim=16,
        blocks=(BlockSpec(heads=4, mlp_hidden=8),),
    )
    model = build_model(spec)
    shake(model)
    images = torch.randn(3, 2, 18, 18, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(images), Reference(model)(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["none", "prune", "merge"])
def test_same_seed_same_weights(method: str) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (build_model(make_spec(method, 4), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.class_token, other.class_token)
    assert torch.equal(first(draw()), again(draw()))


@pytest.mark.parametrize("bits", [32, 2, 4, 8])
@pytest.mark.parametrize("method", ["none", "prune", "merge"])
def test_gradient_reaches_every_parameter(method: str, bits: int) -> None:
    model = build_model(make_spec(method, bits, overlap=1, stem_hidden=10))
    calibrate(model, draw(32))
    logits = model(draw(32))
    assert logits.shape == (32, 2, 5)
    nn.functional.cross_entropy(logits.flatten(0, 1), torch.arange(64) % 5).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("bits", [32, 4])
@pytest.mark.parametrize("method", ["none", "prune", "merge"])
def test_token_counts_are_the_specs(method: str, bits: int) -> None:
    spec = make_spec(method, bits)
    model = build_model(spec)
    seen: list[tuple[int, int]] = []
    for block in model.blocks:
        rows: list[int] = []
        block.norm1.register_forward_hook(lambda m, args, out, rows=rows: rows.append(out.shape[1]))

        def finish(m: nn.Module, args: Any, out: Tensor, rows: list[int] = rows) -> None:
            seen.append((rows[0], out.shape[1]))

        block.norm2.register_forward_hook(finish)
    model(draw())
    assert tuple(seen) == spec.tokens


def test_pruned_tokens_do_not_matter_but_the_fused_one_does() -> None:
    model = build_model(make_spec("prune")).eval()
    block = model.blocks[0]
    x = torch.randn(1, 13, 16, generator=torch.Generator().manual_seed(2))
    attention = block.mixer(block.norm1(x), None).map
    assert attention is not None
    scores = attention[0, :, 0, 1:].mean(0)
    best = scores.topk(8).indices.sort().values + 1
    taken: list[Tensor] = []
    block.norm2.register_forward_pre_hook(lambda m, args: taken.append(args[0]))
    block(Stream(x))
    added = x + block.mixer(block.norm1(x), None).out
    assert taken[0].shape == (1, 10, 16)
    assert torch.equal(taken[0][:, 0], added[:, 0])
    assert torch.equal(taken[0][:, 1:9], added[:, best])
    rest = torch.tensor([i for i in range(1, 13) if i not in best.tolist()])
    weights = scores[rest - 1] / scores[rest - 1].sum()
    torch.testing.assert_close(taken[0][0, 9], weights @ added[0, rest], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [32, 8])
def test_merging_identical_tokens_loses_nothing(bits: int) -> None:
    """Pairs of equal patches merge into one of size 2; proportional attention then gives the same logits."""
    task = TaskShape(image=(4, 16), channels=1, classes=3)
    merged = tuple(
        BlockSpec(heads=2, mlp_hidden=12, keep_tokens=k, weight_bits=bits, activation_bits=bits) for k in (2, None)
    )
    kept = tuple(BlockSpec(heads=2, mlp_hidden=12, weight_bits=bits, activation_bits=bits) for _ in range(2))
    spec = ModelSpec(task=task, patch=4, dim=8, blocks=merged, token_method="merge", edge_bits=bits)
    plain = ModelSpec(task=task, patch=4, dim=8, blocks=kept, edge_bits=bits)
    model, whole = build_model(spec, seed=3), build_model(plain, seed=3)
    with torch.no_grad():  # equal positions for the two of a pair
        model.position[1::2] = model.position[2::2]
    patches = torch.randn(2, 1, 4, 8, generator=torch.Generator().manual_seed(4)) * 2
    images = torch.cat([part for piece in patches.split(4, dim=3) for part in (piece, piece)], dim=3)
    calibrate(model, images)
    state = {name: value for name, value in model.state_dict().items() if "metric" not in name}
    whole.load_state_dict(state)
    if bits == 32:
        torch.testing.assert_close(model(images), whole(images), rtol=1e-4, atol=1e-5)
    else:  # the softmax of a pair is rounded as one value instead of two halves
        torch.testing.assert_close(model(images), whole(images), rtol=0, atol=0.02)


class Operands(TorchDispatchMode):
    """Keeps the operands of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.seen.append((args[0], args[1]))
        if name == "addmm":
            self.seen.append((args[1], args[2]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("method", ["none", "prune", "merge"])
def test_both_operands_of_every_product_are_quantised(method: str, bits: int) -> None:
    spec = make_spec(method, bits, overlap=1, stem_hidden=10)
    model = build_model(spec).eval()
    calibrate(model, draw())
    with torch.no_grad(), Operands() as operands:
        model(draw())
    products = [op for op in workload(spec).operators if op.kind is OperatorKind.MATMUL]
    assert len(operands.seen) == len(products)
    for op, (left, right) in zip(products, operands.seen, strict=True):
        assert len(left.unique()) <= 2**bits, op.name
        # weights have a scale for each output, a column of the right operand
        columns = right.unbind(1) if op.weights else (right,)
        assert all(len(column.unique()) <= 2**bits for column in columns), op.name
        assert len(right.unique()) > 1, op.name


def test_weights_and_activations_may_have_different_widths() -> None:
    block = BlockSpec(heads=2, mlp_hidden=12, weight_bits=2, activation_bits=32)
    model = build_model(ModelSpec(task=TASK, patch=4, dim=8, blocks=(block,), edge_bits=8))
    assert model.blocks[0].mixer.qkv.weight_quantizer is not None
    assert model.blocks[0].mixer.qkv.input_quantizer is None
    assert model.blocks[0].mixer.softmax_quantizer is None
    widths = {q.bits for q in model.modules() if isinstance(q, IntegerQuantizer)}
    assert widths == {2, 8}
    model(draw()).sum().backward()


def test_sixteen_bits_are_almost_floating_point() -> None:
    fine, plain = build_model(make_spec(bits=16)), build_model(make_spec())
    calibrate(fine, draw())
    torch.testing.assert_close(fine(draw()), plain(draw()), rtol=0, atol=2e-3)


def test_more_bits_come_nearer_to_floating_point() -> None:
    plain = build_model(make_spec())
    errors = []
    for bits in (2, 4, 6, 8):
        model = build_model(make_spec(bits=bits))
        calibrate(model, draw())
        errors.append(float((model(draw()) - plain(draw())).detach().square().mean()))
    assert errors == sorted(errors, reverse=True)


def test_calibrating_sets_every_scale_from_the_images() -> None:
    model = build_model(make_spec("merge", 4))
    calibrate(model, draw())
    small = [float(q.scale.detach().min()) for q in model.modules() if isinstance(q, IntegerQuantizer)]
    assert min(small) > 0
    assert model.stem.conv.input_quantizer is not None
    first = model.stem.conv.input_quantizer.scale.detach().clone()
    calibrate(model, draw() * 10)
    torch.testing.assert_close(model.stem.conv.input_quantizer.scale.detach(), first * 10, rtol=1e-3, atol=0)


def test_places_are_as_large_as_patches_from_the_start() -> None:
    model = build_model(make_spec())
    torch.testing.assert_close(model.position[1:], wave_positions(*model.spec.grid, model.spec.dim))
    patches = model.stem(draw(64))
    for added in (model.position[1:], model.class_token):
        assert 0.3 < float(added.detach().square().mean() / patches.detach().square().mean()) < 3


def test_training_lowers_the_loss_at_two_bits() -> None:
    model = build_model(make_spec("prune", 2))
    images, labels = draw(32), torch.arange(64) % 5
    calibrate(model, images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(90):
        loss = nn.functional.cross_entropy(model(images).flatten(0, 1), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_exporting_before_calibrating_says_what_to_do() -> None:
    model = build_model(make_spec(bits=4)).eval()
    with pytest.raises(SpecError, match="scale is not set; run `calibrate` on some images before you export the model"):
        torch.export.export(model, (draw(),))
