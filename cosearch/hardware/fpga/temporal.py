"""One matrix engine for all layers.

- The engine multiplies tm x tk values by tk x tn in a cycle; a product of (M x K) and (K x N) takes ``ceil(M / tm) *
  ceil(K / tk) * ceil(N / tn)`` cycles. Operands wider than its multipliers take ``ceil(a / pe_bits) * ceil(b /
  pe_bits)`` passes, partial products shifted and added.
- Layers run one after another, the vector unit after the engine. DRAM works beside them: an operator takes the longer
  of the two, double buffering hides the other (Edge-MoE's ping-pong weights).
- Weights stream from DRAM once an image. The right operand is held in panels of half the memory for weights; a left
  operand that is not on the chip comes once for each panel.
- Of an activation, the share ``capacity / bytes alive`` stays on the chip, at the worst time of its life (at most all
  of it); the rest goes to DRAM and back. The shares fit at any time: they add up to the capacity at most. Whole tensors
  (`cosearch.hardware.memory`) would save more, but with shares more memory never adds traffic, however often an
  operand is fetched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.fpga.design import Fpgas
from cosearch.hardware.fpga.layers import Layers
from cosearch.hardware.fpga.packing import ENGINE_LUTS, LUT_PER_BIT2, Blocks, blocks, in_luts, shape_of_pack
from cosearch.hardware.fpga.parts import DEPTH, DSP_CYCLE_J, LUT_CYCLE_J, Parts, Resources, has_uram, resources

__all__ = ["temporal_parts", "temporal_resources"]

Floats = NDArray[np.float64]
_KIB_BITS = 8192.0


def temporal_parts(layers: Layers, batch: Fpgas) -> Parts:
    """Returns what ``layers`` cost on designs with one engine."""
    tm, tk, tn = (batch.column(name) for name in ("tm", "tk", "tn"))
    width = batch.column("pe_bits")
    passes = np.ceil(layers.a_bits / width) * np.ceil(layers.b_bits / width) * layers.product
    steps = np.ceil(layers.m / tm) * np.ceil(layers.k / tk) * np.ceil(layers.n / tn)
    products = layers.count * steps * passes + DEPTH * layers.product
    lanes = np.ceil(layers.lanes / batch.column("vector_lanes"))

    capacity, panel = batch.column("activation_kib") * _KIB_BITS, batch.column("weight_kib") * (_KIB_BITS / 2.0)
    right = layers.k * layers.n * layers.b_bits
    panels = np.maximum(np.ceil(right / panel), 1.0)
    dram_bits = (
        layers.a_size * _outside(layers.a_live, capacity) * panels
        + layers.b_size * np.where(layers.weights > 0, 1.0, _outside(layers.b_live, capacity))
        + layers.out_size * _outside(layers.out_live, capacity)
    )
    held = np.minimum(_alive(layers), capacity) + np.minimum(right, 2.0 * panel)
    busy = layers.macs * passes
    dsp_cycles = busy / np.prod(np.stack(shape_of_pack(batch, width)), axis=0)
    lut_cycles = busy * (LUT_PER_BIT2 * width * width)
    return Parts(
        cycles=products + lanes,
        dram_bits=dram_bits,
        product_j=np.where(in_luts(batch, width, width), lut_cycles * LUT_CYCLE_J, dsp_cycles * DSP_CYCLE_J),
        held_bits=held,
        busy=busy,
        multipliers=tm * tk * tn,
    )


def temporal_resources(batch: Fpgas) -> Resources:
    """Returns what designs with one engine need."""
    tm, tk, tn = (batch.column(name) for name in ("tm", "tk", "tn"))
    width, lanes = batch.column("pe_bits"), batch.column("vector_lanes")
    rows, reduction, columns = shape_of_pack(batch, width)
    soft = in_luts(batch, width, width)
    dsps = np.ceil(tm / rows) * np.ceil(tk / reduction) * np.ceil(tn / columns)
    luts = ENGINE_LUTS + LUT_PER_BIT2 * width * width * tm * tk * tn
    ultra = has_uram(batch)
    memories = [
        _memory(tm * tk * width, batch.column("activation_kib"), ultra),
        _memory(tk * tn * width, batch.column("weight_kib"), ultra),
    ]
    return resources(
        dsps=np.where(soft, 0.0, dsps),
        lanes=lanes,
        luts=np.where(soft, luts, 0.0),
        memories=Blocks(
            bram18=memories[0].bram18 + memories[1].bram18,
            uram=memories[0].uram + memories[1].uram,
            lut=memories[0].lut + memories[1].lut,
        ),
    )


def _memory(width: Floats, kib: Floats, ultra: NDArray[np.bool_]) -> Blocks:
    return blocks(width, np.ceil(kib * _KIB_BITS / width), ultra)


def _outside(live: Floats, capacity: Floats) -> Floats:
    """Returns the share of an activation that DRAM holds."""
    return 1.0 - np.where(np.isinf(live), 0.0, np.minimum(capacity / live, 1.0))


def _alive(layers: Layers) -> Floats:
    """Returns the bits of activations that an operator finds alive, as far as they come from this chip."""
    left = np.where(np.isinf(layers.a_live), layers.a_size, layers.a_live)
    return np.maximum(left, np.where(np.isinf(layers.out_live), layers.out_size, layers.out_live))
