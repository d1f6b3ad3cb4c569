"""Peak memory of a network on a microcontroller, and the schedules that lower it.

Parameters are read from flash as they are needed; activations live in SRAM, all of them while they are needed. Four
schedules, which combine:

- layer by layer: each operator runs on its own.
- fusion: consecutive operators that work row by row run together on a tile of rows (tokens), so that what passes
  between them is never whole: a matrix product with the pointwise operators after it, attention in blocks of query
  rows (scores, softmax, context). MCUFormer (Liang et al. 2023) calls it operator integration.
- patch by patch: the stem computes some patches at a time, and the image comes in with them, window by window, from
  the camera or from a compressed file (MCUNetV2, Lin et al. 2021, figure 3). A token of a transformer's stem is
  computed once whatever the order, so that nothing is computed twice; overlapping windows are read twice.
- overwriting: an output takes the place of an operand that nobody needs any more, a pointwise one in place, a row-wise
  one tile by tile; tokens of an MLP are overwritten as they are done (token overwriting, MCUFormer).

What tiles cost is that each one reads the parameters again. Operators keep their order, except that the score of
pruning moves up to the attention that it reads. Groups of operators are chosen by shortest paths over the positions
between operators: the lowest bottleneck first, then the fewest parameters read within it. Tile buffers of a kernel
(registers, im2col) are not counted. The schedules follow the papers' ideas on this project's operators; their figures
are not reproduced here, since the networks differ.
"""

from __future__ import annotations

from cosearch.errors import SpecError
from cosearch.hardware.memory.planner import PeakMemory, Planner
from cosearch.workload import Workload

__all__ = ["best_schedule", "peak_sram_bytes"]

TILE_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Tiles among which `best_schedule` chooses for each stage."""
_ATTEMPTS = 6


def peak_sram_bytes(
    workload: Workload, *, fusion: bool = False, patch: bool = False, overwrite: bool = False, tile_rows: int = 1
) -> PeakMemory:
    """Returns the lowest peak of ``workload`` with the techniques allowed.

    Args:
        workload: one image through a model.
        fusion: whether row-wise operators may run together in tiles.
        patch: whether the stem may run in tiles, the image coming in with them.
        overwrite: whether outputs may take the place of operands, in tiles where that needs them.
        tile_rows: rows (tokens, patches) in a tile.

    Raises:
        SpecError: ``tile_rows`` is below 1.
    """
    if tile_rows < 1:
        raise SpecError("tile_rows", f"is {tile_rows}, but a tile has at least 1 row", "give 1 or more")
    return Planner(workload, fusion=fusion, patch=patch, overwrite=overwrite, tiles=(tile_rows,)).lowest()


def best_schedule(workload: Workload, sram_bytes: int | None = None) -> PeakMemory:
    """Returns the schedule that reads the fewest parameters within ``sram_bytes``, all techniques and tiles allowed.

    Without ``sram_bytes``, or where nothing found fits, the one with the lowest peak; `PeakMemory.sram_bytes` tells.
    """
    planner = Planner(workload, fusion=True, patch=True, overwrite=True, tiles=TILE_ROWS)
    smallest = peak_sram_bytes(workload, fusion=True, patch=True, overwrite=True)
    if sram_bytes is None or sram_bytes < smallest.live_bytes:
        return min(planner.lowest(), smallest, key=lambda found: (found.sram_bytes, found.flash_read_bytes))
    limit = sram_bytes
    for _ in range(_ATTEMPTS):  # offsets may need more than the bytes alive at once
        found = planner.plan(limit)
        if found.sram_bytes <= sram_bytes:
            return found
        limit -= found.sram_bytes - sram_bytes
    return smallest
