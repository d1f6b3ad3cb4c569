"""MLflow: where a search is written down, and how.

    location = locate(Path("runs"))
    tracker = Tracker.open(location, experiment="cosearch", name="quickstart", parameters={"seed": 0})
    tracker.progress(8, {"hypervolume": 0.4})
    tracker.finish(front, files=[Path("runs/quickstart/front.html")])

Everything a search needs lies in its run folder; MLflow is a copy for people. So only `Tracker.open` raises, before any
work is done. After that a failing MLflow costs one warning, and what it missed is sent when it is back.
"""

from __future__ import annotations

from cosearch.track.location import Location, locate, ui_command
from cosearch.track.tracker import Tracker, log_run
from cosearch.track.verified import log_verification

__all__ = ["Location", "Tracker", "locate", "log_run", "log_verification", "ui_command"]
