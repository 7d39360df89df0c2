"""What a teacher has done, and whether too much of it failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

WINDOW, MOST_FAILED, MOST_IN_A_ROW = 200, 0.5, 20
"""Where failed questions are skipped, the run ends when this share of a window, or this many in a row, failed."""


@dataclass(frozen=True)
class Counters:
    """What a teacher has done so far in this process.

    Attributes:
        labels: rows that got a distribution.
        cached: rows answered without a call.
        distinct_views: different views that were asked about.
        calls: requests to a provider, retries and repairs included.
        bad_replies: replies that could not be used, repaired ones included.
        failures: questions that stayed without an answer.
        unasked: rows without a label because the budget was spent.
        cost_usd: US dollars, of the calls with a known price.
        unpriced_calls: calls without one.
        charged_usd: US dollars that the budget was charged, for calls of unknown outcome their reservation.
    """

    labels: int = 0
    cached: int = 0
    distinct_views: int = 0
    calls: int = 0
    bad_replies: int = 0
    failures: int = 0
    unasked: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    charged_usd: float = 0.0

    def __sub__(self, other: Counters) -> Counters:
        """What was done since another moment.

        >>> (Counters(labels=5, calls=2) - Counters(labels=3)).labels
        2
        """
        return Counters(**{name: value - getattr(other, name) for name, value in vars(self).items()})


def why_to_stop(failed: Sequence[bool]) -> str:
    """Why a run in which the last question failed should end, in words; ``""`` where it may go on.

    Args:
        failed: whether each of the last ``WINDOW`` questions failed, the newest one last.
    """
    in_a_row = sum(1 for _ in takewhile(bool, reversed(failed)))
    if in_a_row >= MOST_IN_A_ROW:
        return f"{in_a_row} questions in a row stayed without an answer"
    if len(failed) == WINDOW and sum(failed) >= MOST_FAILED * WINDOW:
        return f"{sum(failed)} of the last {WINDOW} questions stayed without an answer"
    return ""
