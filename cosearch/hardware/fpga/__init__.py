"""The FPGA template and its cost model.

- `devices`: what each device has, from its data sheet.
- `design`: the template, for one design or many.
- `packing`: multipliers in DSPs or LUTs, memories in block RAM, UltraRAM or LUT RAM.
- `pipeline`: where a network's pipeline must wait for all rows.
- `layers`: the rows of both styles as columns of numbers.
- `temporal`: one engine for all layers. `dataflow`: one engine for each layer.
- `model`: costs as a ledger, resources, and what a device lacks.

Public: `fpga_ledger`, `fpga_resources`, `fits` and `feasible`, beside the template `Fpga` and the batch `Fpgas`.
"""

from __future__ import annotations

from cosearch.hardware.fpga.design import MULTIPLIERS, STYLES, Fpga, Fpgas
from cosearch.hardware.fpga.devices import DEVICES, FpgaDevice
from cosearch.hardware.fpga.model import FpgaResources, feasible, fits, fpga_ledger, fpga_resources

__all__ = [
    "DEVICES",
    "MULTIPLIERS",
    "STYLES",
    "Fpga",
    "FpgaDevice",
    "FpgaResources",
    "Fpgas",
    "feasible",
    "fits",
    "fpga_ledger",
    "fpga_resources",
]
