"""A trained vision transformer of another library becomes ours with the same logits."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from cosearch.errors import SpecError, UserError
from cosearch.imported import (
    adopt,
    adopted_from_file,
    adopted_from_reference,
    adopted_to_bytes,
    as_model,
    with_pixels_of,
)
from cosearch.model import build_model
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.train import model_from_file


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(2, 3) / (dim // self.num_heads) ** 0.5).softmax(3)
        return self.proj((attention @ v).transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.act = F.gelu

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(dim) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Layer(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int, eps: float, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim, hidden)
        self.ls1 = LayerScale(dim) if scaled else nn.Identity()
        self.ls2 = LayerScale(dim) if scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Timm(nn.Module):
    """A vision transformer under timm's names, written from its description."""

    def __init__(
        self,
        *,
        image: tuple[int, int] = (16, 16),
        channels: int = 3,
        dim: int = 24,
        depth: int = 2,
        heads: int = 3,
        hidden: int = 40,
        classes: int = 10,
        eps: float = 1e-6,
        scaled: bool = False,
        pool: str = "class",
        class_position: bool = True,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(channels, dim, 4, 4)
        patches = image[0] // 4 * (image[1] // 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, patches + class_position, dim) * 0.02)
        self.blocks = nn.ModuleList(Layer(dim, heads, hidden, eps, scaled) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=eps) if pool == "class" else nn.Identity()
        self.fc_norm = nn.LayerNorm(dim, eps=eps) if pool == "mean" else nn.Identity()
        self.head = nn.Linear(dim, classes)
        self.pool, self.class_position = pool, class_position

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        token = self.cls_token.expand(len(x), -1, -1)
        if self.class_position:
            x = torch.cat((token, x), 1) + self.pos_embed
        else:
            x = torch.cat((token, x + self.pos_embed), 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(self.fc_norm(x[:, 0] if self.pool == "class" else x[:, 1:].mean(1)))


def logits(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return module.eval()(images).flatten(1)


def images(task: TaskShape, seed: int = 1) -> Tensor:
    return torch.randn(3, task.channels, *task.image, generator=torch.Generator().manual_seed(seed))


def transformers_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns timm's parameters under the names of transformers."""
    said = (
        ("cls_token", "vit.embeddings.cls_token"),
        ("pos_embed", "vit.embeddings.position_embeddings"),
        ("patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("attn.proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
        ("head", "classifier"),
    )
    found = {}
    for name, tensor in tensors.items():
        new = re.sub(r"^blocks\.", "vit.encoder.layer.", name)
        new = re.sub(r"^norm\.", "vit.layernorm.", new)
        for old, other in said:
            new = new.replace(old, other) if f".{old}." in f".{new}." else new
        if "attn.qkv" in new:
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[new.replace("attn.qkv", f"attention.attention.{part}")] = value
        else:
            found[new] = tensor
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels": 1, "classes": 20, "depth": 1},
        {"scaled": True},
        {"eps": 1e-5},
        {"eps": 1e-12},
        {"pool": "mean"},
        {"class_position": False},
        {"image": (16, 8)},
    ],
    ids=str,
)
def test_the_same_logits(options):
    module = Timm(**options)
    adopted = adopt(module, image=options.get("image"))
    task = adopted.spec.task
    assert (task.image, task.channels) == (options.get("image", (16, 16)), options.get("channels", 3))
    assert (adopted.spec.patch, adopted.spec.dim, len(adopted.spec.blocks)) == (4, 24, options.get("depth", 2))
    assert {(block.heads, block.mlp_hidden) for block in adopted.spec.blocks} == {(3, 40)}
    wanted = logits(module, images(task))
    torch.testing.assert_close(logits(as_model(adopted), images(task)), wanted, rtol=1e-5, atol=1e-5)


def test_the_epsilon_of_layernorm_matters():
    """The test above would see it: a stream as small as an untrained model's feels the difference of 1e-6 and 1e-5."""
    module = Timm(eps=1e-5)
    task = adopt(module).spec.task
    other = as_model(adopt(module.state_dict(), heads=3, epsilon=1e-6))
    assert (logits(other, images(task)) - logits(module, images(task))).abs().max() > 1e-4


def test_labels_share_the_head():
    module = Timm(classes=20)
    adopted = adopt(module, labels=2)
    assert (adopted.spec.task.labels, adopted.spec.task.classes) == (2, 10)
    assert as_model(adopted)(images(adopted.spec.task)).shape == (3, 2, 10)
    with pytest.raises(SpecError, match="labels is 3, but the head has 20 outputs"):
        adopt(module, labels=3)


def test_parameters_alone_need_heads():
    module = Timm()
    with pytest.raises(SpecError, match="heads cannot be told from parameters; give it"):
        adopt(module.state_dict())
    adopted = adopt(module.state_dict(), heads=3)
    x = images(adopted.spec.task)
    torch.testing.assert_close(logits(as_model(adopted), x), logits(module, x), rtol=1e-5, atol=1e-5)
    other = adopt(module.state_dict(), heads=2)
    assert (logits(as_model(other), x) - logits(module, x)).abs().max() > 1e-4


def test_the_guess_of_heads_is_offered():
    with pytest.raises(SpecError, match="with 64 channels a head, as in ViT and DeiT, it is 2"):
        adopt(Timm(dim=128, heads=4, depth=1).state_dict())


def test_names_of_transformers_and_their_epsilon():
    module = Timm(eps=1e-12)
    tensors = transformers_names(dict(module.state_dict()))
    assert "vit.encoder.layer.1.attention.attention.key.bias" in tensors
    adopted = adopt(tensors, heads=3)
    assert adopted.origin == "transformers"
    x = images(adopted.spec.task)
    torch.testing.assert_close(logits(as_model(adopted), x), logits(module, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrapper", ["module.", "model.", "module.model."])
def test_wrapped_names(wrapper):
    tensors = {wrapper + name: tensor for name, tensor in Timm().state_dict().items()}
    assert adopt(tensors, heads=3).origin == "timm"


def test_half_precision_becomes_single():
    adopted = adopt({name: tensor.half() for name, tensor in Timm().state_dict().items()}, heads=3)
    assert {tensor.dtype for tensor in adopted.weights.values()} == {torch.float32}


def broken(**changes: Tensor | None) -> dict[str, Tensor]:
    tensors = dict(Timm().state_dict())
    for name, tensor in changes.items():
        tensors.pop(name) if tensor is None else tensors.update({name: tensor})
    return tensors


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reg_token": torch.zeros(1, 4, 24)}, r"parameters reg_token \(register tokens\) have no place"),
        ({"blocks.0.attn.q_norm.weight": torch.ones(8)}, "normalised queries and keys"),
        ({"blocks.0.foo": torch.ones(8)}, "parameters blocks.0.foo have no place"),
        ({"blocks.1.mlp.fc2.weight": None}, "blocks.1.mlp.fc2.weight is missing"),
        ({"cls_token": None}, "cls_token is missing; adopt a model that has one"),
        ({"head.weight": None}, "head.weight is missing"),
        ({"blocks.1.attn.qkv.weight": torch.ones(48, 24)}, r"blocks.1.attn.qkv.weight has shape \(48, 24\), not \(72"),
        ({"pos_embed": torch.ones(1, 12, 24)}, "cannot be told from 12 positions"),
        ({"patch_embed.proj.weight": torch.ones(24, 3, 4, 2)}, "not a convolution with a square kernel"),
    ],
)
def test_what_has_no_place_is_named(changes, said):
    with pytest.raises(UserError, match=said):
        adopt(broken(**changes), heads=3)


def test_unknown_names():
    with pytest.raises(UserError, match="parameters named weight, bias are no known vision transformer's"):
        adopt(nn.Linear(2, 2))


def test_an_image_that_the_positions_do_not_fit():
    with pytest.raises(
        SpecError, match="image is 32 x 32, which has 64 patches of 4 pixels, but there are 17 positions"
    ):
        adopt(Timm(), image=(32, 32))


def test_a_module_that_computes_something_else():
    module = Timm()
    for block in module.blocks:
        block.mlp.act = F.silu
    with pytest.raises(UserError, match="the module computes something else than the plain vision transformer"):
        adopt(module)
    assert module.training, "the module is left in its mode"


def test_epsilons_that_differ():
    module = Timm()
    module.norm.eps = 1e-5
    with pytest.raises(UserError, match=r"add \[1e-06, 1e-05\] to the variance"):
        adopt(module)


def test_pixels_of_another_mean():
    module = Timm()
    module.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
    adopted = adopt(module)
    assert (adopted.mean, adopted.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    pixels = torch.rand(2, 3, 16, 16)
    mean, std = torch.tensor(adopted.mean).view(3, 1, 1), torch.tensor(adopted.std).view(3, 1, 1)
    ours = as_model(with_pixels_of(adopted, (0.1, 0.2, 0.3), (0.7, 0.8, 0.9)))
    seen = (pixels - torch.tensor((0.1, 0.2, 0.3)).view(3, 1, 1)) / torch.tensor((0.7, 0.8, 0.9)).view(3, 1, 1)
    wanted = logits(module, (pixels - mean) / std)
    torch.testing.assert_close(logits(ours, seen), wanted, rtol=1e-5, atol=1e-5)
    assert with_pixels_of(adopt(Timm()), (0.1,) * 3, (0.7,) * 3).weights.keys() == adopted.weights.keys()


def test_pixels_of_a_padded_image():
    spec = ModelSpec(
        task=TaskShape(image=(8, 8), channels=1, classes=10),
        patch=4,
        dim=8,
        overlap=2,
        blocks=(BlockSpec(heads=2, mlp_hidden=8),),
    )
    adopted = dataclasses.replace(adopt(Timm()), spec=spec, weights=build_model(spec).state_dict())
    with pytest.raises(SpecError, match="overlap is 2, so images are padded with zeros"):
        with_pixels_of(adopted, (0.5,), (0.5,), said=((0.4,), (0.5,)))


# files


def test_a_file_holds_all(tmp_path):
    module = Timm()
    module.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
    adopted = adopt(module)
    path = tmp_path / "model.safetensors"
    path.write_bytes(adopted_to_bytes(adopted))
    assert {adopted_to_bytes(adopted) for _ in range(8)} == {path.read_bytes()}
    again = adopted_from_file(path)
    assert (again.spec, again.mean, again.std, again.origin) == (adopted.spec, adopted.mean, adopted.std, "cosearch")
    x = images(adopted.spec.task)
    torch.testing.assert_close(logits(as_model(again), x), logits(module, x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(model_from_file(path), x), logits(module, x), rtol=1e-5, atol=1e-5)


def test_references(tmp_path):
    save_file(Timm().state_dict(), tmp_path / "plain.safetensors")
    found = adopted_from_reference(str(tmp_path / "plain.safetensors"), heads=3)
    assert found.spec == adopt(Timm()).spec
    (tmp_path / "own.safetensors").write_bytes(adopted_to_bytes(found))
    assert adopted_from_reference(str(tmp_path / "own.safetensors")).spec == found.spec
    nets = tmp_path / "nets.py"
    nets.write_text("import torch\ndef make():\n    return torch.nn.Linear(2, 2)\n")
    with pytest.raises(UserError, match="no known vision transformer's"):
        adopted_from_reference(f"{nets}:make")


def test_no_pickle_is_opened(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"never read")
    with pytest.raises(UserError, match="may be a pickle, which can run anything; save it as safetensors"):
        adopted_from_reference(str(path))


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        adopted_from_file(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(UserError, match="is no safetensors file"):
        adopted_from_file(tmp_path / "text.safetensors")
    save_file(Timm().state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="cosearch adopt"):
        adopted_from_file(tmp_path / "plain.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "odd.safetensors", metadata={"cosearch.model": '{"dim": 3}'})
    with pytest.raises(UserError, match="a model's spec that makes no sense"):
        adopted_from_file(tmp_path / "odd.safetensors")
    text = json.dumps(
        {
            "task": {"image": [8, 8], "channels": 1, "classes": 10},
            "patch": 4,
            "dim": 8,
            "blocks": [{"heads": 2, "mlp_hidden": 8}],
        }
    )
    save_file({"a": torch.ones(1)}, tmp_path / "few.safetensors", metadata={"cosearch.model": text})
    with pytest.raises(SpecError, match=r"few.safetensors: .* is missing"):
        adopted_from_file(tmp_path / "few.safetensors")
