"""Vision transformers as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cosearch.formats import NUMBER_FORMATS, number_format
from cosearch.spec._json import Scalar, ident, require
from cosearch.spec._methods import MIXERS, MLPS, NORMS, POOLS, TOKEN_METHODS

__all__ = ["FLOAT_BITS", "BlockSpec", "ModelSpec", "TaskShape", "bits_and_format", "layer_rank"]

FLOAT_BITS = 32
"""Operand width that means IEEE single precision: not quantised."""

_DENSE = (1, 1)


def bits_and_format(name: str) -> tuple[int, str]:
    """Returns how specs write the number format called ``name``: its bits, and its name unless bits say it all.

    >>> bits_and_format("int4"), bits_and_format("fp32"), bits_and_format("mxfp4")
    ((4, ''), (32, ''), (4, 'mxfp4'))

    Raises:
        NotFoundError: no format has this name.
    """
    found = number_format(name)
    plain = (found.family == "integer" and found.signed) or name == "fp32"
    return found.bits, "" if plain else name


def layer_rank(rank: int, inputs: int, outputs: int) -> int:
    """Returns the rank of a linear layer in a block of ``rank``; 0 where the layer stays whole.

    A layer is two factors only where these hold fewer weights: ``rank * (inputs + outputs) < inputs * outputs``.
    """
    return rank if 0 < rank * (inputs + outputs) < inputs * outputs else 0


def _check_name(field: str, name: str, known: Iterable[str]) -> None:
    require(name in known, field, f"is {name!r}", f"choose one of {', '.join(known)}")


def _check_width(field: str, bits: int, name: str) -> None:
    require(
        2 <= bits <= 16 or bits == FLOAT_BITS,
        f"{field}_bits",
        f"is {bits}, but integers have 2 to 16 bits",
        f"write 2 to 16, or {FLOAT_BITS} for floating point",
    )
    if not name:
        return
    where = f"{field}_format"
    require(name in NUMBER_FORMATS, where, f"is {name!r}", f"choose one of {', '.join(NUMBER_FORMATS)}")
    wanted = bits_and_format(name)
    require(wanted[1] == name, where, f"is {name!r}, which {field}_bits says by itself", "leave it out")
    require(wanted[0] == bits, where, f"is {name!r}, but {field}_bits is {bits}", f"write {field}_bits {wanted[0]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskShape:
    """What a task asks of a model.

    Attributes:
        image: height and width in pixels.
        channels: colour channels.
        classes: classes per label.
        labels: labels to read from one image (two for a pair of digits); the head has ``labels * classes`` outputs.
    """

    image: tuple[int, int]
    channels: int
    classes: int
    labels: int = 1

    def __post_init__(self) -> None:
        require(min(self.image) >= 1, "image", f"is {self.image}", "give height and width of at least 1 pixel")
        require(self.channels >= 1, "channels", f"is {self.channels}", "write at least 1")
        require(self.classes >= 2, "classes", f"is {self.classes}", "a task needs at least 2 classes")
        require(self.labels >= 1, "labels", f"is {self.labels}", "a task needs at least 1 label an image")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """One transformer block: token mixer, then token reduction (if any), then the MLP.

    Attributes:
        heads: heads of the mixer; a head is ``dim / heads`` wide. 1 for a mixer without heads.
        mlp_hidden: hidden units of the MLP; 0 where there is none.
        keep_tokens: image tokens (without the class token) that go on to this block's MLP and to later blocks,
            a fused remainder included; ``None`` keeps all. Of a method with core tokens, how many there are, in the
            first block alone.
        weight_bits: width of the block's weights, 2-16, or 32 for floating point.
        activation_bits: width of the inputs of the block's matrix products, likewise.
        weight_format: number format of the weights, a name in `cosearch.formats.NUMBER_FORMATS`, its width in
            ``weight_bits``; empty for an integer, or for single precision at 32.
        activation_format: number format of the inputs of matrix products, likewise.
        mixer: how tokens are mixed; a name in `MIXERS`.
        query_heads: heads that ask; 0 for all (SQA: Filipczuk et al. 2025, "Sparse Query Attention",
            https://arxiv.org/abs/2510.01817). The map, the context and the projection after it shrink with them.
        kv_heads: heads of keys and values, each shared by as many query heads; 0 for as many as ask (GQA: Ainslie et
            al. 2023, https://arxiv.org/abs/2305.13245).
        mlp: kind of MLP; a name in `MLPS`.
        rank: rank of the block's linear layers, each a product of two where that holds fewer weights (`layer_rank`;
            MCUFormer: Liang et al. 2023, https://arxiv.org/abs/2310.16898); 0 leaves them whole.
        sparsity: (kept, of): of each ``of`` weights in a row of inputs at most ``kept`` are not zero.
    """

    heads: int
    mlp_hidden: int
    keep_tokens: int | None = None
    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS
    weight_format: str = ""
    activation_format: str = ""
    mixer: str = "softmax"
    query_heads: int = 0
    kv_heads: int = 0
    mlp: str = "gelu"
    rank: int = 0
    sparsity: tuple[int, int] = _DENSE

    def __post_init__(self) -> None:
        require(self.heads >= 1, "heads", f"is {self.heads}", "write at least 1")
        require(
            self.keep_tokens is None or self.keep_tokens >= 1,
            "keep_tokens",
            f"is {self.keep_tokens}",
            "keep at least 1 token, or leave it out to keep all",
        )
        _check_width("weight", self.weight_bits, self.weight_format)
        _check_width("activation", self.activation_bits, self.activation_format)
        _check_name("mixer", self.mixer, MIXERS)
        _check_name("mlp", self.mlp, MLPS)
        if self.mlp == "none":
            require(self.mlp_hidden == 0, "mlp_hidden", f"is {self.mlp_hidden}, but there is no MLP", "write 0")
        else:
            require(self.mlp_hidden >= 1, "mlp_hidden", f"is {self.mlp_hidden}", "write at least 1 hidden unit")
        self._check_heads()
        require(self.rank >= 0, "rank", f"is {self.rank}", "write 1 or more, or 0 for whole layers")
        kept, of = self.sparsity
        require(
            1 <= kept < of <= 32 or self.sparsity == _DENSE,
            "sparsity",
            f"is {kept}:{of}",
            "write N:M with N below M and M of at most 32, such as 2:4, or 1:1 for dense weights",
        )

    def _check_heads(self) -> None:
        if not MIXERS[self.mixer].heads:
            require(self.heads == 1, "heads", f"is {self.heads}, but mixer {self.mixer!r} has none", "write 1")
        for name in ("query_heads", "kv_heads"):
            count = getattr(self, name)
            require(
                count == 0 or MIXERS[self.mixer].map,
                name,
                f"is {count}, but mixer {self.mixer!r} forms no attention map",
                "leave it out, or take softmax or sigmoid",
            )
        asked = self.query_heads or self.heads
        require(
            0 <= self.query_heads < self.heads,
            "query_heads",
            f"is {self.query_heads} of {self.heads}",
            f"write 1 to {self.heads - 1}, or leave it out for all" if self.heads > 1 else "leave it out for all",
        )
        require(
            0 <= self.kv_heads < asked and asked % (self.kv_heads or 1) == 0,
            "kv_heads",
            f"is {self.kv_heads}, but {asked} {'head asks' if asked == 1 else 'heads ask'}",
            f"write a divisor of {asked} below it, or leave it out for as many"
            if asked > 1
            else "leave it out for as many",
        )

    @property
    def weights_in(self) -> str:
        """Name of the number format of the weights."""
        return _format_name(self.weight_bits, self.weight_format)

    @property
    def activations_in(self) -> str:
        """Name of the number format of the inputs of matrix products."""
        return _format_name(self.activation_bits, self.activation_format)


def _format_name(bits: int, name: str) -> str:
    return name or ("fp32" if bits == FLOAT_BITS else f"int{bits}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A vision transformer with static token counts.

    Attributes:
        task: the images it reads and the labels it gives.
        patch: side of a patch and stride of the stem, in pixels.
        dim: width of a token.
        blocks: the blocks, in order.
        token_method: how blocks with ``keep_tokens`` reduce their tokens; a name in `TOKEN_METHODS`.
        overlap: pixels by which a patch reaches into its neighbours on each side (the stem's kernel has
            ``patch + 2 * overlap`` pixels a side, zero-padded by ``overlap``).
        stem_hidden: hidden units of a two-layer stem; 0 is ViT's single linear projection.
        edge_bits: width of weights and inputs of the stem and the head.
        edge_format: their number format, as `BlockSpec.weight_format`.
        norm: kind of normalisation; a name in `NORMS`.
        pool: what the head reads; a name in `POOLS`.
        training: (field, value) pairs, sorted by field, that replace fields of the recipe that it is trained by.
    """

    task: TaskShape
    patch: int
    dim: int
    blocks: tuple[BlockSpec, ...]
    token_method: str = "none"
    overlap: int = 0
    stem_hidden: int = 0
    edge_bits: int = FLOAT_BITS
    edge_format: str = ""
    norm: str = "layernorm"
    pool: str = "class"
    training: tuple[tuple[str, Scalar], ...] = ()

    def __post_init__(self) -> None:
        height, width = self.task.image
        require(self.patch >= 1, "patch", f"is {self.patch}", "write at least 1 pixel")
        require(
            height % self.patch == 0 and width % self.patch == 0,
            "patch",
            f"is {self.patch}, which does not divide the {height} x {width} image",
            "choose a divisor of both sides",
        )
        require(0 <= self.overlap <= self.patch, "overlap", f"is {self.overlap}", f"write 0 to {self.patch}")
        require(self.stem_hidden >= 0, "stem_hidden", f"is {self.stem_hidden}", "write 0 or more")
        require(len(self.blocks) >= 1, "blocks", "is empty", "a model needs at least 1 block")
        _check_name("token_method", self.token_method, TOKEN_METHODS)
        _check_width("edge", self.edge_bits, self.edge_format)
        _check_name("norm", self.norm, NORMS)
        _check_name("pool", self.pool, POOLS)
        object.__setattr__(self, "training", tuple(sorted((str(name), value) for name, value in self.training)))
        for index, block in enumerate(self.blocks):
            self._check_shapes(f"blocks[{index}]", block)
        self._check_tokens()

    @classmethod
    def trained_by(cls, recipe: Mapping[str, Scalar]) -> tuple[tuple[str, Scalar], ...]:
        """Returns ``training`` for fields of a recipe."""
        return tuple(sorted(recipe.items()))

    def _check_shapes(self, where: str, block: BlockSpec) -> None:
        require(
            self.dim >= 1 and self.dim % block.heads == 0,
            f"{where}.heads",
            f"is {block.heads}, which does not divide dim {self.dim}",
            "choose a divisor of dim",
        )
        of = block.sparsity[1]
        sums = {"dim": self.dim, f"{where}.mlp_hidden": block.mlp_hidden, f"{where}.rank": block.rank}
        sums["the width of all heads that ask"] = self.dim // block.heads * (block.query_heads or block.heads)
        for name, length in sums.items():
            require(
                length % of == 0,
                f"{where}.sparsity",
                f"is {block.sparsity[0]}:{of}, but {name} is {length}, which is no whole number of groups of {of}",
                f"choose groups that divide {length}, or another length",
            )

    def _check_tokens(self) -> None:
        method, tokens, reduced = TOKEN_METHODS[self.token_method], self.patches, False
        for index, block in enumerate(self.blocks):
            keep, where, mixer = block.keep_tokens, f"blocks[{index}]", MIXERS[block.mixer]
            require(
                not (mixer.grid and (reduced or method.core)),
                f"{where}.mixer",
                f"is {mixer.name!r}, which needs all tokens in their places, but they are reduced by then",
                "take another mixer, or reduce later",
            )
            if keep is None:
                continue
            require(
                index == 0 or not method.core,
                f"{where}.keep_tokens",
                f"is {keep}, but {method.name!r} has as many core tokens in every block as in the first",
                "leave it out",
            )
            require(
                method.name != "none",
                f"{where}.keep_tokens",
                f"is {keep}, but 'none' keeps all tokens",
                "leave it out, or choose another token_method",
            )
            least = method.least(tokens)
            require(
                least <= keep < tokens,
                f"{where}.keep_tokens",
                f"is {keep}, but {method.name!r} can take {tokens} tokens to {least} up to {tokens - 1}",
                "choose a count in that range, or leave it out to keep all",
            )
            gives = {"map": mixer.map, "keys": mixer.heads, "": True}[method.needs]
            wanted = "attention map" if method.needs == "map" else "keys"
            require(
                gives,
                f"{where}.mixer",
                f"is {mixer.name!r}, but {method.name!r} reads its {wanted}",
                "take another mixer, or reduce in another block",
            )
            tokens, reduced = keep, True
        require(
            reduced or method.name == "none",
            "token_method",
            f"is {method.name!r}, but no block reduces its tokens",
            "write 'none', or set keep_tokens in a block",
        )
        require(
            method.name != "detail" or self.patch % 2 == 0,
            "patch",
            f"is {self.patch}, but 'detail' begins at half the resolution",
            "choose an even patch",
        )

    @property
    def patches(self) -> int:
        """Image tokens that the stem makes (the class token not counted)."""
        return self.grid[0] * self.grid[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return self.task.image[0] // self.patch, self.task.image[1] // self.patch

    @property
    def core_tokens(self) -> int | None:
        """Image tokens that the blocks work on in place of all, for methods that have such; None for the others."""
        return self.blocks[0].keep_tokens if TOKEN_METHODS[self.token_method].core else None

    @property
    def tokens(self) -> tuple[tuple[int, int], ...]:
        """For each block, tokens in its mixer and tokens in its MLP, the class token counted in both."""
        counts, tokens = [], self.core_tokens or self.patches
        for block in self.blocks:
            kept = tokens if block.keep_tokens is None else block.keep_tokens
            counts.append((tokens + 1, kept + 1))
            tokens = kept
        return tuple(counts)

    @property
    def edges_in(self) -> str:
        """Name of the number format of the stem's and the head's weights and inputs."""
        return _format_name(self.edge_bits, self.edge_format)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that stand for this model."""
        return ident(self)
