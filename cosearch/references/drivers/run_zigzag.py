"""Runs in ZigZag's interpreter: jobs as JSON on standard input, one result for each as JSON on standard output."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any


def layer(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the job's product as ZigZag's workload."""
    return [
        {
            "id": 0,
            "name": "product",
            "operator_type": "Gemm",
            "equation": "O[b][k]+=I[b][c]*W[c][k]",
            "dimension_relations": [],
            "loop_dims": list(job["sizes"]),
            "loop_sizes": list(job["sizes"].values()),
            "operand_precision": job["bits"],
            "operand_source": {"I": 0, "W": 0},
        }
    ]


def moved_bytes(cost: Any, levels: str) -> float:
    """Returns bytes through the memories whose names start with ``levels``; an access is as wide as its port."""
    total = 0.0
    for operand, accesses in cost.memory_word_access.items():
        memory_operand = cost.layer.memory_operand_links.layer_to_mem_op(operand)
        for level, counts in enumerate(accesses):
            memory = cost.accelerator.get_memory_level(memory_operand, level)
            if memory.name.startswith(levels):
                for direction, count in counts.data.items():
                    total += count * (memory.get_max_bandwidth(memory_operand, direction) or 0) / 8
    return total


def evaluate(job: dict[str, Any]) -> dict[str, float]:
    """Returns what ZigZag says of one product."""
    from zigzag.api import get_hardware_performance_zigzag  # type: ignore[import-not-found]

    Path("architecture.yaml").write_text(job["architecture"], encoding="utf-8")
    Path("mapping.yaml").write_text(job["mapping"], encoding="utf-8")
    _, _, found = get_hardware_performance_zigzag(
        workload=layer(job),
        accelerator="architecture.yaml",
        mapping="mapping.yaml",
        opt="latency",
        dump_folder="out",
        pickle_filename="out/costs.pickle",
        loma_show_progress_bar=False,
    )
    cost = found[0][1][0][0]
    compute = cost.ideal_temporal_cycle + cost.systolic_drain_cycle
    return {
        "compute_cycles": compute,
        "stall_cycles": cost.latency_total2 - compute,
        "sram_bytes": moved_bytes(cost, "sram"),
        "dram_bytes": moved_bytes(cost, "dram"),
        "energy_j": 1e-12 * cost.energy_total,
    }


def main() -> None:
    """Answers one request; whatever the tool prints goes to standard error."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    results = [evaluate(job) for job in json.load(sys.stdin)["jobs"]]
    json.dump(results, answer)
    answer.close()


if __name__ == "__main__":
    main()
