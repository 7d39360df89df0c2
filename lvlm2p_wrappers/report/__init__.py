"""Reports: what a teacher was shown, what it answered and how right that was, as one HTML file.

``from_evaluation`` and ``from_store`` collect what a report shows, ``annotations`` compares analyses with the ground
truth, and ``html`` makes the page.
"""

from lvlm2p_wrappers.report.from_evaluation import from_evaluation
from lvlm2p_wrappers.report.from_store import from_store
from lvlm2p_wrappers.report.html import Report, render

__all__ = ["Report", "from_evaluation", "from_store", "render"]
