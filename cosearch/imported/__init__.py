"""Models that were not made here: any vision module of torch as a workload, vision transformers with their weights.

    >>> import torch
    >>> from cosearch.imported import workload_of
    >>> layer = torch.nn.Linear(8, 4)
    >>> workload_of(layer, (torch.zeros(1, 8),)).macs
    32

`workload_of` gives the `cosearch.workload.Workload` that every cost model takes; `load_module` finds a module by
``file.py:factory``, ``package.module:factory`` or a saved ``.pt2``. `adopt` makes a vision transformer of timm,
transformers or torchvision, or its parameters alone, a model of ours with the same logits; `with_weights` and
`quantise` give it fewer tokens and bits without training.
"""

from __future__ import annotations

from cosearch.imported.adopting import AdoptedModel, adopt, as_model, with_pixels_of
from cosearch.imported.loading import ImportedModule, load_module
from cosearch.imported.post_training import ROUNDINGS, quantise, with_weights
from cosearch.imported.reading import workload_of
from cosearch.imported.space_file import space_of
from cosearch.imported.weights import adopted_from_file, adopted_from_reference, adopted_to_bytes

__all__ = [
    "ROUNDINGS",
    "AdoptedModel",
    "ImportedModule",
    "adopt",
    "adopted_from_file",
    "adopted_from_reference",
    "adopted_to_bytes",
    "as_model",
    "load_module",
    "quantise",
    "space_of",
    "with_pixels_of",
    "with_weights",
    "workload_of",
]
