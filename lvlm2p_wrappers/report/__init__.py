"""Reports: what a teacher was shown, what it said, and how right it was, as one HTML file to pass on.

``folder`` reads an evaluation and ``from_store`` a store, both into ``records``; ``annotations`` holds analyses
against the truth, and ``html`` makes the HTML.
"""

from lvlm2p_wrappers.report.html import Report, render
from lvlm2p_wrappers.report.report import from_evaluation, from_store

__all__ = ["Report", "from_evaluation", "from_store", "render"]
