"""How libraries name the parameters of a vision transformer, and one set of names for all of them.

A table has the library's name on the left and ours on the right; ``#`` stands for a block's number, ``*`` for
``weight`` or ``bias``. Names were taken from timm 1.0.31 (``timm/models/vision_transformer.py``; DeiT's own code has
the same), transformers (``models/vit/modeling_vit.py`` at 005db82) and torchvision 0.28.0
(``models/vision_transformer.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cosearch.errors import UserError

__all__ = ["NAMINGS", "Naming", "Renamed", "renamed"]

_LISTED = 8
"""Parameters that an error names."""

_WRAPPERS = ("module.", "model.", "_orig_mod.")
"""In front of every name, by torch's DistributedDataParallel, by training frameworks, by torch.compile."""

_WHY = {
    "dist_token": "a distillation token, and with it a second head",
    "distillation_token": "a distillation token, and with it a second head",
    "head_dist": "a distillation token, and with it a second head",
    "reg_token": "register tokens",
    "q_norm": "normalised queries and keys",
    "k_norm": "normalised queries and keys",
    "norm_pre": "a normalisation before the first block",
    "pooler": "a pooler",
    "pre_logits": "a layer before the head",
    "relative_position_bias_table": "relative position biases",
    "gamma_1": "BEiT's layer scale",
    "mask_token": "a mask token, of a model that was not made to classify",
    "attn_pool": "attention pooling",
}
"""What a part of a name stands for, where the model here has no place for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """A library's names.

    Attributes:
        name: the library.
        mark: the end of a name that tells the library.
        table: name there, name here, a line each.
        epsilon: that LayerNorm adds to the variance in the library's vision transformers, unless one says otherwise.
    """

    name: str
    mark: str
    table: str
    epsilon: float

    def rules(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        """Returns patterns for the library's names, and what our name expands from a match."""
        made = []
        for line in self.table.split("\n"):
            if not line.strip():
                continue
            theirs, ours = line.split()
            pattern = re.escape(theirs).replace(r"\#", r"(?P<block>\d+)").replace(r"\*", r"(?P<kind>weight|bias)")
            made.append((re.compile(pattern), ours.replace("#", r"\g<block>").replace("*", r"\g<kind>")))
        return tuple(made)


NAMINGS = (
    Naming(
        name="timm",
        mark="patch_embed.proj.weight",
        epsilon=1e-6,
        table="""
            cls_token             class_token
            pos_embed             position
            patch_embed.proj.*    stem.*
            blocks.#.norm1.*      blocks.#.norm1.*
            blocks.#.attn.qkv.*   blocks.#.qkv.*
            blocks.#.attn.proj.*  blocks.#.proj.*
            blocks.#.ls1.gamma    blocks.#.scale1
            blocks.#.norm2.*      blocks.#.norm2.*
            blocks.#.mlp.fc1.*    blocks.#.fc1.*
            blocks.#.mlp.fc2.*    blocks.#.fc2.*
            blocks.#.ls2.gamma    blocks.#.scale2
            norm.*                norm.*
            fc_norm.*             fc_norm.*
            head.*                head.*
        """,
    ),
    Naming(
        name="transformers",
        mark="embeddings.patch_embeddings.projection.weight",
        epsilon=1e-12,
        table="""
            vit.embeddings.cls_token                            class_token
            vit.embeddings.position_embeddings                  position
            vit.embeddings.patch_embeddings.projection.*        stem.*
            vit.encoder.layer.#.layernorm_before.*              blocks.#.norm1.*
            vit.encoder.layer.#.attention.attention.query.*     blocks.#.q.*
            vit.encoder.layer.#.attention.attention.key.*       blocks.#.k.*
            vit.encoder.layer.#.attention.attention.value.*     blocks.#.v.*
            vit.encoder.layer.#.attention.output.dense.*        blocks.#.proj.*
            vit.encoder.layer.#.layernorm_after.*               blocks.#.norm2.*
            vit.encoder.layer.#.intermediate.dense.*            blocks.#.fc1.*
            vit.encoder.layer.#.output.dense.*                  blocks.#.fc2.*
            vit.layernorm.*                                     norm.*
            classifier.*                                        head.*
        """,
    ),
    Naming(
        name="torchvision",
        mark="conv_proj.weight",
        epsilon=1e-6,
        table="""
            class_token                                                 class_token
            encoder.pos_embedding                                       position
            conv_proj.*                                                 stem.*
            encoder.layers.encoder_layer_#.ln_1.*                       blocks.#.norm1.*
            encoder.layers.encoder_layer_#.self_attention.in_proj_*     blocks.#.qkv.*
            encoder.layers.encoder_layer_#.self_attention.out_proj.*    blocks.#.proj.*
            encoder.layers.encoder_layer_#.ln_2.*                       blocks.#.norm2.*
            encoder.layers.encoder_layer_#.mlp.0.*                      blocks.#.fc1.*
            encoder.layers.encoder_layer_#.mlp.linear_1.*               blocks.#.fc1.*
            encoder.layers.encoder_layer_#.mlp.3.*                      blocks.#.fc2.*
            encoder.layers.encoder_layer_#.mlp.linear_2.*               blocks.#.fc2.*
            encoder.ln.*                                                norm.*
            heads.head.*                                                head.*
        """,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Renamed:
    """A model's parameters under our names.

    Attributes:
        naming: the library's names that it had.
        tensors: by our names, those on the right of the tables.
    """

    naming: Naming
    tensors: Mapping[str, Tensor]

    def theirs(self, name: str) -> str:
        """Returns what the library calls the parameter that is called ``name`` here."""
        block, kind = re.search(r"\d+", name), name.rpartition(".")[2]
        for line in self.naming.table.split("\n"):
            parts = line.split()
            if not parts:
                continue
            filled = [part.replace("#", block[0] if block else "#").replace("*", kind) for part in parts]
            if filled[1] == name:
                return filled[0]
        return name


def renamed(tensors: Mapping[str, Tensor]) -> Renamed:
    """Returns a model's parameters under our names.

    Raises:
        UserError: the names are no known library's, or some have no place in a plain vision transformer.
    """
    plain = _unwrapped(tensors)
    naming = next((found for found in NAMINGS if any(name.endswith(found.mark) for name in plain)), None)
    if naming is None:
        raise UserError(
            f"parameters named {_listed(list(plain))} are no known vision transformer's; rename them as one of "
            + ", ".join(f"{found.name} ({found.mark})" for found in NAMINGS)
        )
    rules, ours, unknown = naming.rules(), dict[str, Tensor](), list[str]()
    for name, tensor in plain.items():
        match = next(((m, own) for pattern, own in rules if (m := pattern.fullmatch(name))), None)
        if match is None:
            unknown.append(name)
        else:
            ours[match[0].expand(match[1])] = tensor
    if unknown:
        why = sorted({why for part, why in _WHY.items() if any(part in name.split(".") for name in unknown)})
        what = f" ({', '.join(why)})" if why else ""
        raise UserError(
            f"parameters {_listed(unknown)}{what} have no place in a plain vision transformer; adopt a model without "
            "them, or leave them out if its forward does not use them"
        )
    return Renamed(naming=naming, tensors=ours)


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the parameters without what stands in front of every name."""
    found = dict(tensors)
    for _ in range(len(_WRAPPERS)):
        for wrapper in _WRAPPERS:
            if found and all(name.startswith(wrapper) for name in found):
                found = {name.removeprefix(wrapper): tensor for name, tensor in found.items()}
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
