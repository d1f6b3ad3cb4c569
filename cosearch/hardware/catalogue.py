"""Every template by name, the cost model that belongs to it, and how far to trust its figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import lru_cache
from typing import Any

from cosearch.errors import SpecError, did_you_mean
from cosearch.hardware import fpga, microcontroller
from cosearch.hardware.arithmetic import PeKind
from cosearch.hardware.fpga import Fpga, Fpgas, fpga_ledger
from cosearch.hardware.fusemax import FuseMax, fusemax_ledger
from cosearch.hardware.gemmini import GemminiArray, GemminiArrays
from cosearch.hardware.gemmini.model import gemmini_ledger
from cosearch.hardware.groups import require_integers
from cosearch.hardware.heterogeneous import HeterogeneousASIC, heterogeneous_ledger
from cosearch.hardware.identity import Same
from cosearch.hardware.ledger import Batch, Items, Ledger
from cosearch.hardware.microcontroller import Microcontroller, microcontroller_ledger
from cosearch.hardware.pim import PIM, pim_ledger
from cosearch.hardware.roofline import Roofline, Rooflines, roofline_ledger
from cosearch.hardware.systolic import SystolicArray, SystolicArrays
from cosearch.hardware.systolic.elements import check_elements
from cosearch.hardware.systolic.model import systolic_ledger
from cosearch.hardware.technology import Technology
from cosearch.hardware.vitcod import ViTCoD, vitcod_ledger
from cosearch.spec import AcceleratorSpec, Violation
from cosearch.workload import Workload

__all__ = ["TEMPLATES", "Accelerator", "batch_of", "build", "cost_model", "fits", "trust"]

Accelerator = (
    PIM | SystolicArray | GemminiArray | HeterogeneousASIC | FuseMax | ViTCoD | Fpga | Microcontroller | Roofline
)
"""An accelerator of any template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """What belongs to a template.

    Attributes:
        parameters: the frozen dataclass; its fields are what a space file may give.
        batch: makes a batch of accelerators.
        ledger: the cost model.
        engine: what multiplies, where that is integers alone.
        fits: what a pair needs beyond what there is; None where nothing but the run file limits it.
        trust: what its figures were held against and how far they lie apart, and what they leave out; a line each.
    """

    parameters: type[Any]
    batch: Callable[[Sequence[Any]], Batch]
    ledger: Callable[[Workload, Any, Technology], Ledger]
    engine: str = ""
    fits: Callable[[Workload, Any], tuple[Violation, ...]] | None = None
    trust: tuple[str, ...]


def _items(accelerators: Sequence[Any]) -> Batch:
    return Items(tuple(accelerators))


_ALL: Mapping[str, _Template] = {
    "systolic": _Template(
        parameters=SystolicArray,
        batch=SystolicArrays.of,
        ledger=systolic_ledger,
        trust=(
            "Compute cycles and scratchpad accesses (overlap 'scalesim') equal SCALE-Sim 3.0.0's on 325 of 325 matrix "
            "products (bench/hardware/scalesim.md); no chip was measured.",
            "DRAM traffic and cycles with mapping 'search' and overlap 'double_buffered' lie near ZigZag's and "
            "AccelForge's best mappings (bench/hardware/references.md).",
            "Operators run one after another, each for the longer of its computation and its DRAM traffic.",
            "Without activation_kib, activations go to DRAM and back between operators; without weight_kib, weights "
            "are fetched for each image.",
        ),
    ),
    "gemmini": _Template(
        parameters=GemminiArray,
        batch=GemminiArrays.of,
        ledger=gemmini_ledger,
        engine="a Gemmini array",
        trust=(
            "Cycles of matrix products lie 7.8 % on average from the RTL in FireSim (16 x 16, two-fold on 11 "
            "products, worst 33.7 %; bench/hardware/gemmini.md).",
            "Dataflow 'os' was compared with no measurement; energy and area are the technology table's.",
        ),
    ),
    "heterogeneous": _Template(
        parameters=HeterogeneousASIC,
        batch=_items,
        ledger=heterogeneous_ledger,
        engine="a heterogeneous ASIC",
        trust=(
            "The assignment of products to sub-accelerators is the optimum of the model (held against brute force); "
            "the model of each dataflow was held against no measurement.",
            "Operators run one after another and exchange tensors through DRAM.",
            "Pairs of dataflows do not beat one array on vision transformers, unlike what NASAIC and Herald report of "
            "several convolutional networks (bench/hardware/heterogeneous.md).",
        ),
    ),
    "fusemax": _Template(
        parameters=FuseMax,
        batch=_items,
        ledger=fusemax_ledger,
        engine="a fused-attention array",
        trust=(
            "Latency of attention lies within 0.2 % of the paper's artifact for BERT from 1 K to 64 K tokens; its "
            "energy ratios are not reproduced (bench/hardware/attention_templates.md).",
            "Activations go to DRAM between operators.",
        ),
    ),
    "vitcod": _Template(
        parameters=ViTCoD,
        batch=_items,
        ledger=vitcod_ledger,
        engine="a ViTCoD accelerator",
        trust=(
            "Cycles lie within 7.5 % of the paper's released simulator (bench/hardware/attention_templates.md).",
            "attention_density below 1 and the encoder ask for a model trained with such masks: accuracy does not "
            "know of them.",
        ),
    ),
    "fpga": _Template(
        parameters=Fpga,
        batch=Fpgas.of,
        ledger=fpga_ledger,
        engine="an FPGA design",
        fits=fpga.fits,
        trust=(
            "Latency is 0.37 to 0.97 times that of four published designs: optimistic, for control, memory ports and "
            "the host do not stall it (bench/hardware/embedded.md).",
            "Area is 0: the device is what it is. Energy is coarse.",
        ),
    ),
    "microcontroller": _Template(
        parameters=Microcontroller,
        batch=_items,
        ledger=microcontroller_ledger,
        engine="a microcontroller's integer kernel",
        fits=microcontroller.fits,
        trust=(
            "A cycle an instruction, counted in the kernels of CMix-NN: good libraries measure 1.3 to 1.5 times as "
            "many cycles (bench/hardware/embedded.md).",
            "SRAM and flash are limits; area is 0.",
        ),
    ),
    "pim": _Template(
        parameters=PIM,
        batch=_items,
        ledger=pim_ledger,
        engine="a processing-in-memory accelerator",
        trust=(
            "At full use ISAAC-CE's peak is equal, power 11 % lower and area 8 % higher than the paper's, by secondary "
            "sources; attention on crossbars costs more than beside them, as X-Former reports, in energy by less "
            "(bench/hardware/pim.md).",
            "Analogue parts stay at 32 nm whatever the technology; no noise, endurance or layer pipelining.",
        ),
    ),
    "roofline": _Template(
        parameters=Roofline,
        batch=Rooflines.of,
        ledger=roofline_ledger,
        trust=(
            "With a machine's own measured peaks, 12 models in onnxruntime on one thread lie 25 % apart in the median, "
            "78 % at worst, in the same order (bench/hardware/roofline.md).",
            "Peak rates and bandwidth of named devices are data sheets': a bound, which kernels do not reach.",
        ),
    ),
}

