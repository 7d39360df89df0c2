"""Reports: what a teacher was shown, what it said, and how right it was, as one HTML file to pass on.

``folder`` reads an evaluation and ``logbook`` a store, both into ``records``; ``seen`` holds analyses against the
truth, and ``page`` makes the HTML.
"""

from lvlm2p_wrappers.report.page import Report, render
from lvlm2p_wrappers.report.report import from_evaluation, from_store

__all__ = ["Report", "from_evaluation", "from_store", "render"]
