"""Costs of a workload on FPGA designs, what they need, and what their devices lack.

Beside what `temporal` and `dataflow` say:

- Energy is that of `parts`: a figure for each DSP (or LUT) in each cycle that it works, made from the power of
  published designs. No source tells block RAM from the rest, so the ledger has it all under multipliers and lanes and
  0 under memories.
- What the device draws anyway stands as leakage.
- DRAM costs what `cosearch.hardware.technology` charges for DDR, or its figure for HBM2.
- An FPGA's area is bought whole, and vendors publish none: ``area_mm2`` is 0. Compare designs by `fpga_resources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.fpga.dataflow import dataflow_interval, dataflow_parts, dataflow_resources
from cosearch.hardware.fpga.design import STYLES, Fpga, Fpgas
from cosearch.hardware.fpga.devices import DEVICES
from cosearch.hardware.fpga.layers import Layers
from cosearch.hardware.fpga.parts import DSP_CYCLE_J, Resources
from cosearch.hardware.fpga.temporal import temporal_parts, temporal_resources
from cosearch.hardware.groups import require_integers
from cosearch.hardware.ledger import Ledger
from cosearch.hardware.technology import DRAMS, Technology
from cosearch.spec import Violation
from cosearch.workload import Workload

__all__ = ["FpgaResources", "feasible", "fits", "fpga_ledger", "fpga_resources"]

Floats = NDArray[np.float64]

_WORDS: Mapping[str, str] = {
    "dsp": "DSPs",
    "lut": "LUTs",
    "ff": "flip-flops",
    "bram18": "block RAMs of 18 Kbit",
    "uram": "UltraRAMs",
}
_WAYS_OUT: Mapping[str, Mapping[str, str]] = {
    "temporal": {
        "dsp": "make tm, tk, tn or vector_lanes smaller, pe_bits narrower, or multiplier 'lut'",
        "lut": "make tm, tk, tn or vector_lanes smaller, or multiplier 'dsp'",
        "ff": "make tm, tk, tn or vector_lanes smaller",
        "bram18": "make activation_kib or weight_kib smaller, or tm, tk or tn (wide memories waste blocks)",
        "uram": "make activation_kib or weight_kib smaller",
    },
    "dataflow": {
        "dsp": "raise reuse, use fewer bits, multiplier 'lut', or style 'temporal'",
        "lut": "raise reuse, use fewer bits, multiplier 'dsp', or style 'temporal'",
        "ff": "raise reuse, or use style 'temporal'",
        "bram18": "use fewer bits or a smaller model, or style 'temporal', which takes weights from DRAM",
        "uram": "use fewer bits or a smaller model, or style 'temporal', which takes weights from DRAM",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FpgaResources:
    """What a design needs of its device, and how fast it takes images.

    Attributes:
        dsp: DSP slices.
        lut: 6-input LUTs.
        ff: flip-flops.
        bram18: block RAMs of 18 Kbit.
        uram: UltraRAMs.
        shares: each of these over what the device has; a device without UltraRAM has share 0 where none is needed.
        interval_cycles: cycles between images when they follow one another without a gap; ``None`` for ``temporal``,
            where an image begins when the one before has ended.
    """

    dsp: int
    lut: int
    ff: int
    bram18: int
    uram: int
    shares: Mapping[str, float]
    interval_cycles: int | None


def fpga_resources(workload: Workload, fpga: Fpga) -> FpgaResources:
    """Returns what ``fpga`` needs to run ``workload``, whether or not its device has it."""
    batch, layers = Fpgas((fpga,)), Layers.of(workload)
    need = {name: int(values[0]) for name, values in _needs(layers, batch).items()}
    device = DEVICES[fpga.device]
    streams = fpga.style == "dataflow"
    return FpgaResources(
        **need,
        shares={name: value / getattr(device, name) if value else 0.0 for name, value in need.items()},
        interval_cycles=int(dataflow_interval(layers, batch)[0]) if streams else None,
    )


def fits(workload: Workload, fpga: Fpga) -> tuple[Violation, ...]:
    """Returns what ``fpga`` needs beyond its device to run ``workload``; nothing where it fits."""
    need = fpga_resources(workload, fpga)
    device = DEVICES[fpga.device]
    return tuple(
        Violation(limit=f"{name} <= {getattr(device, name)} ({fpga.device})", excess=need.shares[name] - 1.0)
        for name in _WORDS
        if need.shares[name] > 1.0
    )


def feasible(workload: Workload, batch: Fpgas) -> NDArray[np.bool_]:
    """Returns whether the device of each design of ``batch`` has what it needs, shape (designs,)."""
    layers, kinds = Layers.of(workload), batch.kinds()
    good = np.ones(len(batch), dtype=np.bool_)
    for kind in np.unique(kinds):
        chosen = np.flatnonzero(kinds == kind)
        part = batch.pick(chosen)
        for name, values in _needs(layers, part).items():
            good[chosen] &= values <= part.of_device(name)
    return good


def fpga_ledger(workload: Workload, batch: Fpgas, technology: Technology) -> Ledger:
    """Returns what ``workload`` costs on designs, all of one style.

    Raises:
        SpecError: a matrix product has floating-point operands, or a device lacks what a design needs.
    """
    require_integers(workload, "an FPGA design")
    layers = Layers.of(workload)
    _refuse_what_does_not_fit(layers, batch)
    parts = (temporal_parts if batch.items[0].style == "temporal" else dataflow_parts)(layers, batch)
    clock = batch.column("clock_hz")
    cycles = parts.cycles + np.zeros_like(clock)
    dram_bytes = np.ceil(parts.dram_bits / 8.0) + np.zeros_like(cycles)
    transfer = np.ceil(dram_bytes / (batch.dram_bytes_per_s / clock))
    bit_j = 1e-12 * np.where(batch.of_device("hbm") > 0, DRAMS["hbm2"].pj_per_bit, technology.dram_pj_per_bit)
    none = np.zeros_like(cycles)
    return Ledger(
        members=layers.members,
        compute_cycles=cycles * layers.product,
        vector_cycles=cycles * (1.0 - layers.product),
        stall_cycles=np.maximum(transfer - cycles, 0.0),
        dram_bytes=dram_bytes,
        mac_j=parts.product_j * layers.product + none,
        vector_j=layers.lanes * DSP_CYCLE_J + none,
        sram_j=none,
        dram_j=dram_bytes * (8.0 * bit_j),
        held_bits=parts.held_bits + none,
        busy=parts.busy + none,
        multipliers=parts.multipliers,
        clock_hz=clock,
        area_mm2=np.zeros_like(clock),
        leak_w=batch.of_device("static_w"),
    )


def _needs(layers: Layers, batch: Fpgas) -> Mapping[str, Floats]:
    temporal = batch.items[0].style == STYLES[0]
    found = temporal_resources(batch) if temporal else dataflow_resources(layers, batch)
    return {item.name: getattr(found, item.name) for item in fields(Resources)}


def _refuse_what_does_not_fit(layers: Layers, batch: Fpgas) -> None:
    for name, values in _needs(layers, batch).items():
        over = values > batch.of_device(name)
        if np.any(over):
            position = int(np.argmax(over))
            fpga, need = batch.items[position], int(values[position])
            has = getattr(DEVICES[fpga.device], name)
            excess = f" ({100.0 * (need / has - 1.0):.0f} % over)" if has else ""
            raise SpecError(
                "device",
                f"{fpga.device} has {has} {_WORDS[name]}, but the {fpga.style} design needs {need}{excess}",
                f"{_WAYS_OUT[fpga.style][name]}, or choose a larger device",
            )
