"""Workloads of models that were not made here: any vision module of torch, through `torch.export`.

    >>> import torch
    >>> from cosearch.imported import workload_of
    >>> layer = torch.nn.Linear(8, 4)
    >>> workload_of(layer, (torch.zeros(1, 8),)).macs
    32

`workload_of` gives the `cosearch.workload.Workload` that every cost model takes; `load_module` finds a module by
``file.py:factory``, ``package.module:factory`` or a saved ``.pt2``.
"""

from __future__ import annotations

from cosearch.imported.loading import ImportedModule, load_module
from cosearch.imported.reading import workload_of

__all__ = ["ImportedModule", "load_module", "workload_of"]
