"""The shared parameters, and the models that are cut out of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cosearch.model import VisionTransformer, build_model
from cosearch.spec import ModelSpec
from cosearch.supernet.places import Place, is_scale, places

__all__ = ["SharedWeights", "Subnet"]


class Subnet:
    """An ordinary model whose parameters are copies of its part of the shared ones.

    Attributes:
        model: the model, in training mode; what is trained is what would be exported.
        places: where each of its parameters lies.
    """

    def __init__(self, model: VisionTransformer, found: Mapping[str, Place]) -> None:
        self.model, self.places = model, found


class SharedWeights:
    """Banks of parameters that grow as models ask for more of them.

    A part that no model has had before gets the values that `build_model` gives the model that asks for it first, so
    every model of every space can be cut out; what nobody has had yet is NaN.

    Args:
        seed: of all initial values.

    Attributes:
        values: by bank.
        gradients: by bank, of those that have any; as large as the values.
        used: the leading part of each of these that some gradient reached.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.values: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.used: dict[str, tuple[int, ...]] = {}
        self._known: set[Place] = set()

    def cut(self, spec: ModelSpec, *, keep: bool = True) -> Subnet:
        """Returns the model of ``spec`` with its part of the shared parameters.

        Scales that were never set stay 0, so that the model's first batch sets them.

        Args:
            spec: what to cut out.
            keep: whether what no model had before becomes part of the banks.
        """
        model = _skeleton(spec, self.seed)
        found = places(model)
        if not (keep or all(self._has(place) for place in found.values())):
            return self._copy().cut(spec)
        self._cover(spec, found)
        tensors = {}
        for name, place in found.items():
            part = self.values[place.bank][leading(place.view)]
            value = part.clone(memory_format=torch.contiguous_format).view(model.get_parameter(name).shape)
            if is_scale(place.bank) and not bool((value > 0).all()):
                value.zero_()  # not set for all channels: the first batch sets them together
            tensors[name] = value
        model.load_state_dict(tensors, strict=False, assign=True)
        return Subnet(model, found)

    def clear_gradients(self) -> None:
        """Drops all gradients."""
        self.gradients.clear()
        self.used.clear()

    def known(self, spec: ModelSpec) -> float:
        """Returns the share of a model's weights that were part of a model before; scales do not count."""
        have = total = 0
        for place in places(_skeleton(spec, self.seed)).values():
            if is_scale(place.bank):
                continue
            total += math.prod(place.view)
            if place in self._known:
                have += math.prod(place.view)
            elif place.bank in self.values:
                have += int((~self.values[place.bank][leading(place.view)].isnan()).sum())
        return have / total

    def grow(self, specs: Iterable[ModelSpec]) -> None:
        """Makes room for models, so that training need not stop for it."""
        for spec in specs:
            self._cover(spec, places(_skeleton(spec, self.seed)))

    def accumulate(self, subnet: Subnet) -> None:
        """Adds the gradients of a model's parameters to those of its part; keeps the scales that it set."""
        for name, place in subnet.places.items():
            parameter = subnet.model.get_parameter(name)
            if is_scale(place.bank):
                self._settle(place, parameter.detach())
            gradient = parameter.grad
            if gradient is None:
                continue
            total = self.gradients.get(place.bank)
            if total is None:
                total = self.gradients[place.bank] = torch.zeros_like(self.values[place.bank])
            total[leading(place.view)] += gradient.view(place.view)
            before = self.used.get(place.bank, place.view)
            self.used[place.bank] = tuple(map(max, before, place.view))

    def _copy(self) -> SharedWeights:
        other = SharedWeights(self.seed)
        other.values = {name: values.clone() for name, values in self.values.items()}
        return other

    def _settle(self, place: Place, scale: Tensor) -> None:
        """Keeps scales that a model's first batch has set."""
        part = self.values[place.bank][leading(place.view)]
        part.copy_(torch.where(part > 0, part, scale.view(place.view)))

    def _cover(self, spec: ModelSpec, found: Mapping[str, Place]) -> None:
        lacking = {name: place for name, place in found.items() if not self._has(place)}
        if not lacking:
            return
        fresh = dict(build_model(spec, self.seed).named_parameters())
        for name, place in lacking.items():
            self._enlarge(place)
            part = self.values[place.bank][leading(place.view)]
            part.copy_(torch.where(part.isnan(), fresh[name].detach().view(place.view), part))
            self._known.add(place)

    def _has(self, place: Place) -> bool:
        if place in self._known:
            return True
        bank = self.values.get(place.bank)
        if bank is None or any(there < wanted for there, wanted in zip(bank.shape, place.view, strict=True)):
            return False
        if bool(bank[leading(place.view)].isnan().any()):
            return False
        self._known.add(place)
        return True

    def _enlarge(self, place: Place) -> None:
        """Makes a bank as large as ``place`` needs; what is new is NaN."""
        bank = self.values.get(place.bank)
        if bank is None:
            self.values[place.bank] = torch.full(place.view, math.nan)
            return
        self.values[place.bank] = enlarged(bank, place.view, math.nan)
        if place.bank in self.gradients:
            self.gradients[place.bank] = enlarged(self.gradients[place.bank], place.view, 0.0)


def enlarged(tensor: Tensor, view: Iterable[int], fill: float) -> Tensor:
    """Returns ``tensor`` with each axis at least as long as ``view`` says, the new part filled."""
    pads = [max(0, wanted - there) for there, wanted in zip(tensor.shape, view, strict=True)]
    return F.pad(tensor, [n for pad in reversed(pads) for n in (0, pad)], value=fill) if any(pads) else tensor


def leading(view: tuple[int, ...]) -> tuple[slice, ...]:
    """Returns the index of the leading part of shape ``view``."""
    return tuple(slice(0, length) for length in view)


def _skeleton(spec: ModelSpec, seed: int) -> VisionTransformer:
    """Returns the model with parameters that hold nothing, which is built in a fraction of the time.

    A model that holds other tensors than parameters is built as it is, since those are not in any bank.
    """
    with torch.device("meta"):
        model = build_model(spec, seed)
    held = any(isinstance(v, Tensor) for module in model.modules() for v in vars(module).values())
    return build_model(spec, seed) if held or any(True for _ in model.buffers()) else model
