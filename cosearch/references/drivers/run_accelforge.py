"""Runs in AccelForge's interpreter: jobs as JSON on standard input, one result for each as JSON on standard output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def evaluate(job: dict[str, Any]) -> dict[str, float]:
    """Returns what AccelForge says of one product under its best mapping."""
    import accelforge  # type: ignore[import-not-found]
    from accelforge.mapper import Metrics  # type: ignore[import-not-found]

    Path("architecture.yaml").write_text(job["architecture"], encoding="utf-8")
    Path("workload.yaml").write_text(job["workload"], encoding="utf-8")
    spec = accelforge.Spec.from_yaml("architecture.yaml", "workload.yaml")
    spec.mapper.metrics = Metrics.LATENCY | Metrics.ENERGY
    # 197 tokens on 16 rows take 13 folds; without this, only divisors of 197 are tried
    spec.mapper.explore_imperfect_spatial_loops = True
    found = spec.map_workload_to_arch(print_progress=False)
    # of the mappings that nothing beats in both, the fastest
    seconds, joules = found.latency(list_if_one_mapping=True), found.energy(list_if_one_mapping=True)
    best = min(range(len(seconds)), key=lambda position: (seconds[position], joules[position]))
    parts = found.latency(per_component=True, list_if_one_mapping=True)
    bits = {"MainMemory": 0.0, "scratchpad": 0.0}
    for (component, _), counts in found.actions(per_component=True, list_if_one_mapping=True).items():
        for kind in bits:
            if component.endswith(kind):
                bits[kind] += counts[best]
    compute = parts["MAC"][best] * job["clock_hz"]
    return {
        "compute_cycles": compute,
        "stall_cycles": seconds[best] * job["clock_hz"] - compute,
        "sram_bytes": bits["scratchpad"] / 8,
        "dram_bytes": bits["MainMemory"] / 8,
        "energy_j": joules[best],
    }


def main() -> None:
    """Answers one request; whatever the tool prints goes to standard error."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import accelforge.mapper.FFM.mappings as mappings  # type: ignore[import-not-found]

    mappings.Mappings.render = lambda *_, **__: ""  # it draws each mapping, which needs Graphviz
    results = [evaluate(job) for job in json.load(sys.stdin)["jobs"]]
    json.dump([{name: float(value) for name, value in result.items()} for result in results], answer)
    answer.close()


if __name__ == "__main__":
    main()
