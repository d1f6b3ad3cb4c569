"""Devices that the roofline knows: peak rates, bandwidth, caches and power, each with its source.

Rates are multiply-accumulates a second of dense products: half of the operations that vendors count, and none of the
doubling that structured sparsity gives. Data sheets that were not at hand were checked against pages that quote them;
``sources`` says so ("quoted by"). Rates of processors follow from units, clock and operations a cycle; what is assumed
of them is said. A rate of 0 means that the device has no such arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DEVICES", "Device"]

Tiles = tuple[tuple[int, int], ...]

_GPU_TILES: Tiles = ((256, 128), (128, 256), (128, 128), (256, 64), (64, 256), (128, 64), (64, 128), (64, 64))
"""Rows and columns of the output that a thread block works on: cuBLAS's sizes as NVIDIA's "Matrix Multiplication
Background" lists them (also `cublasLtMatmulTile_t`). That all reach the peak is an assumption: the guide finds smaller
ones somewhat slower."""

_GPU_LAUNCH_S = 5e-6
"""Assumption: submitting a kernel takes 4 to 6 us (measured on a GeForce RTX 5070 Ti with CUDA 13,
susun-blog.com/pegainfer-3-cuda-graph); CUDA graphs take less."""

_CPU_LAUNCH_S = 2e-6
"""Assumption, of the order that onnxruntime takes for each operator; `bench/hardware/roofline.md` measures it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a roofline needs to know of a device.

    Attributes:
        fp32_macs_per_s: peak rate of single precision; likewise the next four.
        tf32_macs_per_s: of tf32, single precision with significands of 11 bits.
        fp16_macs_per_s: of half precision.
        int8_macs_per_s: of 8-bit integers.
        int4_macs_per_s: of 4-bit integers.
        vector_ops_per_s: elementwise operations a second.
        dram_bytes_per_s: bandwidth to memory.
        cache_kib: last-level cache, KiB.
        units: multiprocessors or cores, which tiles of a product are dealt out to.
        tiles: rows and columns of the output that a unit works on at a time; the best of them is taken.
        launch_s: seconds to start an operator.
        tdp_w: thermal design power.
        area_mm2: of the die; 0 where the vendor does not say.
        sources: where the numbers are from.
    """

    fp32_macs_per_s: float
    tf32_macs_per_s: float = 0.0
    fp16_macs_per_s: float = 0.0
    int8_macs_per_s: float = 0.0
    int4_macs_per_s: float = 0.0
    vector_ops_per_s: float
    dram_bytes_per_s: float
    cache_kib: int
    units: int
    tiles: Tiles
    launch_s: float
    tdp_w: float
    area_mm2: float = 0.0
    sources: str


def _processor(
    *,
    cores: int,
    clock_hz: float,
    fp32_per_cycle: int,
    fp16_per_cycle: int = 0,
    int8_per_cycle: int,
    tile: tuple[int, int],
    dram_bytes_per_s: float,
    cache_kib: int,
    tdp_w: float,
    area_mm2: float = 0.0,
    sources: str,
) -> Device:
    """Returns a processor; rates are for each core and cycle."""
    cycles = cores * clock_hz
    return Device(
        fp32_macs_per_s=cycles * fp32_per_cycle,
        fp16_macs_per_s=cycles * fp16_per_cycle,
        int8_macs_per_s=cycles * int8_per_cycle,
        vector_ops_per_s=cycles * fp32_per_cycle,
        dram_bytes_per_s=dram_bytes_per_s,
        cache_kib=cache_kib,
        units=cores,
        tiles=(tile,),
        launch_s=_CPU_LAUNCH_S,
        tdp_w=tdp_w,
        area_mm2=area_mm2,
        sources=sources,
    )


DEVICES: Mapping[str, Device] = {
    "a100_sxm_80gb": Device(
        fp32_macs_per_s=19.5e12 / 2,
        tf32_macs_per_s=156e12 / 2,
        fp16_macs_per_s=312e12 / 2,
        int8_macs_per_s=624e12 / 2,
        int4_macs_per_s=1248e12 / 2,
        vector_ops_per_s=19.5e12 / 2,
        dram_bytes_per_s=2.039e12,
        cache_kib=40 * 1024,
        units=108,
        tiles=_GPU_TILES,
        launch_s=_GPU_LAUNCH_S,
        tdp_w=400.0,
        area_mm2=826.0,
        sources="NVIDIA A100 data sheet and Ampere white paper, quoted by glennklockwood.com/garden/processors/A100 "
        "and the Paderborn Center for Parallel Computing (die, cache)",
    ),
    "h100_sxm": Device(
        fp32_macs_per_s=66.9e12 / 2,
        tf32_macs_per_s=494.7e12 / 2,
        fp16_macs_per_s=989.4e12 / 2,
        int8_macs_per_s=1978.9e12 / 2,
        vector_ops_per_s=66.9e12 / 2,
        dram_bytes_per_s=3.35e12,
        cache_kib=50 * 1024,
        units=132,
        tiles=_GPU_TILES,
        launch_s=_GPU_LAUNCH_S,
        tdp_w=700.0,
        area_mm2=814.0,
        sources="NVIDIA H100 white paper, quoted by glennklockwood.com/garden/processors/h100 and hpctech.co.jp "
        "(cache, bandwidth, power); die from the white paper, not checked. No 4-bit integers",
    ),
    "rtx_4090": Device(
        fp32_macs_per_s=82.58e12 / 2,
        tf32_macs_per_s=82.58e12 / 2,
        fp16_macs_per_s=165.15e12 / 2,
        int8_macs_per_s=660.6e12 / 2,
        int4_macs_per_s=1321.21e12 / 2,
        vector_ops_per_s=82.58e12 / 2,
        dram_bytes_per_s=1.008e12,
        cache_kib=72 * 1024,
        units=128,
        tiles=_GPU_TILES,
        launch_s=_GPU_LAUNCH_S,
        tdp_w=450.0,
        area_mm2=608.5,
        sources="NVIDIA Ada white paper, quoted by waredb.com and thefpsreview.com; half precision summed in single "
        "precision",
    ),
    "jetson_orin_nano_8gb": Device(
        fp32_macs_per_s=1024 * 625e6,
        fp16_macs_per_s=5e12,
        int8_macs_per_s=10e12,
        vector_ops_per_s=1024 * 625e6,
        dram_bytes_per_s=68e9,
        cache_kib=2 * 1024,
        units=8,
        tiles=_GPU_TILES,
        launch_s=_GPU_LAUNCH_S,
        tdp_w=15.0,
        sources="NVIDIA Jetson Orin Nano data sheet: 1024 CUDA cores at 625 MHz, 20 dense TOPS of int8 (copy at "
        "scribd.com), 68 GB/s and 15 W (quoted by brojogopalsapui.com). Assumptions: half precision at half "
        "the rate of int8, as in other Ampere GPUs; 2 MiB of second-level cache; launches as on a desktop",
    ),
    "laptop_avx512_vnni": _processor(
        cores=4,
        clock_hz=2.8e9,
        fp32_per_cycle=16,
        int8_per_cycle=64,
        tile=(12, 32),
        dram_bytes_per_s=51.2e9,
        cache_kib=12 * 1024,
        tdp_w=28.0,
        sources="Intel Core i7-1165G7: 4 cores, 2.8 GHz base clock, 12 MiB (quoted by tomshardware.com), two channels"
        " of DDR4-3200, 28 W (from its data sheet, not checked). Assumptions: one 512-bit multiply-add a "
        "cycle, of floats or of bytes in fours (VPDPBUSD); the base clock; tiles of 12 x 32",
    ),
    "laptop_avx2": _processor(
        cores=4,
        clock_hz=1.6e9,
        fp32_per_cycle=16,
        int8_per_cycle=32,
        tile=(6, 16),
        dram_bytes_per_s=34.1e9,
        cache_kib=6 * 1024,
        tdp_w=15.0,
        sources="Intel Core i5-8250U: 4 cores, 1.6 GHz base clock, 6 MiB, 34.1 GB/s, 15 W (from its data sheet, not "
        "checked). Assumptions: two 256-bit multiply-adds a cycle; bytes by VPMADDUBSW, VPMADDWD and VPADDD, "
        "32 products in the two multiplying slots of a cycle; the base clock; tiles of 6 x 16",
    ),
    "raspberry_pi_4": _processor(
        cores=4,
        clock_hz=1.5e9,
        fp32_per_cycle=4,
        int8_per_cycle=8,
        tile=(8, 8),
        dram_bytes_per_s=12.8e9,
        cache_kib=1024,
        tdp_w=7.0,
        sources="BCM2711: four Cortex-A72 at 1.5 GHz, 1 MiB of second-level cache (Raspberry Pi documentation), 32 "
        "bits of LPDDR4-3200 (Raspberry Pi Beginner's Guide). Assumptions: one 128-bit multiply-add a cycle "
        "of two 64-bit pipes; no dot products (Armv8.0), so bytes by SMULL and SADALP at twice that; 7 W; "
        "tiles of 8 x 8",
    ),
    "raspberry_pi_5": _processor(
        cores=4,
        clock_hz=2.4e9,
        fp32_per_cycle=8,
        fp16_per_cycle=16,
        int8_per_cycle=32,
        tile=(8, 12),
        dram_bytes_per_s=17.1e9,
        cache_kib=2 * 1024,
        tdp_w=12.0,
        sources="BCM2712: four Cortex-A76 at 2.4 GHz, 2 MiB of shared third-level cache, 32 bits of LPDDR4X-4267 "
        "(circuitdigest.com); two 128-bit pipes and dot products (techarx.com). Assumptions: both pipes "
        "multiply and add floats, halves and bytes in fours (SDOT) each cycle; 12 W; tiles of 8 x 12",
    ),
}
"""The devices by name."""
