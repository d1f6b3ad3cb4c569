"""Runs in SCALE-Sim's interpreter: a request as JSON on standard input, a result a product on standard output."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path


def report(name: str) -> list[dict[str, float]]:
    """Returns the rows of the report called ``name``, numbers only."""
    (path,) = Path("out").glob(f"*/{name}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    head = [cell.strip() for cell in rows[0]]
    return [{key: float(cell) for key, cell in zip(head, row, strict=True) if cell.strip()} for row in rows[1:]]


def result(compute: dict[str, float], access: dict[str, float]) -> dict[str, float]:
    """Returns one product's figures; a word of the tool is a byte."""
    stalls = compute["Stall Cycles"]
    return {
        "compute_cycles": compute["Total Cycles"] - stalls,
        "stall_cycles": stalls,
        "sram_bytes": sum(access[f"SRAM {name}"] for name in ("IFMAP Reads", "Filter Reads", "OFMAP Writes")),
        "dram_bytes": sum(access[f"DRAM {name}"] for name in ("IFMAP Reads", "Filter Reads", "OFMAP Writes")),
    }


def main() -> None:
    """Answers one request; whatever the tool prints goes to standard error."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from scalesim.scale_sim import scalesim  # type: ignore[import-not-found]

    request = json.load(sys.stdin)
    Path("array.cfg").write_text(request["config"], encoding="utf-8")
    Path("products.csv").write_text(request["topology"], encoding="utf-8")
    Path("layout.csv").write_text("", encoding="utf-8")
    tool = scalesim(
        save_disk_space=True,
        verbose=True,
        config="array.cfg",
        topology="products.csv",
        layout="layout.csv",
        input_type_gemm=True,
    )
    tool.run_scale(top_path="out")
    pairs = zip(report("COMPUTE_REPORT.csv"), report("DETAILED_ACCESS_REPORT.csv"), strict=True)
    json.dump([result(*pair) for pair in pairs], answer)
    answer.close()


if __name__ == "__main__":
    main()
