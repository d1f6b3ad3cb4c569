"""Whether an ONNX graph computes what the torch model computes.

Two runtimes add floating-point numbers in different orders. Nearly always that ends in the seventh digit; but where a
value stands on the border between two codes, or two tokens score the same, one rounds up and the other down, and from
there on they differ visibly, both being right. So the check follows: at every rounding, sorting and maximum of the
graph, in the order they run, torch takes the decision that onnxruntime took, and each decision must be one that
torch's own values allow. Then everything between decisions must agree to float precision, logits included.

Floating-point and MX formats have borders of another kind, between binades, where the last bit of a value decides how
finely it, or its whole block, is rounded. No operator of the graph stands for that decision, so it is not followed: a
few roundings may then differ, and the logits by what these change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cosearch.errors import CosearchError
from cosearch.model.formats import IntegerQuantizer, Quantizer

__all__ = ["Agreement", "FollowedAgreement", "MismatchError", "compare", "follow", "logits", "session"]

_BATCH = 64
_FOLLOWED_BATCH = 16
_BORDER = 1e-3
"""Distance from the border between two codes, in codes, up to which either is right."""

_FLOAT = 1e-4
"""Relative difference that summation in another order may leave, divisions and powers behind it included: of 8-bit
codes a hundredth of a code, of 16-bit codes three."""

_LOGITS = 1e-4
"""Largest difference of logits after the same decisions, relative to the largest logit (or 1)."""

_UNFOLLOWED = 1e-3
"""Share of the roundings that may not be followed where formats have binades."""

_COARSE_LOGITS = 2e-2
"""Median over images of the largest difference of logits, relative to the largest logit, where roundings are not
followed."""

_KINDS = {"Round": "rounding", "TopK": "sorting", "ArgMax": "maximum"}


class MismatchError(CosearchError):
    """The ONNX graph and the torch model compute different things."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedAgreement:
    """What following onnxruntime's decisions in torch showed.

    Attributes:
        images: images looked at.
        decisions: values rounded, rows sorted and maxima taken.
        borders: decisions that torch on its own would have taken the other way, all within the border.
        logit_difference: largest difference of logits after the same decisions.
        unfollowed: roundings on another scale in onnxruntime than in torch; only formats with binades have such.
    """

    images: int
    decisions: int
    borders: int
    logit_difference: float
    unfollowed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far logits of torch and onnxruntime lie apart when each runs on its own.

    Attributes:
        images: images looked at.
        equal_predictions: share of labels that both read the same.
        max_difference: largest difference of logits.
        median_difference: median over the images of the largest difference in each.
    """

    images: int
    equal_predictions: float
    max_difference: float
    median_difference: float


def session(graph: bytes) -> onnxruntime.InferenceSession:
    """Returns a session on the CPU as a user would make it, but silent and with torch's number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def logits(running: onnxruntime.InferenceSession, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns logits (n, labels, classes) of uint8 images (n, height, width, channels), read in batches."""
    return np.concatenate([running.run(["logits"], {"image": part})[0] for part in _parts(images, _BATCH)])


def compare(torch_logits: NDArray[np.float32], onnx_logits: NDArray[np.float32], where: str) -> Agreement:
    """Returns how far apart two sets of logits (n, labels, classes) of the same images are.

    Raises:
        MismatchError: onnxruntime's are of another shape, or no numbers.
    """
    images = len(torch_logits)
    if torch_logits.shape != onnx_logits.shape or not np.isfinite(onnx_logits).all():
        raise MismatchError(
            f"onnxruntime's logits on {where} have shape {onnx_logits.shape} and "
            f"{np.count_nonzero(~np.isfinite(onnx_logits))} of them are no numbers; {_REMEDY}"
        )
    same = torch_logits.argmax(axis=2) == onnx_logits.argmax(axis=2)
    distance = np.abs(torch_logits - onnx_logits).reshape(images, -1).max(axis=1)
    return Agreement(
        images=images,
        equal_predictions=float(same.mean()),
        max_difference=float(distance.max()),
        median_difference=float(np.median(distance)),
    )


_REMEDY = (
    "the bundle cannot be trusted; please report this with the model's id and the versions of torch and onnxruntime"
)


def follow(model: nn.Module, graph: bytes, images: NDArray[np.uint8]) -> FollowedAgreement:
    """Returns how ``model`` agrees with ``graph`` when it takes the decisions that onnxruntime takes.

    Args:
        model: `cosearch.export.PixelModel` of the exported model.
        graph: the ONNX file.
        images: uint8, shape (n, height, width, channels).

    Raises:
        MismatchError: a decision that torch's values do not allow, or logits that differ.
    """
    proto = onnx.load_from_string(graph)
    taken = [(node.op_type, node.output[-1]) for node in proto.graph.node if node.op_type in _KINDS]
    for kind, name in taken:
        element = onnx.TensorProto.FLOAT if kind == "Round" else onnx.TensorProto.INT64
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
    running = session(proto.SerializeToString())
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    exact = all(isinstance(module, IntegerQuantizer) for module in quantizers)
    decisions = borders = unfollowed = 0
    distances: list[float] = []
    largest = 1.0
    for part in _parts(images, _FOLLOWED_BATCH):
        values = running.run(["logits", *(name for _, name in taken)], {"image": part})
        mode = _Follow(dict(zip((f"{kind} {name}" for kind, name in taken), values[1:], strict=True)), exact=exact)
        with torch.no_grad(), mode:
            out = model(torch.from_numpy(part))
        mode.check_all_taken()
        distance = np.abs(out.numpy() - values[0]).reshape(len(part), -1).max(axis=1)
        largest = max(largest, float(np.abs(values[0]).max()))
        if exact and not float(distance.max()) <= _LOGITS * max(1.0, float(np.abs(values[0]).max())):
            raise MismatchError(f"after the same decisions logits differ by {float(distance.max()):.2g}; {_REMEDY}")
        distances.extend(distance.tolist())
        decisions, borders = decisions + mode.decisions, borders + mode.borders
        unfollowed += mode.unfollowed
    if unfollowed > _UNFOLLOWED * decisions:
        raise MismatchError(f"{unfollowed} of {decisions} decisions are on another scale in onnxruntime; {_REMEDY}")
    if not exact and not float(np.median(distances)) <= _COARSE_LOGITS * largest:
        raise MismatchError(f"logits differ by {float(np.median(distances)):.2g} in the median; {_REMEDY}")
    return FollowedAgreement(
        images=len(images),
        decisions=decisions,
        borders=borders,
        logit_difference=max(distances, default=0.0),
        unfollowed=unfollowed,
    )


