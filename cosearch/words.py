"""Numbers, models and accelerators in words, for tables, plots and messages.

Specs hold SI units (`cosearch.spec`); this is the only place that scales them for people.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cosearch.spec import FLOAT_BITS, AcceleratorSpec, BlockSpec, ModelSpec, Scalar, TaskShape

__all__ = ["describe_accelerator", "describe_model", "label", "quantity", "unit_of"]

_DECIMAL = ("q", "r", "y", "z", "a", "f", "p", "n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q")
"""SI prefixes from 1e-30 to 1e30 (BIPM, The International System of Units, 9th edition, table 7); ``u`` is micro."""

_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
"""Binary prefixes (IEC 80000-13); on-chip memories come in powers of two."""

_UNSCALED = ("mm2", "m2", "%", "dB")
"""Units that take no prefix: a prefix before a squared unit reads as something else."""

_SUFFIXES = {
    "bytes_per_s": "B/s",
    "macs_per_s": "MAC/s",
    "per_s": "/s",
    "js": "J s",
    "s": "s",
    "j": "J",
    "w": "W",
    "hz": "Hz",
    "mm2": "mm2",
    "m2": "m2",
    "bytes": "B",
    "bits": "bit",
    "macs": "MAC",
    "cycles": "cycles",
}
"""Unit for each ending of a metric's name, longest first."""

_BLOCK = BlockSpec(heads=1, mlp_hidden=1)
_PLAIN = ModelSpec(task=TaskShape(image=(1, 1), channels=1, classes=2), patch=1, dim=1, blocks=(_BLOCK,))
"""What a block and a model are where nothing is said."""


def quantity(value: float, unit: str) -> str:
    """Returns ``value`` to three significant digits with a readable prefix.

    Args:
        value: in ``unit``, without prefix.
        unit: such as ``s``, ``J`` or ``Hz``; ``B`` is scaled in powers of 1024, ``mm2`` not at all; empty for a ratio.

    Examples:
        >>> quantity(0.00123, "s"), quantity(45.6e-6, "J"), quantity(8192, "B"), quantity(0.91234, "")
        ('1.23 ms', '45.6 uJ', '8 KiB', '0.912')
    """
    if not math.isfinite(value):
        return f"{value} {unit}".rstrip()
    if unit == "" or unit in _UNSCALED or value == 0:
        return f"{_ratio(value)} {unit}".rstrip()
    if unit == "B":
        return _scaled(value, 1024, _BINARY, 0, unit, whole=True)
    return _scaled(value, 1000, _DECIMAL, _DECIMAL.index(""), unit, whole=False)


def unit_of(metric: str) -> str:
    """Returns the unit that a metric's name ends in, empty for a ratio: ``s`` for ``latency_s``."""
    for suffix, unit in _SUFFIXES.items():
        if metric == suffix or metric.endswith(f"_{suffix}"):
            return unit
    return ""


