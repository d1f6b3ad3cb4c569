from cosearch.hardware.widths import ACCUMULATOR_BITS

__all__ = ["ACCUMULATOR_BITS"]
