"""Reads an exported graph from front to back and writes its workload down."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

from cosearch.errors import SpecError
from cosearch.imported import operators as names
from cosearch.imported.exporting import check_input, export_program
from cosearch.imported.graph import (
    argument,
    dependent_nodes,
    elements,
    operator_name,
    parameters,
    path,
    results,
    shape,
)
from cosearch.imported.products import PRODUCTS, convolution, product, scaled_dot_product_attention
from cosearch.imported.quantisers import code_bits, find_quantisers
from cosearch.imported.record import Extent, Record, Value
from cosearch.spec import FLOAT_BITS
from cosearch.workload import OperatorKind, Workload

__all__ = ["workload_of"]

Unknown = Literal["refuse", "free"]
_CONTROL_FLOW = ("cond", "while_loop", "scan", "map", "map_impl", "associative_scan", "switch")
_LISTED = 8
"""Unknown operators that an error names."""


def workload_of(
    module: nn.Module | ExportedProgram,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    name: str = "",
    unknown: Unknown = "refuse",
) -> Workload:
    """Returns the workload of one image through any module that ``torch.export`` takes.

    Every matrix product stands for itself (`cosearch.imported.products`), every other operator for the nearest kind
    that the hardware models know (`cosearch.imported.operators`). What depends on parameters alone is computed once,
    before any image, and is not counted. Views are read where the tensor is. Tensors that a matrix product reads have
    ``activation_bits``, others `cosearch.workload.RESIDUAL_BITS`, results `cosearch.spec.FLOAT_BITS`; quantisers that
    the module carries say otherwise for what they quantise.

    Args:
        module: a module, in any mode; it is read in inference mode. Or an exported program.
        example_inputs: what ``forward`` takes, a batch of 1; not needed for an exported program.
        weight_bits: width of weights, 2 to 16, or 32 for floating point.
        activation_bits: width of the operands of matrix products, likewise.
        name: what errors call the module; its class if left out.
        unknown: what to do with operators that nothing is known of: refuse, or let them cost nothing.

    Raises:
        SpecError: an operator is unknown; a shape or the control flow depends on the image; example inputs are
            missing, hold more than one image or no real numbers; a width is none.
        UserError: ``torch.export`` does not take the module.
    """
    for field, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if not (2 <= bits <= 16 or bits == FLOAT_BITS):
            raise SpecError(
                field,
                f"is {bits}, but integers have 2 to 16 bits",
                f"write 2 to 16, or {FLOAT_BITS} for floating point",
            )
    if unknown not in ("refuse", "free"):
        raise SpecError("unknown", f"is {unknown!r}", "write 'refuse' or 'free'")
    name = name or type(module).__name__
    program = export_program(module, example_inputs, name)
    return _Reader(program, Record(weight_bits, activation_bits), name, unknown).read()


class _Reader:
    """Goes through the nodes in order; a method for each sort of operator.

    Attributes:
        record: what was written down so far.
    """

    def __init__(self, program: ExportedProgram, record: Record, name: str, unknown: Unknown) -> None:
        self.record = record
        self._program, self._name, self._policy = program, name, unknown
        self._dependent = dependent_nodes(program)
        self._quantisers = find_quantisers(program.graph, self._dependent)
        self._values: dict[Node, Value] = {}
        self._unknown: list[str] = []

    def read(self) -> Workload:
        """Returns the workload."""
        meaning = {name: (target, given) for name, target, given in parameters(self._program)}
        for node in self._program.graph.nodes:
            if node.op == "placeholder":
                self._values[node] = self._placeholder(node, *meaning[node.name])
            elif node.op == "call_function":
                self._values[node] = self._call(node)
            elif node.op == "output":
                self.record.outputs.update(base for source in node.all_input_nodes for base in self.value(source).bases)
        if self._unknown and self._policy == "refuse":
            listed = ", ".join(self._unknown[:_LISTED])
            more = f" and {len(self._unknown) - _LISTED} more" if len(self._unknown) > _LISTED else ""
            raise SpecError(
                self._name,
                f"has operators whose cost is not known: {listed}{more}",
                "write them with operators that are, or pass unknown='free' to let them cost nothing",
            )
        found = self.record.workload()
        if not found.operators:
            raise SpecError(self._name, "computes nothing from its input", "give a module whose forward reads it")
        return found

    def value(self, argument: Any) -> Value:
        """Returns what an argument stands for; nothing for what is no node."""
        return self._values.get(argument, Value()) if isinstance(argument, Node) else Value()

    def label(self, node: Node, part: str = "") -> str:
        """Returns the name of the node's operator: the module's path, and what it does unless that is a layer's all."""
        name, place = operator_name(node), path(node)
        if not part and place and (name == "linear" or name in names.CONVOLUTIONS):
            return place
        part = part or name.removeprefix("_")
        return f"{place}.{part}" if place else part

    def _placeholder(self, node: Node, target: str, given: bool) -> Value:
        if not isinstance(node.meta.get("val"), Tensor):
            return Value()
        if given:
            check_input(node.name, node.meta["val"])
            self.record.sizes[node.name] = elements(node)
            return Value(bases=(node.name,))
        self.record.sizes[target] = elements(node)
        return Value(parameters=frozenset({target}))

    def _call(self, node: Node) -> Value:
        if node.target is operator.getitem:
            return self.value(node.args[0])
        if node not in self._dependent:
            return Value(
                parameters=frozenset().union(*(self.value(source).parameters for source in node.all_input_nodes)),
                bits=self._constant_bits(node),
            )
        if node in self._quantisers.ends:
            source, bits = self._quantisers.ends[node]
            return Value(bases=self.value(source).bases, bits=bits)
        if node in self._quantisers.inner:
            return Value()
        if operator_name(node) in _CONTROL_FLOW:
            raise SpecError(
                f"{path(node) or 'forward'} (torch.{operator_name(node)})",
                "is control flow that depends on the values of the image",
                "write it with static shapes and without branches",
            )
        for index in range(len(results(node))):
            shape(node, index)  # refuses shapes that depend on the image
        if results(node) and elements(node) == 0:
            return Value()
        if not isinstance(node.target, OpOverload):
            return self._refuse(node)
        return self._operator(node) if results(node) else self._joined(node)

    def _constant_bits(self, node: Node) -> int | None:
        if node in self._quantisers.ends:
            return self._quantisers.ends[node][1]
        if operator_name(node) in names.FREE or operator_name(node) in names.FAKE_QUANTISERS:
            return self._joined(node).bits
        return None

    def _operator(self, node: Node) -> Value:
        name = operator_name(node)
        if name in names.FREE:
            return self._joined(node)
        if name in names.FAKE_QUANTISERS:
            return self._joined(node)
        if name in names.CONVOLUTIONS:
            return convolution(self, node)
        if name in names.SDPA:
            return scaled_dot_product_attention(self, node)
        if name in PRODUCTS:
            return product(self, node)
        if name in names.BEST and len(results(node)) + ("argm" in name) > 1 and argument(node, "dim") is not None:
            return self._best(node)
        for members, method in self._treatments():
            if name in members:
                return method(node)
        return self._refuse(node)

    def _treatments(self) -> tuple[tuple[Any, Callable[[Node], Value]], ...]:
        return (
            (names.POINTWISE, self._pointwise),
            (names.EXPONENTIALS, lambda node: self._elementwise(node, OperatorKind.GELU)),
            (names.RECIPROCALS, lambda node: self._elementwise(node, OperatorKind.SIGMOID)),
            (names.POWERS, lambda node: self._elementwise(node, OperatorKind.POWER)),
            (names.SOFTMAXES, self._softmax),
            (names.NORMALISATIONS, self._normalisation),
            (names.INFERENCE_BATCH_NORMS, self._affine),
            (names.BATCH_NORMS, self._normalisation),
            (names.REDUCTIONS, self._reduction),
            (names.BEST, self._reduction),
            (names.POOLS, self._pool),
            (names.INTERPOLATIONS, self._pool),
            (names.SORTS, self._sort),
            (names.GATHERS, self._gather),
            (names.SCATTERS, self._scatter),
        )

    def _joined(self, node: Node) -> Value:
        """Returns all that the node reads, as one value."""
        read = [self.value(source) for source in node.all_input_nodes]
        bits = code_bits(node) if operator_name(node) in names.FAKE_QUANTISERS else None
        widths = {value.bits for value in read if value.bases or not any(other.bases for other in read)}
        return Value(
            bases=tuple(dict.fromkeys(base for value in read for base in value.bases)),
            bits=bits or (widths.pop() if len(widths) == 1 else None),
        )

    def _refuse(self, node: Node) -> Value:
        place = path(node)
        self._unknown.append(f"{node.target} in {place}" if place else f"{node.target}")
        return self._joined(node)

    def _vector(self, node: Node, kind: OperatorKind, extent: Extent) -> Value:
        read = [self.value(source) for source in node.all_input_nodes]
        return self.record.vector(self.label(node), kind, extent, read, out=elements(node))

    def _extent(self, sizes: tuple[int, ...], read: Value) -> Extent:
        """Returns how a vector operator sees ``sizes``: as the one before it did, if it reads all that this wrote."""
        total = math.prod(sizes)
        if len(read.bases) == 1:
            before = self.record.extents.get(read.bases[0])
            if before is not None and math.prod(before) == total and self.record.sizes[read.bases[0]] == total:
                return before
        columns = sizes[-1] if sizes else 1
        if len(sizes) >= 4:
            return math.prod(sizes[:-2]), sizes[-2], columns
        return 1, total // columns, columns

    def _elementwise(self, node: Node, kind: OperatorKind) -> Value:
        read = [self.value(source) for source in node.all_input_nodes if self.value(source).bases]
        return self._vector(node, kind, self._extent(shape(node), read[0]))

    def _pointwise(self, node: Node) -> Value:
        name = operator_name(node)
        if name in names.SCALINGS:
            first, second = node.args[0], node.args[1]
            constant = [value for value in (first, second) if not self.value(value).bases]
            single = all(not isinstance(value, Node) or elements(value) == 1 for value in constant)
            if constant and single and (name == "mul" or constant[0] is second):
                scaled = self.value(first if constant[0] is second else second)
                return Value(bases=scaled.bases, bits=scaled.bits)
            if name not in names.PRODUCTS_BY_VALUE and self.value(second).bases:
                return self._division(node, second)
        if name in names.COMPARISONS:
            return self._elementwise(node, OperatorKind.RELU)
        product = name in names.PRODUCTS_BY_VALUE or name in names.SCALINGS
        return self._elementwise(node, OperatorKind.MULTIPLY if product else OperatorKind.ADD)

    def _division(self, node: Node, divisor: Any) -> Value:
        """Divides each value by one of ``divisor``, whose values are shared by as many as the result has more."""
        total, divisors = elements(node), elements(divisor)
        natural = self._extent(shape(node), self.value(divisor))
        found = self._vector(node, OperatorKind.DIVIDE, (1, divisors, max(1, total // divisors)))
        self.record.extents[found.bases[0]] = natural
        return found

    def _rows(self, node: Node, dim: int) -> Extent:
        """Returns one repetition with a row for each slice along ``dim`` of the first operand."""
        source = node.args[0]
        assert isinstance(source, Node)
        sizes = shape(source)
        columns = sizes[dim] if sizes else 1
        return 1, math.prod(sizes) // columns, columns

    def _softmax(self, node: Node) -> Value:
        source = node.args[0]
        assert isinstance(source, Node)
        extent = self._extent(shape(source), self.value(source))
        _, rows, columns = self._rows(node, int(argument(node, "dim")))
        if extent[2] != columns or extent[0] * extent[1] != rows:
            extent = 1, rows, columns
        return self._vector(node, OperatorKind.SOFTMAX, extent)

    def _normalisation(self, node: Node) -> Value:
        name, source = operator_name(node), node.args[0]
        assert isinstance(source, Node)
        sizes = shape(source)
        total = math.prod(sizes)
        if name in ("group_norm", "native_group_norm"):
            columns = total // int(argument(node, "num_groups" if name == "group_norm" else "group"))
        elif name in ("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"):
            columns = math.prod(argument(node, "normalized_shape"))
        else:  # by channel
            columns = total // sizes[1]
        read = Value(bases=self.value(source).bases)
        return self.record.vector(
            self.label(node), OperatorKind.LAYERNORM, (1, total // columns, columns), [read], out=total
        )

    def _affine(self, node: Node) -> Value:
        """Batch normalisation after a linear layer or a convolution joins its weights, else is a scale and a shift.

        Joining: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, section 3.2.
        """
        source = node.args[0]
        while isinstance(source, Node) and operator_name(source) in names.FREE and len(source.users) == 1:
            source = source.args[0]
        assert isinstance(source, Node)
        layer = operator_name(source) in {*names.CONVOLUTIONS, "linear", "addmm", "mm"}
        if layer and len(source.users) == 1 and source in self._dependent:
            return Value(bases=self.value(source).bases)
        read = self.value(node.args[0])
        extent = self._extent(shape(node), read)
        return self.record.vector(self.label(node), OperatorKind.AFFINE, extent, [read], out=math.prod(shape(node)))

    def _reduction(self, node: Node) -> Value:
        source = node.args[0]
        assert isinstance(source, Node)
        sizes = shape(source)
        columns = sizes[-1] if sizes else 1
        kind = OperatorKind.POOL if operator_name(node) in names.SUMS else OperatorKind.SCORE
        return self._vector(node, kind, (1, math.prod(sizes) // columns, columns))

    def _pool(self, node: Node) -> Value:
        name, source = operator_name(node), node.args[0]
        assert isinstance(source, Node)
        if name in names.INTERPOLATIONS:
            window = names.INTERPOLATIONS[name]
        elif "adaptive" in name:  # windows may overlap by a pixel where sizes do not divide
            return self._vector(node, OperatorKind.POOL, (1, math.prod(shape(source)[2:]), shape(source)[1]))
        else:
            kernel = argument(node, "kernel_size")
            spatial = len(shape(node)) - 2
            window = math.prod(kernel if len(kernel) == spatial else tuple(kernel) * spatial)
        sizes, kind = shape(node), OperatorKind.SCORE if name in names.INTERPOLATIONS else OperatorKind.POOL
        return self._vector(node, kind, (1, math.prod(sizes[2:]), sizes[1] * window))

    def _best(self, node: Node) -> Value:
        extent = self._rows(node, int(argument(node, "dim")))
        return self._vector(node, OperatorKind.SELECT if extent[1] > 1 else OperatorKind.SCORE, extent)

    def _sort(self, node: Node) -> Value:
        dim = argument(node, "dim")
        _, rows, columns = self._rows(node, -1 if dim is None else int(dim))
        return self._vector(node, OperatorKind.SELECT, (rows, 1, columns))

    def _gather(self, node: Node) -> Value:
        source = node.args[0]
        others = [item for item in node.all_input_nodes if item is not source]
        if not any(self.value(item).bases for item in others):
            return self._joined(node)
        return self._moved(node, shape(node))

    def _scatter(self, node: Node) -> Value:
        moved = next(
            (item for field in ("src", "source", "values") if isinstance(item := argument(node, field), Node)), node
        )
        return self._moved(node, shape(moved))

    def _moved(self, node: Node, sizes: tuple[int, ...]) -> Value:
        columns = sizes[-1] if sizes else 1
        kind = OperatorKind.MERGE if operator_name(node) in names.ADDING_SCATTERS else OperatorKind.GATHER
        return self._vector(node, kind, (1, math.prod(sizes) // columns, columns))