def label(metric: str) -> str:
    """Returns a metric's name for people: ``dram_energy_j`` is ``DRAM energy``, ``peak_bytes`` is ``Peak memory``."""
    stem = metric
    for suffix in _SUFFIXES:
        if metric.endswith(f"_{suffix}"):
            stem = metric.removesuffix(f"_{suffix}")
            break
    if stem == "peak" and metric.endswith("_bytes"):
        stem = "peak memory"
    words = [word.upper() if word in ("dram", "sram", "mac", "macs", "edp") else word for word in stem.split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def describe_model(model: ModelSpec) -> str:
    """Returns a model in one line, values that differ between blocks joined by ``/``.

    Token counts are those of the image (class token left out), from the stem on: ``prune 16>10>6`` reduces twice,
    ``lookup 64>16`` has 16 core tokens. ``W`` and ``A`` are the widths of weights and activations in bits, or their
    number formats; ``float`` is single precision. What every model can do without is named where it differs from the
    default: mixer, query and key/value heads, kind of MLP, rank, sparsity, norm, pool, training.

    Examples:
        ``dim 48, 3 blocks, 2 heads, MLP 96, patch 4, prune 16>10>6, W 8/6/4 A 8``
    """
    blocks = model.blocks
    heads = _each([block.heads for block in blocks])
    parts = [
        f"dim {model.dim}",
        f"{len(blocks)} {'block' if len(blocks) == 1 else 'blocks'}",
        f"{heads} {'head' if heads == '1' else 'heads'}",
        *_mixing(blocks),
        _mlp(blocks),
        *_weights(blocks),
        f"patch {model.patch}" + (f"+{model.overlap}" if model.overlap else ""),
    ]
    if model.stem_hidden:
        parts.append(f"stem {model.stem_hidden}")
    if model.token_method != "none":
        kept = [model.patches, *(block.keep_tokens for block in blocks if block.keep_tokens is not None)]
        parts.append(f"{model.token_method} {'>'.join(map(str, kept))}")
    if model.norm != _PLAIN.norm:
        parts.append(f"norm {model.norm}")
    if model.pool != _PLAIN.pool:
        parts.append(f"pool {model.pool}")
    parts.append(_formats(model))
    if model.training:
        parts.append("training " + " ".join(f"{name}={value}" for name, value in model.training))
    return ", ".join(parts)


def _mixing(blocks: Sequence[BlockSpec]) -> list[str]:
    """Returns the mixers, and heads of queries and of keys and values, where any block's are not the usual ones."""
    parts = []
    if any(block.mixer != _BLOCK.mixer for block in blocks):
        parts.append(f"mixer {_each([block.mixer for block in blocks])}")
    asking = [block.query_heads or block.heads for block in blocks]
    if any(block.query_heads for block in blocks):
        parts.append(f"query heads {_each(asking)}")
    if any(block.kv_heads for block in blocks):
        parts.append(f"kv heads {_each([b.kv_heads or a for b, a in zip(blocks, asking, strict=True)])}")
    return parts


def _mlp(blocks: Sequence[BlockSpec]) -> str:
    """Returns kind and hidden units: ``MLP 96``, ``GLU 96``, ``no MLP``, or ``MLP gelu 96/glu 64/none``."""
    kinds = {block.mlp for block in blocks}
    if kinds == {"none"}:
        return "no MLP"
    if len(kinds) == 1:
        (kind,) = kinds
        return f"{'MLP' if kind == _BLOCK.mlp else kind.upper()} {_each([block.mlp_hidden for block in blocks])}"
    return f"MLP {_each(['none' if block.mlp == 'none' else f'{block.mlp} {block.mlp_hidden}' for block in blocks])}"


def _weights(blocks: Sequence[BlockSpec]) -> list[str]:
    """Returns rank and sparsity, where any block's weights are not whole and dense."""
    parts = []
    if any(block.rank for block in blocks):
        parts.append(f"rank {_each([block.rank or 'full' for block in blocks])}")
    if any(block.sparsity != _BLOCK.sparsity for block in blocks):
        patterns = ["dense" if b.sparsity == _BLOCK.sparsity else "{}:{}".format(*b.sparsity) for b in blocks]
        parts.append(f"sparsity {_each(patterns)}")
    return parts


def _formats(model: ModelSpec) -> str:
    weights = _each([_format(block.weight_bits, block.weight_format) for block in model.blocks])
    activations = _each([_format(block.activation_bits, block.activation_format) for block in model.blocks])
    edge = _format(model.edge_bits, model.edge_format)
    if weights == activations == edge == "float":
        return "float"
    return f"W {weights} A {activations}" + (f" edges {edge}" if edge != "float" else "")


def describe_accelerator(accelerator: AcceleratorSpec) -> str:
    """Returns an accelerator in one line; parameters without a customary place follow by name.

    Examples:
        ``16x32 ws, 8/8/4 KiB, 1.00 GB/s, 400 MHz`` has 16 rows and 32 columns, is weight-stationary and holds 8, 8 and
        4 KiB of inputs, weights and outputs.
    """
    rest = accelerator.as_dict()
    parts = [_array(rest), _scratchpads(rest)]
    parts += [
        quantity(float(rest.pop(name)), unit_of(name))
        for name in ("dram_bytes_per_s", "clock_hz")
        if _is_number(rest.get(name))
    ]
    if "pe_bits" in rest:
        parts.append(f"{rest.pop('pe_bits')}-bit PEs")
    if "vector_lanes" in rest:
        parts.append(f"{rest.pop('vector_lanes')} lanes")
    parts += [_named(name, value) for name, value in rest.items()]
    text = ", ".join(part for part in parts if part)
    return text if accelerator.template == "systolic" and text else f"{accelerator.template} {text}".rstrip()


def _array(rest: dict[str, Scalar]) -> str:
    shape = f"{rest.pop('rows')}x{rest.pop('cols')}" if {"rows", "cols"} <= rest.keys() else ""
    return f"{shape} {rest.pop('dataflow', '')}".strip()


def _scratchpads(rest: dict[str, Scalar]) -> str:
    names = ("ifmap_kib", "filter_kib", "ofmap_kib")
    if not rest.keys() >= set(names):
        return ""
    return f"{'/'.join(str(rest.pop(name)) for name in names)} KiB"


def _is_number(value: Scalar | None) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _named(name: str, value: Scalar) -> str:
    """Returns a parameter by name: ``activation 8 KiB`` for ``activation_kib``, ``dma 64 bit`` for ``dma_bits``."""
    for suffix, unit in (("_kib", "KiB"), ("_bits", "bit")):
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')} {value} {unit}"
    if _is_number(value) and unit_of(name):
        return f"{name} {quantity(float(value), unit_of(name))}"
    return f"{name} {value}"


def _format(bits: int, name: str) -> str:
    return name or ("float" if bits == FLOAT_BITS else str(bits))


def _each(values: Sequence[object]) -> str:
    """Returns the one value that all share, or all of them."""
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else "/".join(texts)


def _scaled(value: float, base: int, prefixes: Sequence[str], zero: int, unit: str, *, whole: bool) -> str:
    last = len(prefixes) - 1
    power = min(max(math.floor(math.log(abs(value), base)) + zero, 0), last)
    # the logarithm, and rounding to three digits, can each land one prefix off
    if power < last and abs(float(f"{value / base ** (power - zero):.3g}")) >= base:
        power += 1
    if power > 0 and abs(float(f"{value / base ** (power - zero):.3g}")) < 1:
        power -= 1
    scaled = value / float(base) ** (power - zero)
    text = _plain(scaled) if whole else _three(scaled)
    return f"{text} {prefixes[power]}{unit}"


def _three(value: float) -> str:
    """Returns a number of 1 to 1000 with three significant digits, zeros kept: 1.00, 45.6, 123."""
    if not 1 <= abs(float(f"{value:.3g}")) < 1000:  # beyond the last prefix
        return f"{value:.3g}"
    digits = 2 - min(max(math.floor(math.log10(abs(value))), 0), 2)
    text = f"{value:.{digits}f}"
    return f"{value:.{digits - 1}f}" if digits and len(text.lstrip("-")) > 4 else text


def _ratio(value: float) -> str:
    """Returns three significant digits, zeros kept so that a column lines up: 0.960; whole numbers stay whole."""
    if value == int(value) or not 1e-3 <= abs(value) < 999.5:
        return _plain(value)
    return f"{value:#.3g}".rstrip(".")


def _plain(value: float) -> str:
    """Returns three significant digits without zeros at the end; whole numbers below a million in full."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"
