"""Compares two teachers on the same states, metric by metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lvlm2p_wrappers.evaluation.intervals import mean
from lvlm2p_wrappers.evaluation.metrics import agrees, analysis_scores, cost, known, mass_fatal, mass_optimal, regret
from lvlm2p_wrappers.records import Label, Rate

MIN_EPISODES = 10
"""With fewer episodes no interval is given."""


class Difference(NamedTuple):
    """The difference of two teachers in one metric, over the states where both have a value.

    Attributes:
        metric: its name.
        first: the first teacher's mean, over all states where it has a value; None if there is none.
        other: the other one's.
        difference: the mean of other minus first, state by state; None with fewer than ``MIN_EPISODES`` episodes.
        n: how many states have both.
    """

    metric: str
    first: float | None
    other: float | None
    difference: Rate | None
    n: int

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)


METRICS: dict[str, Callable[[Label], float | None]] = {
    "best action optimal": agrees,
    "mass on optimal": mass_optimal,
    "mass on fatal": mass_fatal,
    "regret": regret,
    "heading right": lambda label: analysis_scores(label).get("heading"),
    "cell right": lambda label: analysis_scores(label).get("cell"),
    "failures": lambda label: label.failure is not None,
    "USD per 1000 labels": lambda label: None if (usd := cost(label)) is None else 1000 * usd,
}
"""What is compared, by name; the value of a label, None where the metric does not apply."""


def differences(first: Sequence[Label], other: Sequence[Label]) -> list[Difference]:
    """Compare two teachers, metric by metric.

    The interval is that of a paired bootstrap. It resamples whole episodes, since the states of one are correlated.

    Args:
        first: one teacher's labels.
        other: another one's, of the same states; labels with the same id belong together.
    """
    partners = {label.id: label for label in other}
    pairs = [(label, partners[label.id]) for label in first if label.id in partners]
    found = []
    for name, metric in METRICS.items():
        values = [(metric(one), metric(two), one.seed) for one, two in pairs]
        both = [(float(b) - float(a), seed) for a, b, seed in values if a is not None and b is not None]
        episodes = [seed for _, seed in both]
        difference = mean([step for step, _ in both], episodes) if len(set(episodes)) >= MIN_EPISODES else None
        means = [_mean(known([pair[side] for pair in pairs], metric)) for side in (0, 1)]
        found.append(Difference(name, means[0], means[1], difference, len(both)))
    return found


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
