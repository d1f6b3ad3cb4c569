"""SCALE-Sim v3's counts, and its input files.

SCALE-Sim (Samajdar et al. 2018, 2020; version 3: Raj et al. 2025, release 3.0.0) is the reference for cycles and
scratchpad accesses. `scalesim_counts` gives what the tool reports, its quirks included, from the same closed forms
that `cosearch.hardware.estimate` uses without them. What it reports of its memory is in
`cosearch.hardware.scalesim_memory`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cosearch.hardware.groups import Products
from cosearch.hardware.systolic import SystolicArray, SystolicArrays
from cosearch.hardware.systolic.folding import fold
from cosearch.workload import OperatorKind, Workload

__all__ = ["ScaleSimCounts", "scalesim_config", "scalesim_counts", "scalesim_topology"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSimCounts:
    """What SCALE-Sim v3 reports of one matrix product with operands as wide as its PEs.

    Attributes:
        compute_cycles: cycles without stalls. The tool counts one cycle too few (its issue 125); so does this.
        ifmap_sram_reads: words read from the ifmap scratchpad.
        filter_sram_reads: words read from the filter scratchpad.
        ofmap_sram_writes: words written to the ofmap scratchpad. The tool adds rows + columns for each fold of an
            output-stationary array; so does this.
    """

    compute_cycles: int
    ifmap_sram_reads: int
    filter_sram_reads: int
    ofmap_sram_writes: int


def scalesim_counts(m: int, k: int, n: int, array: SystolicArray) -> ScaleSimCounts:
    """Returns what SCALE-Sim v3 reports of an (m x k) by (k x n) product on ``array``.

    Only ``rows``, ``cols`` and ``dataflow`` matter; the tool knows neither bits nor overlap of folds.
    """
    one = np.ones((1, 1))
    bits = one * array.pe_bits
    product = Products(m=m * one, k=k * one, n=n * one, count=one, a_bits=bits, b_bits=bits, out_bits=bits)
    folding = fold(product, SystolicArrays.of([replace(array, overlap="scalesim")]), array.dataflow)
    folds = int(folding.row_folds[0, 0] * folding.col_folds[0, 0])
    writes = m * n * int(folding.output_writes[0, 0])
    quirk = folds * (array.rows + array.cols) if array.dataflow == "os" else 0
    return ScaleSimCounts(
        compute_cycles=int(folding.cycles[0, 0]) - 1,
        ifmap_sram_reads=m * k * int(folding.ifmap_sweeps[0, 0]),
        filter_sram_reads=k * n * int(folding.filter_sweeps[0, 0]),
        ofmap_sram_writes=writes + quirk,
    )


def scalesim_config(
    array: SystolicArray, *, name: str = "cosearch", bandwidth: Literal["CALC", "USER"] = "CALC"
) -> str:
    """Returns a ``.cfg`` file that SCALE-Sim v3 reads.

    Args:
        array: the accelerator. The tool's words have one byte; it knows neither bits nor clock.
        name: the run's name, which becomes the name of the tool's output folder.
        bandwidth: ``CALC`` lets the tool find the bandwidth that avoids stalls. ``USER`` gives it the array's own, in
            whole words a cycle, at least one.
    """
    words = max(1, round(array.dram_bytes_per_s / array.clock_hz))
    lines = [
        "[general]",
        f"run_name = {name}",
        "",
        "[architecture_presets]",
        f"ArrayHeight : {array.rows}",
        f"ArrayWidth : {array.cols}",
        f"IfmapSramSzkB : {array.ifmap_kib}",
        f"FilterSramSzkB : {array.filter_kib}",
        f"OfmapSramSzkB : {array.ofmap_kib}",
        "IfmapOffset : 0",
        "FilterOffset : 10000000",
        "OfmapOffset : 20000000",
        f"Bandwidth : {words}",
        f"Dataflow : {array.dataflow}",
        "MemoryBanks : 1",
        "ReadRequestBuffer : 32",
        "WriteRequestBuffer : 32",
        "",
        "[layout]",
        *(
            line
            for operand in ("Ifmap", "Filter")
            for line in (
                f"{operand}CustomLayout : False",
                f"{operand}SRAMBankBandwidth : {words}",
                f"{operand}SRAMBankNum : 1",
                f"{operand}SRAMBankPort : 2",
            )
        ),
        "",
        "[sparsity]",
        "SparsitySupport : false",
        "SparseRep : ellpack_block",
        "OptimizedMapping : false",
        "BlockSize : 8",
        "RandomNumberGeneratorSeed : 40",
        "",
        "[run_presets]",
        f"InterfaceBandwidth : {bandwidth}",
        "UseRamulatorTrace : False",
        "",
    ]
    return "\n".join(lines)


def scalesim_topology(workload: Workload) -> str:
    """Returns the matrix products of ``workload`` as a GEMM topology that SCALE-Sim v3 reads (``-i gemm``).

    One row for each product in the order M, N, K; a product that runs ``count`` times has as many rows.
    """
    rows = ["Layer,M,N,K,"]
    for op in workload.operators:
        if op.kind is OperatorKind.MATMUL:
            names = [op.name] if op.count == 1 else [f"{op.name}.{run}" for run in range(op.count)]
            rows += [f"{name},{op.m},{op.n},{op.k}," for name in names]
    return "\n".join(rows) + "\n"
