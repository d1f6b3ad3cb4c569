"""``front.json``: a front as text, the same bytes for the same front."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cosearch.errors import UserError
from cosearch.front._dominance import Front, Member, Objective
from cosearch.front._volume import Scale
from cosearch.spec import Candidate, from_json, to_json

__all__ = ["front_from_json", "front_text", "front_to_json"]

FORMAT = "front/1"


def front_to_json(front: Front, *, hypervolume: float | None = None, scale: Scale | None = None) -> dict[str, Any]:
    """Returns ``front`` as JSON types.

    Args:
        front: the front.
        hypervolume: written beside it, where known.
        scale: the box that the hypervolume was measured in.
    """
    out: dict[str, Any] = {
        "cosearch": FORMAT,
        "objectives": [{"metric": o.metric, "direction": o.direction, "unit": o.unit} for o in front.objectives],
        "members": [
            {
                "id": member.candidate.id,
                "model_id": member.candidate.model.id,
                "metrics": {name: float(value) for name, value in member.metrics.items()},
                "candidate": to_json(member.candidate),
            }
            for member in front.members
        ],
    }
    if hypervolume is not None:
        out["hypervolume"] = float(hypervolume)
    if scale is not None:
        out["box"] = {"ideal": list(scale.ideal), "reference": list(scale.reference), "log": list(scale.log)}
    return out


def front_text(front: Front, *, hypervolume: float | None = None, scale: Scale | None = None) -> str:
    """Returns the one text of ``front.json``: keys sorted, floats in the fewest digits that read back the same."""
    data = front_to_json(front, hypervolume=hypervolume, scale=scale)
    return json.dumps(data, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def front_from_json(data: Any) -> Front:
    """Returns the front that `front_to_json` turned into ``data``.

    Raises:
        UserError: it is not a front of this version, a part is missing, or a candidate makes no sense.
    """
    version = data.get("cosearch") if isinstance(data, Mapping) else None
    if version != FORMAT:
        raise UserError(
            f"this is no front: 'cosearch' is {version!r}, not {FORMAT!r}; give a front.json of this version"
        )
    try:
        objectives = tuple(Objective(o["metric"], o["direction"], o.get("unit", "")) for o in data["objectives"])
        members = [
            Member(from_json(Candidate, m["candidate"]), {str(k): float(v) for k, v in m["metrics"].items()})
            for m in data["members"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"this front cannot be read ({error!r}); write it again with: cosearch front") from error
    return Front.of(objectives, members)
