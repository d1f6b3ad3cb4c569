"""Processors and GPUs by their peak rates, bandwidth, cache and power."""

from __future__ import annotations

from cosearch.hardware.roofline.devices import DEVICES, Device
from cosearch.hardware.roofline.model import roofline_ledger
from cosearch.hardware.roofline.template import Roofline, Rooflines

__all__ = ["DEVICES", "Device", "Roofline", "Rooflines", "roofline_ledger"]
