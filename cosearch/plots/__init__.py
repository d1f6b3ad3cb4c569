"""Pictures of a front: Plotly figures, and one page that needs nothing but a browser."""

from __future__ import annotations

from cosearch.plots.figures import front_figure, hypervolume_figure, panels
from cosearch.plots.page import front_page
from cosearch.plots.verified import verified_figure, verified_page

__all__ = ["front_figure", "front_page", "hypervolume_figure", "panels", "verified_figure", "verified_page"]
