"""A space file for a model whose weights are there already: its sizes fixed, its tokens and bits searched."""

from __future__ import annotations

from cosearch.errors import UserError
from cosearch.spec import TOKEN_METHODS, ModelSpec

__all__ = ["space_of"]

_TEMPLATE = """\
# yaml-language-server: $schema=space-1.schema.json
cosearch: space/1
name: {name}
description: >-
  A model that was trained already, {depth} blocks of width {dim}; searched are how many tokens each stage keeps, how
  many bits each block uses, and the accelerator. Nothing is trained: score it with the evaluator post_training.

model:
  template: vit
  # what the weights fix
  patch: {patch}
  overlap: {overlap}
  stem_hidden: {stem_hidden}
  dim: {dim}
  depth: {depth}
  heads: {heads}
  mlp_ratio: {mlp_ratio}
  norm: {norm}
  pool: {pool}
  # what acts without training
  token_method: {{choice: [{methods}]}}
  stages: {stages}
  keep: {{per: stage, float: [0.5, 1.0], step: 0.1, when: "model.token_method != 'none'"}}
  weight_bits: {{per: block, int: [4, 8]}}
  activation_bits: {{per: block, choice: [6, 8]}}
  edge_bits: 8

accelerator:
  template: systolic
  rows: {{int: [8, 128], log: 2}}
  cols: {{int: [8, 128], log: 2}}
  dataflow: {{choice: [ws, os, is]}}
  ifmap_kib: {{int: [8, 1024], log: 2}}
  filter_kib: {{int: [8, 1024], log: 2}}
  ofmap_kib: {{int: [8, 1024], log: 2}}
  dram_bytes_per_s: {{choice: [1.6e9, 3.2e9, 6.4e9, 12.8e9, 25.6e9]}}
  clock_hz: {{int: [200_000_000, 1_000_000_000], step: 100_000_000}}
  pe_bits: {{choice: [2, 4, 8]}}
  vector_lanes: {{int: [8, 128], log: 2}}
"""

_STAGES = 4


def space_of(spec: ModelSpec, name: str) -> str:
    """Returns the text of a space file in which all but tokens, bits and accelerator are as in ``spec``.

    Args:
        spec: in floating point and with all its tokens, its blocks alike.
        name: the space's.

    Raises:
        UserError: blocks differ, or are more than attention and an MLP with a GELU.
    """
    block = spec.blocks[0]
    if any(other != block for other in spec.blocks) or (block.mixer, block.mlp) != ("softmax", "gelu"):
        raise UserError(
            "the model's blocks differ, or are not attention and an MLP; write its space file by hand, its sizes fixed"
        )
    if block.query_heads or block.kv_heads or block.rank or block.sparsity != (1, 1):
        raise UserError("the model's heads are shared, or its layers not whole; write its space file by hand")
    return _TEMPLATE.format(
        name=name,
        patch=spec.patch,
        overlap=spec.overlap,
        stem_hidden=spec.stem_hidden,
        dim=spec.dim,
        depth=len(spec.blocks),
        heads=block.heads,
        mlp_ratio=f"{block.mlp_hidden / spec.dim:.12g}",
        norm=spec.norm,
        pool=spec.pool,
        methods=", ".join(known.name for known in TOKEN_METHODS.values() if known.after_training),
        stages=min(_STAGES, len(spec.blocks)),
    )
