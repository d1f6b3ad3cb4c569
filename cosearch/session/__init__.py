"""Puts a run together from its file, runs it, and leaves its front behind: ``cosearch run`` for Python users.

prepared = begin(load_run_file(find_run_file("quickstart")), Path("runs"))
summary = run(prepared, Silent())
best = pick(summary.front, "knee")
"""

from cosearch.session.prepare import Prepared, begin, build_problem, make_sampler, reopen, run_metrics
from cosearch.session.results import export, read_front, write_page
from cosearch.session.run import Silent, Summary, run
from cosearch.session.verify import Plan, Unheard, Verified, VerifyListener, verify

__all__ = [
    "Plan",
    "Prepared",
    "Silent",
    "Summary",
    "Unheard",
    "Verified",
    "VerifyListener",
    "begin",
    "build_problem",
    "export",
    "make_sampler",
    "read_front",
    "reopen",
    "run",
    "run_metrics",
    "verify",
    "write_page",
]
