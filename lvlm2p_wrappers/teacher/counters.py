"""What a teacher has done, and whether too much of it failed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

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


class Reliability:
    """Watches the outcomes of questions, in the order in which they settle."""

    def __init__(self) -> None:
        self._failed: deque[bool] = deque(maxlen=WINDOW)
        self._in_a_row = 0

    def note(self, *, failed: bool) -> str:
        """Note one more outcome.

        Returns:
            Why there is no going on, in words; ``""`` while there is.
        """
        self._failed.append(failed)
        self._in_a_row = self._in_a_row + 1 if failed else 0
        if self._in_a_row >= MOST_IN_A_ROW:
            return f"{self._in_a_row} questions in a row stayed without an answer"
        if failed and len(self._failed) == WINDOW and sum(self._failed) >= MOST_FAILED * WINDOW:
            return f"{sum(self._failed)} of the last {WINDOW} questions stayed without an answer"
        return ""
