"""The Pareto front: dominance, hypervolume, picking one member, and ``front.json``.

Inside, every objective is minimised: a metric to be maximised changes its sign once, in `Objective.minimised`. A point
dominates another when it is nowhere worse and somewhere better.

Two hypervolumes compare only when both are measured in the same box. There are two boxes, both a `Scale`:

- **While a search runs**, `Scale.of_points` fixes a box once, from bounds in the run file where there are any and from
  the first costed points elsewhere. It never moves, so the step metric can only rise. A search that finds better than
  the box's ideal may pass 1.
- **At the end**, `Scale.of_fronts` lays one box around the front of the *union* of all runs to be compared, such as a
  search and its random baseline, so that neither of them chose the ruler.

Both measure costs by their decimal logarithm (halving a latency of 1 ms counts as much as halving one of 1 s) and
everything else linearly.
"""

from cosearch.front._dominance import Front, Member, Objective, non_dominated
from cosearch.front._json import front_from_json, front_text, front_to_json
from cosearch.front._pick import pick
from cosearch.front._volume import FrontBuilder, Scale, hypervolume

__all__ = [
    "Front",
    "FrontBuilder",
    "Member",
    "Objective",
    "Scale",
    "front_from_json",
    "front_text",
    "front_to_json",
    "hypervolume",
    "non_dominated",
    "pick",
]
