"""Two teachers on the same states: what differs between them, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lvlm2p_wrappers.evaluation.folder import Label
from lvlm2p_wrappers.evaluation.intervals import Rate, mean
from lvlm2p_wrappers.evaluation.metrics import agrees, cost, is_right, mass_fatal, mass_optimal

FEWEST = 10
"""Of fewer episodes no interval is given."""


class Difference(NamedTuple):
    """How far two teachers are apart in one measure, over the states where both have it.

    Attributes:
        measure: its name.
        first: the first teacher's average, over all states where it has one; None if there is none.
        other: the other one's.
        difference: other minus first, state by state; None if too few episodes have both.
        n: how many states have both.
    """

    measure: str
    first: float | None
    other: float | None
    difference: Rate | None
    n: int

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        found = self.difference
        return found is not None and (found["low"] > 0 or found["high"] < 0)


def _dollars(label: Label) -> float | None:
    found = cost(label)
    return None if found is None else 1000 * found


MEASURES: dict[str, Callable[[Label], float | None]] = {
    "best action optimal": agrees,
    "mass on optimal": mass_optimal,
    "mass on fatal": mass_fatal,
    "heading right": lambda label: is_right(label, "heading"),
    "cell right": lambda label: is_right(label, "cell"),
    "failures": lambda label: label.failure is not None,
    "USD per 1000 labels": _dollars,
}
"""What is compared, by name; each of a label, None where it does not apply."""


def differences(first: Sequence[Label], other: Sequence[Label]) -> list[Difference]:
    """Compare two teachers, measure by measure.

    The interval is a paired bootstrap's: states of the same episode are alike, so whole episodes are drawn. Of fewer
    than ``FEWEST`` episodes no interval would mean anything.

    Args:
        first: one teacher's labels.
        other: another one's, of the same states; the labels' ids say which belong together.
    """
    partners = {label.id: label for label in other}
    pairs = [(label, partners[label.id]) for label in first if label.id in partners]
    found = []
    for name, measure in MEASURES.items():
        values = [(measure(one), measure(two), one.seed) for one, two in pairs]
        both = [(float(b) - float(a), seed) for a, b, seed in values if a is not None and b is not None]
        episodes = [seed for _, seed in both]
        difference = mean([step for step, _ in both], episodes) if len(set(episodes)) >= FEWEST else None
        averages = [_average([row[side] for row in values]) for side in (0, 1)]
        found.append(Difference(name, averages[0], averages[1], difference, len(both)))
    return found


def _average(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None
