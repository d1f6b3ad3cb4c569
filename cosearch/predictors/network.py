"""A small neural predictor that learns what is free first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cosearch.errors import UserError
from cosearch.predictors.base import Columns, Link, Prediction, Target, checked, predictive, unfitted, with_fidelity
from cosearch.predictors.encoding import names

__all__ = ["PretrainedNetwork"]

Floats = NDArray[np.float64]

_HIDDEN = 64
_PRETRAIN_STEPS, _FIT_STEPS, _BATCH = 200, 200, 64


class PretrainedNetwork:
    """An ensemble of two-layer perceptrons, pretrained to predict statistics that cost nothing.

    FBNetV3: Dai et al. 2021, "FBNetV3: Joint Architecture-Recipe Search using Predictor Pretraining", CVPR,
    https://arxiv.org/abs/2006.02049: a predictor is pretrained on architecture statistics such as FLOPs and parameters
    of many models, then fine-tuned on the accuracy of few. The statistics here are the encoding's own ``total.*``
    columns, which are therefore hidden from the input. Models to pretrain on are given once; without any, those that
    are learnt serve.

    The mean is the members'; the variance is theirs plus that of the residuals on rows that a member did not see.

    Args:
        link: how values are seen; ``logit`` for accuracies.
        seed: of weights and order.
        members: networks.
        pool: encodings of random models to pretrain on, shape (models, columns).
    """

    kind = "pretrained_network"

    def __init__(self, link: Link = "identity", seed: int = 0, members: int = 4, pool: ArrayLike | None = None) -> None:
        self.link, self.seed, self.members = link, seed, members
        self._pool = None if pool is None else with_fidelity(pool, None)
        self._target: Target | None = None
        self._columns: Columns | None = None
        self._nets: list[_Net] = []
        self._left_over = 0.0

    def fit(
        self,
        encodings: ArrayLike,
        values: ArrayLike,
        noise: ArrayLike | None = None,
        fidelity: ArrayLike | None = None,
    ) -> None:
        """Learns from rows; see `cosearch.predictors.Predictor`."""
        x, y, known = checked(encodings, values, noise, fidelity)
        if self._pool is not None and self._pool.shape[1] != x.shape[1]:
            raise UserError(
                f"the pool has {self._pool.shape[1] - 1} columns, the encodings {x.shape[1] - 1}; encode both alike"
            )
        self._target, self._columns = Target.of(y, self.link), Columns.of(x)
        every = x if self._pool is None else np.concatenate([x, self._pool])
        self._mean, deviation = every.mean(axis=0), every.std(axis=0)
        self._scale = np.where(deviation > 1e-9, deviation, 1.0)
        self._free = _statistics(x.shape[1])
        wanted = torch.tensor(self._target.forward(y), dtype=torch.float32)
        weights = torch.tensor(1.0 / (1.0 + self._target.noise(y, known) ** 2), dtype=torch.float32)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self._train(self._seen(every), self._seen(x), wanted, weights)
        finally:
            torch.set_num_threads(threads)

    def _train(self, pool: Tensor, rows: Tensor, wanted: Tensor, weights: Tensor) -> None:
        self._nets, unseen = [], []
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(rows))
        for member in range(self.members):
            held = np.zeros(len(rows), dtype=bool)
            if self.members > 1 and len(rows) >= 2 * self.members:
                held[order[member :: self.members]] = True
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            net = _Net.drawn(rows.shape[1], int(self._free.sum()), generator)
            mask = torch.tensor(self._free)
            _optimise(net, pool.masked_fill(mask, 0.0), pool[:, mask], _PRETRAIN_STEPS, generator, free=True)
            learnt = torch.tensor(~held)
            shown = rows.masked_fill(mask, 0.0)
            _optimise(net, shown[learnt], wanted[learnt], _FIT_STEPS, generator, weights=weights[learnt])
            with torch.no_grad():
                unseen.append(((net(shown)[0] - wanted) ** 2)[torch.tensor(held)].numpy())
            self._nets.append(net)
        every = np.concatenate(unseen)
        self._left_over = float(np.sqrt(every.mean())) if len(every) else 1.0

    def predict(self, encodings: ArrayLike, fidelity: ArrayLike | None = None) -> Prediction:
        """Returns what is expected of each row."""
        if self._target is None or self._columns is None:
            raise unfitted()
        x = with_fidelity(encodings, fidelity)
        inside = self._columns.inside(x)
        with torch.no_grad():
            shown = self._seen(x).masked_fill(torch.tensor(self._free), 0.0)
            each = np.stack([net(shown)[0].numpy().astype(np.float64) for net in self._nets])
        std = np.sqrt(each.var(axis=0) + self._left_over**2)
        return predictive(each.mean(axis=0), std, self._target, inside)

    def _seen(self, x: Floats) -> Tensor:
        return torch.tensor((x - self._mean) / self._scale, dtype=torch.float32).clamp_(-5.0, 5.0)

    def state(self) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
        """Returns all that was learnt."""
        if self._target is None or self._columns is None:
            raise unfitted()
        arrays: dict[str, NDArray[Any]] = {"mean": self._mean, "scale": self._scale, "free": self._free}
        for member, net in enumerate(self._nets):
            arrays |= {f"net{member}.{name}": value.numpy() for name, value in net.state_dict().items()}
        meta = {
            "link": self.link,
            "seed": self.seed,
            "members": self.members,
            "centre": self._target.centre,
            "spread": self._target.spread,
            "left_over": self._left_over,
        }
        return {**arrays, **self._columns.state()}, meta

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> PretrainedNetwork:
        """Returns what `state` gave."""
        found = cls(link=meta["link"], seed=meta["seed"], members=meta["members"])
        found._target = Target(link=meta["link"], centre=meta["centre"], spread=meta["spread"])
        found._columns, found._left_over = Columns.from_state(arrays), meta["left_over"]
        found._mean, found._scale, found._free = (arrays[name] for name in ("mean", "scale", "free"))
        for member in range(found.members):
            net = _Net.drawn(len(found._mean), int(found._free.sum()), torch.Generator().manual_seed(0))
            prefix = f"net{member}."
            own = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
            net.load_state_dict({name: torch.tensor(array) for name, array in own.items()})
            found._nets.append(net)
        return found


class _Net(nn.Module):
    """Two hidden layers; one output for the value, others for the statistics."""

    def __init__(self, columns: int, statistics: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(columns, _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN)
        self.value, self.free = nn.Linear(_HIDDEN, 1), nn.Linear(_HIDDEN, max(statistics, 1))

    @classmethod
    def drawn(cls, columns: int, statistics: int, generator: torch.Generator) -> _Net:
        """Returns a network whose weights depend on the generator alone."""
        with torch.random.fork_rng(devices=[]):
            net = cls(columns, statistics)
        with torch.no_grad():
            for layer in (net.fc1, net.fc2, net.value, net.free):
                bound = 1.0 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()
        return net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns values, shape (rows,), and statistics, shape (rows, statistics)."""
        hidden = self.fc2(self.fc1(x).relu()).relu()
        return self.value(hidden).squeeze(1), self.free(hidden)


def _optimise(
    net: _Net,
    x: Tensor,
    y: Tensor,
    steps: int,
    generator: torch.Generator,
    *,
    free: bool = False,
    weights: Tensor | None = None,
) -> None:
    """Trains by AdamW with a cosine; ``free`` fits the statistics, otherwise the value."""
    if y.dim() == 2 and y.shape[1] == 0:
        return
    rate = 3e-3 if free else 2e-3
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        picked = torch.randint(len(x), (_BATCH,), generator=generator)
        value, statistics = net(x[picked])
        error = (statistics - y[picked]).square().mean(1) if free else (value - y[picked]).square()
        loss = (error if weights is None else error * weights[picked]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _statistics(columns: int) -> NDArray[np.bool_]:
    """Returns which columns are statistics: ``total.*`` where the columns are those of an encoding."""
    known = names()
    free = np.zeros(columns, dtype=bool)
    if columns >= len(known) + 1:  # further features may stand behind the encoding, and fidelity is last
        free[: len(known)] = [name.startswith("total.") for name in known]
    return free
