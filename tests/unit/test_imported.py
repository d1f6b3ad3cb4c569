"""A user's torch module becomes a workload that does what the module does."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cosearch.hardware import SystolicArray, estimate, technology
from cosearch.hardware.memory import lifetimes
from cosearch.imported import workload_of
from cosearch.model import build_model
from cosearch.model.formats import IntegerQuantizer
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import OperatorKind, Workload, workload


def counted(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused operator is not counted
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module.eval()(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2


def kinds(load: Workload) -> list[str]:
    return [op.kind.value for op in load.operators]


def products(load: Workload) -> list[tuple[int, int, int, int]]:
    return [(op.m, op.k, op.n, op.count) for op in load.operators if op.kind is OperatorKind.MATMUL]


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, dim))


class Vit(nn.Module):
    """A vision transformer as users write it: convolution, class token, pre-norm blocks."""

    def __init__(self, *, fused: bool = True, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 8, stride=8)
        self.token, self.position = nn.Parameter(torch.zeros(1, 1, 32)), nn.Parameter(torch.zeros(1, 17, 32))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(32),
                    "attn": Attention(32, 4, fused=fused),
                    "norm2": nn.LayerNorm(32),
                    "mlp": nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 32)),
                }
            )
            for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.position
        for block in self.blocks:
            x = x + block["attn"](block["norm1"](x))
            x = x + block["mlp"](block["norm2"](x))
        return self.head(self.norm(x[:, 0]))


class Cross(nn.Module):
    """Queries and keys of different lengths, with a mask that is an input and one that is causal."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        if self.causal:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(9, 7))

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        return torch.einsum("bhid,bhjd->bhij", q, k) + (self.mix @ k.mean(1)).mean()


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Hardswish(),
        nn.Conv2d(8, 12, 1, groups=2),
        nn.GroupNorm(3, 12),
        nn.SiLU(),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(12, 6, 2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.Softmax(-1),
    )


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def image(channels: int = 3, side: int = 32) -> tuple[Tensor, ...]:
    return (torch.randn(1, channels, side, side),)


def attention_inputs() -> tuple[Tensor, ...]:
    return torch.randn(1, 2, 5, 8), torch.randn(1, 2, 7, 8), torch.randn(1, 2, 7, 6), torch.randn(1, 2, 5, 7)


CASES = {
    "vit, fused attention": (Vit, image()),
    "vit, explicit attention": (lambda: Vit(fused=False), image()),
    "convolutions": (cnn, image()),
    "encoder": (encoder, (torch.randn(1, 9, 32),)),
    "attention with a mask": (lambda: Cross(causal=False), attention_inputs()),
    "causal attention": (lambda: Cross(causal=True), attention_inputs()),
    "einsum and weights on the left": (Einsum, (torch.randn(1, 2, 5, 8), torch.randn(1, 2, 7, 8))),
}


@pytest.mark.parametrize("case", CASES)
def test_macs_equal_the_counter(case):
    make, inputs = CASES[case]
    module = make()
    assert workload_of(module, inputs).macs == counted(module, inputs) > 0


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_lives_from_its_writer_to_its_readers(case):
    make, inputs = CASES[case]
    load = workload_of(make(), inputs)
    named = {tensor.name for tensor in load.tensors}
    assert len(named) == len(load.tensors)
    assert {name for op in load.operators for name in (*op.inputs, op.output)} == named
    assert len({op.output for op in load.operators}) == len(load.operators)
    for life in lifetimes(load):
        assert life.weight or life.written is None or all(life.written < read for read in life.reads)
    # all are read but the results
    assert [life.tensor for life in lifetimes(load) if not life.reads] == [load.operators[-1].output]
    assert min(load.live_activation_bytes()) > 0


def test_attention_written_out_is_the_same_as_fused():
    fused, explicit = workload_of(Vit(), image()), workload_of(Vit(fused=False), image())
    assert kinds(fused) == kinds(explicit)
    assert products(fused) == products(explicit)
    assert fused.peak_activation_bytes == explicit.peak_activation_bytes


