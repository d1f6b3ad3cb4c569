"""Whether a front stands when its models are trained again: intervals and verdicts.

`cosearch.verification.repeats` holds what workers run; it brings torch along, so it is imported by its own name.
"""

from cosearch.verification.estimates import LEVEL, Estimate, estimate, kendall_tau, posterior_means
from cosearch.verification.verdicts import MemberVerdict, ModelFigures, Rival, Verification, judge, verification_text

__all__ = [
    "LEVEL",
    "Estimate",
    "MemberVerdict",
    "ModelFigures",
    "Rival",
    "Verification",
    "estimate",
    "judge",
    "kendall_tau",
    "posterior_means",
    "verification_text",
]