TEMPLATES: Mapping[str, type[Any]] = {name: template.parameters for name, template in _ALL.items()}
"""Each template's name, as space files write it, and its class. Fields of the class are the template's parameters."""

_OF_CLASS: Mapping[type, _Template] = {template.parameters: template for template in _ALL.values()}


def build(spec: AcceleratorSpec) -> Accelerator:
    """Returns the accelerator that ``spec`` describes.

    Raises:
        SpecError: the template or a parameter is unknown, a parameter is missing, or a value makes no sense.
    """
    template = TEMPLATES.get(spec.template)
    if template is None:
        raise SpecError("template", f"is {spec.template!r}, which is unknown", did_you_mean(spec.template, TEMPLATES))
    given = spec.as_dict()
    fields = {item.name: item for item in dataclasses.fields(template)}
    for name in given:
        if name not in fields:
            raise SpecError(name, f"is not a parameter of {spec.template!r}", did_you_mean(name, fields))
    missing = [name for name, item in fields.items() if item.default is MISSING and name not in given]
    if missing:
        others = f", and so {'is' if len(missing) == 2 else 'are'} {', '.join(missing[1:])}" if missing[1:] else ""
        raise SpecError(missing[0], f"is missing from the {spec.template!r} accelerator{others}", "add it")
    return template(**given)  # type: ignore[no-any-return]


def batch_of(accelerators: Sequence[Accelerator]) -> Batch:
    """Returns ``accelerators`` as a batch for their cost model.

    Raises:
        SpecError: they are of different templates.
    """
    kinds = {type(accelerator) for accelerator in accelerators} or {SystolicArray}
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise SpecError("accelerators", f"mix {names}", "give a batch of one template")
    return _OF_CLASS[kinds.pop()].batch(accelerators)


def cost_model(batch: Batch) -> Callable[[Workload, Any, Technology], Ledger]:
    """Returns the cost model of the template that ``batch`` holds, which is not empty."""
    if isinstance(batch, Items):
        return _OF_CLASS[type(batch.items[0])].ledger
    return _BATCHES[type(batch)]


_BATCHES: Mapping[type, Callable[[Workload, Any, Technology], Ledger]] = {
    SystolicArrays: systolic_ledger,
    GemminiArrays: gemmini_ledger,
    Fpgas: fpga_ledger,
    Rooflines: roofline_ledger,
}


def fits(workload: Workload, accelerator: Accelerator) -> tuple[Violation, ...]:
    """Returns which resources of ``accelerator`` are too few for ``workload``, and by how much; nothing where it fits.

    Limits are a given device's (an FPGA's DSPs, a microcontroller's SRAM), and what is multiplied: number formats that
    the processing elements do not take are one, by an excess of 1. A pair that does not fit has no cost.
    """
    template = _OF_CLASS[type(accelerator)]
    try:
        if template.engine:
            _check_integers(Same(workload), template.engine)
        elif isinstance(accelerator, SystolicArray):
            _check_elements(Same(workload), accelerator.pe_kind, accelerator.pe_bits)
    except SpecError as error:
        return (Violation(limit=f"{error.field} {error.problem}", excess=1.0),)
    return template.fits(workload, accelerator) if template.fits is not None else ()


@lru_cache(maxsize=1024)
def _check_integers(workload: Same[Workload], engine: str) -> None:
    require_integers(workload.value, engine)


@lru_cache(maxsize=4096)
def _check_elements(workload: Same[Workload], kind: PeKind, bits: int) -> None:
    check_elements(workload.value, kind, (bits,))


def trust(accelerator: Accelerator) -> tuple[str, ...]:
    """Returns what the figures of the accelerator's template were held against, and what they leave out."""
    return _OF_CLASS[type(accelerator)].trust