def test_a_vision_transformer_is_that_of_the_same_spec():
    """Views, dropout and joining the class token cost nothing, so the operators are those of `workload`, one by one."""
    block = BlockSpec(heads=4, mlp_hidden=64, weight_bits=8, activation_bits=8)
    task = TaskShape(image=(32, 32), channels=3, classes=10)
    spec = ModelSpec(task=task, patch=8, dim=32, blocks=(block, block), edge_bits=8)
    ours, theirs = workload(spec), workload_of(Vit(), image())
    assert kinds(theirs) == kinds(ours)
    for a, b in zip(theirs.operators, ours.operators, strict=True):
        assert (a.m, a.k, a.n, a.count) == (b.m, b.k, b.n, b.count), b.name
        assert (a.a_bits, a.b_bits, a.out_bits) == (b.a_bits, b.b_bits, b.out_bits), b.name
    assert theirs.live_activation_bytes() == ours.live_activation_bytes()
    assert theirs.weight_bytes == ours.weight_bytes
    assert [op.name for op in theirs.operators][:4] == ["stem", "add", "blocks.0.norm1.layer_norm", "blocks.0.attn.qkv"]


def our_specs() -> list[ModelSpec]:
    task = TaskShape(image=(16, 16), channels=1, classes=5, labels=2)

    def spec(method: str, keep: int | None, bits: tuple[int, int], **settings: int) -> ModelSpec:
        first = BlockSpec(heads=2, mlp_hidden=20, keep_tokens=keep, weight_bits=bits[0], activation_bits=bits[1])
        second = BlockSpec(heads=4, mlp_hidden=9, weight_bits=4, activation_bits=6)
        return ModelSpec(task=task, patch=4, dim=16, blocks=(first, second), token_method=method, **settings)

    return [
        spec("none", None, (8, 8), edge_bits=8),
        spec("none", None, (32, 32)),
        spec("prune", 6, (3, 5), edge_bits=8, overlap=2, stem_hidden=12),
        spec("merge", 10, (2, 7), edge_bits=6, overlap=1),
    ]


@pytest.mark.parametrize("index", range(4))
def test_our_own_models_give_the_products_of_their_spec(index):
    """Shapes, and the widths that the module's own quantisers have."""
    spec = our_specs()[index]
    model = build_model(spec).eval()
    for module in model.modules():
        if isinstance(module, IntegerQuantizer):  # any scale will do
            module.load_state_dict({"scale": torch.ones(module.channels)})
    read = workload_of(model, image(1, 16), weight_bits=32, activation_bits=32)
    said = workload(spec)
    assert read.macs == said.macs
    fields = ("m", "k", "n", "count", "a_bits", "b_bits", "out_bits", "weights")
    ours, theirs = (
        [tuple(getattr(op, name) for name in fields) for op in load.operators if op.macs] for load in (said, read)
    )
    assert theirs == ours
    assert read.weight_bytes == said.weight_bytes
    if spec.token_method == "none":
        assert kinds(read) == kinds(said)
        assert read.live_activation_bytes() == said.live_activation_bytes()


def test_convolutions_are_products_of_unfolded_images():
    load = workload_of(cnn(), image())
    assert products(load) == [
        (32 * 32, 27, 8, 1),
        (30 * 30, 9, 1, 8),  # depthwise: a product for each channel
        (30 * 30, 4, 6, 2),
        (15 * 15, 12, 24, 1),  # transposed: each input pixel makes 2 x 2 outputs of 6 channels
        (1, 6, 5, 1),
    ]
    assert "batch_norm" not in " ".join(op.name for op in load.operators)  # it joins the convolution before it
    depthwise = load.operators[2]
    assert depthwise.weights
    assert {t.name: t.elements for t in load.tensors if t.weight}[depthwise.inputs[-1]] == 72


def test_batch_normalisation_that_cannot_join_a_layer_is_a_scale_and_a_shift():
    load = workload_of(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), image())
    assert kinds(load) == ["relu", "affine"]


