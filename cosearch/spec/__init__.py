"""What a candidate is, as plain data.

Everything here is frozen, hashable and goes to JSON and back. A spec checks itself once, when it is made; code that
receives one need not check again. The id of a spec is a hash of its canonical JSON: keys sorted, fields that equal
their default left out (so that a field added later does not change the id of what existed before).
"""

from __future__ import annotations

from cosearch.spec._json import Scalar, canonical_json, from_json, to_json
from cosearch.spec._methods import MIXERS, MLPS, NORMS, POOLS, TOKEN_METHODS, Mixer, TokenMethod
from cosearch.spec._model import FLOAT_BITS, BlockSpec, ModelSpec, TaskShape, bits_and_format, layer_rank
from cosearch.spec._pairs import AcceleratorSpec, Candidate, Point, Result, Status, Violation

__all__ = [
    "FLOAT_BITS",
    "MIXERS",
    "MLPS",
    "NORMS",
    "POOLS",
    "TOKEN_METHODS",
    "AcceleratorSpec",
    "BlockSpec",
    "Candidate",
    "Mixer",
    "ModelSpec",
    "Point",
    "Result",
    "Scalar",
    "Status",
    "TaskShape",
    "TokenMethod",
    "Violation",
    "bits_and_format",
    "canonical_json",
    "from_json",
    "layer_rank",
    "to_json",
]
