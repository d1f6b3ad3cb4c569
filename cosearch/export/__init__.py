"""A chosen pair as a folder: weights, ONNX, accelerator files and a card, checked against each other."""

from __future__ import annotations

from cosearch.export._agreement import Agreement, FollowedAgreement, MismatchError, follow
from cosearch.export._bundle import Bundle, CheckReport, check_bundle, export_bundle
from cosearch.export._card import wilson_interval
from cosearch.export._graph import OPSET, PixelModel, onnx_graph

__all__ = [
    "OPSET",
    "Agreement",
    "Bundle",
    "CheckReport",
    "FollowedAgreement",
    "MismatchError",
    "PixelModel",
    "check_bundle",
    "export_bundle",
    "follow",
    "onnx_graph",
    "wilson_interval",
]