def _parts(images: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(images), size):
        yield np.array(images[start : start + size])  # a copy: torch takes no read-only arrays


class _Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces the outcome of each rounding, sort and maximum by the given one, after checking that it is allowed."""

    def __init__(self, given: Mapping[str, NDArray[Any]], *, exact: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.decisions = self.borders = self.unfollowed = 0
        self._exact = exact
        self._given: dict[str, deque[tuple[str, NDArray[Any]]]] = {kind: deque() for kind in _KINDS}
        for name, value in given.items():
            self._given[name.partition(" ")[0]].append((name, value))

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        out = func(*args, **named)
        if func in (torch.ops.aten.round.default, torch.ops.aten.round_.default):
            return self._rounded(args[0], out)
        if func is torch.ops.aten.sort.stable:
            return self._sorted(args[0], out, named.get("dim", -1), named.get("descending", False))
        if func is torch.ops.aten.sort.default:
            dim, descending = (*args[1:], *(-1, False)[len(args) - 1 :])[:2]
            return self._sorted(args[0], out, named.get("dim", dim), named.get("descending", descending))
        if func is torch.ops.aten.max.dim:
            return self._largest(args[0], out, args[1])
        return out

    def _next(self, kind: str, shape: torch.Size) -> tuple[str, Tensor]:
        if not self._given[kind]:
            raise MismatchError(f"torch does one {_KINDS[kind]} more than the ONNX graph; {_REMEDY}")
        name, value = self._given[kind].popleft()
        if value.size != shape.numel():
            raise MismatchError(f"{name} has shape {value.shape} in ONNX, {tuple(shape)} in torch; {_REMEDY}")
        return name, torch.from_numpy(value).reshape(shape)

    def _refuse(self, name: str, excess: float) -> None:
        raise MismatchError(
            f"{name}: a decision of onnxruntime is {excess:.2g} beyond what torch's values allow; {_REMEDY}"
        )

    def _rounded(self, before: Tensor, own: Tensor) -> Tensor:
        name, given = self._next("Round", own.shape)
        allowed = 0.5 + _BORDER + _FLOAT * float(own.abs().max())
        far = (before - given).abs() - allowed
        whole = bool((given == given.round()).all())
        if not whole or (self._exact and not float(far.max()) <= 0):
            self._refuse(name, float(far.max()))
        if not self._exact:
            self.unfollowed += int((far > 0).sum())
            given = torch.where(far > 0, own, given)
        self.decisions += given.numel()
        self.borders += int((given != own).sum())
        return given

    def _sorted(self, x: Tensor, own: Any, dim: int, descending: bool) -> tuple[Tensor, Tensor]:
        name, index = self._next("TopK", x.shape)
        size = x.shape[dim]
        whole = torch.arange(size).view(-1, *[1] * (x.dim() - 1 - dim % x.dim())).expand_as(x)
        if not torch.equal(
            torch.bincount((index + 0 * whole).flatten(), minlength=size), torch.bincount(whole.flatten())
        ):
            raise MismatchError(f"{name}: not a permutation; {_REMEDY}")
        values = x.gather(dim, index)
        steps = values.diff(dim=dim) * (1 if descending else -1)
        excess = float(steps.max()) - _FLOAT * float(x.abs().max()) if size > 1 else 0.0
        if excess > 0:
            self._refuse(name, excess)
        self.decisions += x.numel() // size
        self.borders += int((index != own[1]).any(dim=dim).sum())
        return values, index

    def _largest(self, x: Tensor, own: Any, dim: int) -> tuple[Tensor, Tensor]:
        name, index = self._next("ArgMax", own[1].shape)
        values = x.gather(dim, index.unsqueeze(dim)).squeeze(dim)
        excess = float((own[0] - values).max()) - _FLOAT * float(x.abs().max())
        if excess > 0:
            self._refuse(name, excess)
        self.decisions += index.numel()
        self.borders += int((index != own[1]).sum())
        return values, index

    def check_all_taken(self) -> None:
        """Raises `MismatchError` if the graph decides more than torch did."""
        for kind, queue in self._given.items():
            if queue:
                raise MismatchError(f"the ONNX graph does {len(queue)} {_KINDS[kind]} more than torch; {_REMEDY}")
