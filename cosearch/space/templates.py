"""Which fields the sections of a space file have, and what they may hold."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args, get_origin, get_type_hints

from cosearch.formats import NUMBER_FORMATS
from cosearch.space.document import Rule
from cosearch.spec import FLOAT_BITS, MIXERS, MLPS, NORMS, POOLS, TOKEN_METHODS

__all__ = ["MODEL_RULES", "SPARSITIES", "TRAIN", "accelerator_rules"]

TRAIN = "train_"
"""What the names of fields that change a model's recipe begin with."""

SPARSITIES = ("1:1", "1:2", "2:4", "1:4", "4:8", "2:8", "1:8")
"""N:M sparsities that weights can have, 1:1 for none."""

_BITS = "integers have 2 to 16 bits, and 32 stands for floating point"


def _bits(name: str, description: str, per: str) -> Rule:
    return Rule(
        name=name,
        kind=int,
        description=f"{description}: 2 to 16, or {FLOAT_BITS} for floating point.",
        need=_BITS,
        low=2,
        high=16,
        also=(FLOAT_BITS,),
        per=per,
        default=FLOAT_BITS,
    )


def _format(name: str, description: str, per: str) -> Rule:
    signed = tuple(found.name for found in NUMBER_FORMATS.values() if found.signed and found.name != "ternary_packed")
    return Rule(
        name=f"{name}_format",
        kind=str,
        description=f"{description}; in place of {name}_bits.",
        options=("", *signed),
        per=per,
        default="",
    )


def _one_of(name: str, description: str, options: Iterable[str], default: str, per: str = "") -> Rule:
    known = tuple(options)
    text = f"{description}: one of {', '.join(known)}."
    return Rule(name=name, kind=str, description=text, options=known, default=default, per=per)


def _trained(name: str, kind: type, low: float, high: float, need: str) -> Rule:
    return Rule(
        name=f"{TRAIN}{name}",
        kind=kind,
        description=f"The recipe's {name}, as part of the candidate.",
        need=need,
        low=low,
        high=high,
    )


def _whole(name: str, low: int, need: str, description: str, default: int | None = None, per: str = "") -> Rule:
    return Rule(
        name=name,
        kind=int,
        description=description,
        need=need,
        low=low,
        default=default,
        required=default is None,
        per=per,
    )


_VIT = (
    _whole("patch", 1, "a patch has at least 1 pixel a side", "Side of a patch and stride of the stem, in pixels."),
    _whole("overlap", 0, "an overlap is 0 or more", "Pixels by which a patch reaches into its neighbours.", 0),
    _whole("stem_hidden", 0, "it is 0 or more", "Hidden units of a two-layer stem; 0 is one linear projection.", 0),
    _whole("dim", 1, "a token has at least 1 value", "Width of a token."),
    _whole("depth", 1, "a model has at least 1 block", "Number of transformer blocks."),
    _one_of("mixer", "How tokens are mixed", MIXERS, "softmax", "block"),
    _whole("heads", 1, "attention has at least 1 head", "Attention heads; they divide dim.", per="block"),
    _whole("query_heads", 0, "it is 0 or more", "Heads that ask; 0 for all.", 0, "block"),
    _whole("kv_heads", 0, "it is 0 or more", "Heads of keys and values; 0 for as many as ask.", 0, "block"),
    _one_of("mlp", "Kind of MLP", MLPS, "gelu", "block"),
    Rule(
        name="mlp_ratio",
        kind=float,
        description="Hidden units of the MLP, as a multiple of dim.",
        need="an MLP has hidden units",
        low=1e-3,
        per="block",
        required=True,
    ),
    _whole("rank", 0, "it is 0 or more", "Rank of a block's linear layers; 0 leaves them whole.", 0, "block"),
    _one_of("sparsity", "Weights that are kept of each group", SPARSITIES, "1:1", "block"),
    _one_of("norm", "Kind of normalisation", NORMS, "layernorm"),
    _one_of("pool", "What the head reads", POOLS, "class"),
    _one_of("token_method", "How tokens are reduced", TOKEN_METHODS, "none"),
    Rule(
        name="stages",
        kind=int,
        description="Stages that the blocks are cut into; tokens are reduced at the end of each but the last.",
        need="there is at least 1 stage",
        low=1,
        default=1,
        constant=True,
    ),
    Rule(
        name="keep",
        kind=float,
        description="Share of the image tokens that goes on after a stage.",
        need="a keep ratio is above 0 and at most 1",
        low=1e-3,
        high=1,
        per="stage",
        default=1.0,
    ),
    _bits("weight_bits", "Width of a block's weights", "block"),
    _bits("activation_bits", "Width of the inputs of a block's matrix products", "block"),
    _bits("edge_bits", "Width of weights and inputs of the stem and the head", ""),
    _format("weight", "Number format of a block's weights", "block"),
    _format("activation", "Number format of the inputs of a block's matrix products", "block"),
    _format("edge", "Number format of weights and inputs of the stem and the head", ""),
    _trained("steps", int, 1, math.inf, "a training has at least 1 step"),
    _trained("optimizer", str, 0, 0, ""),
    _trained("lr", float, 1e-12, math.inf, "a learning rate is above 0"),
    _trained("matrix_lr", float, 1e-12, math.inf, "a learning rate is above 0"),
    _trained("weight_decay", float, 0, math.inf, "it is 0 or more"),
    _trained("label_smoothing", float, 0, 0.999, "it is 0 to below 1"),
    _trained("shift", int, 0, math.inf, "it is 0 or more"),
    _trained("mixup", float, 0, 1, "it is a share, 0 to 1"),
    _trained("cutmix", float, 0, 1, "it is a share, 0 to 1"),
    _trained("erase", float, 0, 1, "it is a share, 0 to 1"),
    _trained("distill", float, 0, 1, "it is a weight, 0 to 1"),
    _trained("reduce_from", float, 0, 1, "it is a share, 0 to 1"),
    _trained("quantise_from", float, 0, 1, "it is a share, 0 to 1"),
)

MODEL_RULES: Mapping[str, tuple[Rule, ...]] = {"vit": _VIT}
"""Fields of each model template."""


def accelerator_rules(template: type) -> tuple[Rule, ...]:
    """Returns the rules of an accelerator template: the fields of the frozen dataclass ``template``.

    Types and defaults are the dataclass's, descriptions those under ``Attributes:`` in its docstring.
    """
    hints = get_type_hints(template)
    described = _descriptions(inspect.getdoc(template) or "")
    rules = []
    for item in dataclasses.fields(template):
        hint = hints[item.name]
        options = get_args(hint) if get_origin(hint) is Literal else ()
        required = item.default is dataclasses.MISSING
        rules.append(
            Rule(
                name=item.name,
                kind=type(options[0]) if options else hint,
                description=described.get(item.name, ""),
                options=options,
                default=None if item.default is dataclasses.MISSING else item.default,
                required=required,
            )
        )
    return tuple(rules)


def _descriptions(doc: str) -> dict[str, str]:
    body = doc.partition("Attributes:\n")[2].partition("\n\n")[0]
    out: dict[str, str] = {}
    name = ""
    for line in body.splitlines():
        start = re.match(r" {4}(\w+): (.*)", line)
        if start:
            name = start[1]
            out[name] = start[2].strip()
        elif name:
            out[name] += " " + line.strip()
    return {key: text[:1].upper() + text[1:] for key, text in out.items()}
