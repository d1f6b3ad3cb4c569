"""One engine for each layer; rows stream through all of them.

- A product of (M x K) and (K x N), heads side by side, gets ``ceil(K * N * heads / reuse)`` multipliers and takes
  ``reuse`` cycles a row: hls4ml's reuse factor (Duarte et al. 2018). Every other vector operator gets as many lanes as
  keep pace.
- Engines of one stage run at the same time; stages follow one another, for each needs all rows of the one before
  (`pipeline`). A stage of M rows takes M * reuse cycles, and each of its operators adds the time of its first row. In
  the ledger, the first operator with the stage's most rows holds the stage's M * reuse cycles, every other one its
  first row: ``reuse + DEPTH``.
- Weights stay in memories beside their multipliers, one word of all of them a cycle: where they do not fit, the design
  cannot be built. Right operands that are activations (keys, values) are kept twice, for one image and the next, and so
  is whatever a later stage reads again (the residual stream).
- Memories for which a device has too few block RAMs go to UltraRAMs, as far as it has them.
- DRAM gives the image and takes the result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.fpga.design import Fpgas
from cosearch.hardware.fpga.layers import Layers
from cosearch.hardware.fpga.packing import ENGINE_LUTS, LUT_PER_BIT2, Blocks, blocks, in_luts, stream_pack, urams
from cosearch.hardware.fpga.parts import DEPTH, DSP_CYCLE_J, LUT_CYCLE_J, Parts, Resources, has_uram, resources

__all__ = ["dataflow_interval", "dataflow_parts", "dataflow_resources"]

Floats = NDArray[np.float64]

_FIFO_BITS = 36.0
"""Width of the memories that keep what a later stage reads."""


def dataflow_parts(layers: Layers, batch: Fpgas) -> Parts:
    """Returns what ``layers`` cost on designs with an engine for each."""
    reuse = batch.column("reuse")
    selection = np.ceil(layers.lanes / batch.column("vector_lanes"))
    streaming = np.where(layers.leads > 0, layers.stage_rows * reuse, reuse) + DEPTH
    pack = stream_pack(batch, np.maximum(layers.a_bits, layers.b_bits))
    lut_cycles = layers.macs * (LUT_PER_BIT2 * layers.a_bits * layers.b_bits)
    soft = in_luts(batch, layers.a_bits, layers.b_bits)
    kept = layers.b_size * np.where(layers.weights > 0, 1.0, 2.0) + 2.0 * layers.kept_bits
    return Parts(
        cycles=np.where(layers.waits > 0, selection, streaming),
        dram_bits=layers.outside_bits,
        product_j=np.where(soft, lut_cycles * LUT_CYCLE_J, layers.macs / pack * DSP_CYCLE_J),
        held_bits=np.sum(layers.repeats * kept) + np.zeros((1, 1)),
        busy=layers.macs,
        multipliers=_over(layers, _multipliers(layers, reuse)),
    )


def dataflow_interval(layers: Layers, batch: Fpgas) -> Floats:
    """Returns the cycles between one image and the next: those of the slowest operator, shape (designs,)."""
    selection = np.ceil(layers.lanes / batch.column("vector_lanes"))
    rows = np.where(layers.waits > 0, selection, layers.m * batch.column("reuse"))
    return np.asarray(np.max(rows, axis=0))


def dataflow_resources(layers: Layers, batch: Fpgas) -> Resources:
    """Returns what designs with an engine for each layer need."""
    reuse = batch.column("reuse")
    multipliers = _multipliers(layers, reuse)
    soft = in_luts(batch, layers.a_bits, layers.b_bits)
    dsps = np.ceil(multipliers / stream_pack(batch, np.maximum(layers.a_bits, layers.b_bits)))
    luts = layers.product * ENGINE_LUTS + np.ceil(LUT_PER_BIT2 * layers.a_bits * layers.b_bits * multipliers)
    pace = np.ceil(layers.lanes / (layers.stage_rows * reuse))
    lanes = np.where(layers.waits > 0, batch.column("vector_lanes"), pace)
    return resources(
        dsps=_over(layers, np.where(soft, 0.0, dsps)),
        lanes=_over(layers, lanes),
        luts=_over(layers, np.where(soft, luts, 0.0)),
        memories=_memories(layers, batch, multipliers),
    )


def _memories(layers: Layers, batch: Fpgas, multipliers: Floats) -> Blocks:
    """Returns what right operands and kept activations take, block RAM before UltraRAM where either does."""
    ultra = has_uram(batch)
    width = multipliers * layers.b_bits
    words = np.ceil(layers.k * layers.n * layers.count / np.maximum(multipliers, 1.0))
    right = blocks(width, words, ultra)
    fifo = _FIFO_BITS * np.minimum(layers.kept_bits, 1.0)
    kept = blocks(fifo, np.ceil(layers.kept_bits / _FIFO_BITS), ultra)
    copies = layers.product * np.where(layers.weights > 0, 1.0, 2.0)

    def both(first: Floats, second: Floats) -> Floats:
        return _over(layers, copies * first + 2.0 * second)

    bram18, uram = both(right.bram18, kept.bram18), both(right.uram, kept.uram)
    movable = _over(layers, copies * right.bram18)
    instead = _over(layers, copies * np.where(right.bram18 > 0, urams(width, words), 0.0))
    each_frees = np.where(instead > 0, movable / np.maximum(instead, 1.0), 1.0)  # block RAMs freed by an UltraRAM
    lacking = np.maximum(bram18 - batch.of_device("bram18"), 0.0)
    room = np.minimum(np.maximum(batch.of_device("uram") - uram, 0.0), instead)
    moved = np.minimum(np.ceil(lacking / each_frees), room)
    return Blocks(
        bram18=np.ceil(np.maximum(bram18 - moved * each_frees, 0.0)),
        uram=uram + moved,
        lut=both(right.lut, kept.lut),
    )


def _multipliers(layers: Layers, reuse: Floats) -> Floats:
    return np.ceil(layers.k * layers.n * layers.count / reuse) * layers.product


def _over(layers: Layers, values: Floats) -> Floats:
    """Returns the sum over all operators; whole numbers below 2**53, so the order does not matter."""
    return np.asarray(np.sum(layers.repeats * values, axis=0))