def test_weights_stand_on_the_right():
    class Mix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(4, 9))

        def forward(self, x: Tensor) -> Tensor:
            return self.w @ x

    (op,) = workload_of(Mix(), (torch.zeros(1, 9, 6),)).operators
    assert (op.m, op.k, op.n, op.count, op.weights, op.inputs) == (6, 9, 4, 1, True, ("x", "w"))


def test_shared_weights_are_one_tensor_and_derived_ones_are_computed_before():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(8, 8)
            self.a, self.b = nn.Parameter(torch.zeros(8, 2)), nn.Parameter(torch.zeros(2, 8))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.one(self.one(x)), self.a @ self.b)

    load = workload_of(Shared(), (torch.zeros(1, 3, 8),), weight_bits=4)
    assert products(load) == [(3, 8, 8, 1)] * 3
    assert load.weight_bytes == 2 * 64 * 4 // 8


def test_views_name_the_tensor_that_they_look_at():
    class Views(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(x)
            left, right = y.chunk(2, -1)
            return torch.cat((right.transpose(1, 2).reshape(1, 4, 3)[:, :, :2], left.roll(1, 1)[:, :, :2]), 1).sigmoid()

    relu, sigmoid = workload_of(Views(), (torch.zeros(1, 4, 6),)).operators
    assert relu.inputs == ("x",)
    assert sigmoid.inputs == (relu.output,)
    assert sigmoid.elements == 16


def test_choosing_tokens():
    class Choose(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            best = x.mean(2).topk(3, 1).indices
            return x.gather(1, best.unsqueeze(2).expand(-1, -1, 8)) * 2.0

    load = workload_of(Choose(), (torch.zeros(1, 20, 8),))
    assert [(op.kind.value, op.count, op.m, op.n) for op in load.operators] == [
        ("pool", 1, 20, 8),
        ("select", 1, 1, 20),
        ("gather", 1, 3, 8),
    ]
    assert {t.name: t.elements for t in load.tensors}[load.operators[-1].output] == 24


class Apply(nn.Module):
    """Any function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        # kind, repetitions, rows, columns
        (lambda x: x.max(2).values, (1, 6, 4), [("select", 1, 6, 4)]),
        (lambda x: x.argmax(1) * 1.0, (1, 6), [("score", 1, 1, 6)]),
        (lambda x: x.max(), (1, 6, 4), [("pool", 1, 6, 4)]),
        (lambda x: x.var(2), (1, 6, 4), [("score", 1, 6, 4)]),
        (lambda x: x.sort(2).values, (1, 6, 4), [("select", 6, 1, 4)]),
        (lambda x: F.avg_pool2d(x, 3, 1, 1), (1, 2, 6, 6), [("pool", 1, 36, 18)]),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (1, 2, 3, 3), [("score", 1, 36, 8)]),
        (lambda x: F.interpolate(x, scale_factor=2, mode="nearest").relu(), (1, 2, 3, 3), [("relu", 2, 6, 6)]),
        (lambda x: F.silu(x) * x.sigmoid(), (1, 6, 4), [("sigmoid", 1, 6, 4)] * 2 + [("multiply", 1, 6, 4)]),
        (lambda x: F.hardswish(F.elu(x)), (1, 6, 4), [("gelu", 1, 6, 4)] * 2),
        (lambda x: F.hardtanh(x).square(), (1, 6, 4), [("add", 1, 6, 4), ("multiply", 1, 6, 4)]),
        (lambda x: (x.abs() + 1.0).sqrt(), (1, 6, 4), [("relu", 1, 6, 4), ("add", 1, 6, 4), ("power", 1, 6, 4)]),
        (lambda x: F.layer_norm(x, (4,)), (1, 6, 4), [("layernorm", 1, 6, 4)]),
        (lambda x: F.rms_norm(x, (4,)), (1, 6, 4), [("layernorm", 1, 6, 4)]),
        (lambda x: F.instance_norm(x), (1, 2, 3, 3), [("layernorm", 1, 2, 9)]),
        (lambda x: F.log_softmax(x, 1), (1, 6, 4), [("softmax", 1, 4, 6)]),
        (lambda x: x / x.norm(dim=2, keepdim=True), (1, 6, 4), [("score", 1, 6, 4), ("divide", 1, 6, 4)]),
        (lambda x: x / x.exp() + x, (1, 6, 4), [("gelu", 1, 6, 4), ("divide", 1, 24, 1), ("add", 1, 6, 4)]),
        (lambda x: x * 0.5 / 3.0 + 1.0, (1, 6, 4), [("add", 1, 6, 4)]),
        (
            lambda x: torch.zeros(1, 9, 4).scatter_add(1, x.argmax(2, keepdim=True).expand(-1, -1, 4), x),
            (1, 6, 4),
            [("select", 1, 6, 4), ("merge", 1, 6, 4)],
        ),
    ],
)
def test_vector_operators_work_on_what_they_should(function, shape, expected):
    load = workload_of(Apply(function), (torch.randn(shape),))
    assert [(op.kind.value, op.count, op.m, op.n) for op in load.operators] == expected
    result = function(torch.randn(shape))
    assert {tensor.name: tensor.elements for tensor in load.tensors}[load.operators[-1].output] == result.numel()


def test_fewer_heads_of_keys_than_of_queries():
    class Grouped(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    load = workload_of(Grouped(), (torch.randn(1, 4, 5, 8), torch.randn(1, 2, 7, 8)))
    assert products(load) == [(5, 8, 7, 4), (5, 7, 8, 4)]


def test_lookups_by_constants_are_reads_in_another_order():
    class Bias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)
            self.register_buffer("order", torch.tensor([2, 0, 1]))

        def forward(self, x: Tensor) -> Tensor:
            return x[:, self.order] + self.table(torch.arange(3))

    (op,) = workload_of(Bias(), (torch.zeros(1, 3, 4),)).operators
    assert (op.kind, op.inputs) == (OperatorKind.ADD, ("x",))


def test_widths_follow_the_readers():
    load = workload_of(Vit(depth=1), image(), weight_bits=4, activation_bits=6)
    bits = {tensor.name: tensor.bits for tensor in load.tensors}
    assert bits["images"] == bits["blocks.0.attn.qkv"] == 6
    assert bits["blocks.0.attn.scores"] == bits["add"] == 16
    assert bits["stem.weight"] == 4
    assert bits[load.operators[-1].output] == 32
    float_load = workload_of(Vit(depth=1), image(), weight_bits=32, activation_bits=32)
    assert {tensor.bits for tensor in float_load.tensors} == {32}


def test_torchs_own_fake_quantisers_give_widths():
    class Fake(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(4, 8))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(
                torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -16, 15),
                torch.fake_quantize_per_tensor_affine(self.w, 0.1, 0, -4, 3),
            )

    (op,) = workload_of(Fake(), (torch.zeros(1, 8),)).operators
    assert (op.a_bits, op.b_bits) == (5, 3)


def test_a_module_comes_back_as_it_was():
    module = Vit()
    module.train()
    module.blocks[0].eval()
    before = [part.training for part in module.modules()]
    workload_of(module, image())
    assert [part.training for part in module.modules()] == before
    assert not all(before)


def test_costs_can_be_estimated():
    array = SystolicArray(
        rows=16,
        cols=16,
        dataflow="ws",
        ifmap_kib=64,
        filter_kib=64,
        ofmap_kib=64,
        dram_bytes_per_s=4e9,
        clock_hz=500e6,
    )
    for make, inputs in (CASES["vit, fused attention"], CASES["convolutions"]):
        load = workload_of(make(), inputs)
        cost = estimate(load, array, technology("horowitz_45nm"))
        assert sum(op.macs for op in cost.operators) == load.macs
        assert math.isfinite(cost.latency_s)
        assert cost.latency_s > load.macs / (16 * 16 * 500e6)
        assert 0 < cost.utilisation < 1
