"""95% intervals of rates, of means, and of differences between two teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
_Z = 1.959964  # the normal distribution's 97.5% point
_BLOCK = 500  # resamples drawn at a time, to bound memory


class Rate(TypedDict):
    """A measured value with its 95% interval, from ``n`` cases."""

    value: float
    low: float
    high: float
    n: int


def share(hits: Sequence[bool]) -> Rate | None:
    """The share of cases that hold, with Wilson's interval (Wilson 1927, J. Am. Stat. Assoc. 22); None of no cases.

    >>> rate = share([True] * 9 + [False])
    >>> rate["value"], round(rate["low"], 3), round(rate["high"], 3)
    (0.9, 0.596, 0.982)
    """
    n = len(hits)
    if n == 0:
        return None
    p = sum(hits) / n
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    return Rate(value=p, low=max(0.0, min(p, centre - half)), high=min(1.0, max(p, centre + half)), n=n)


def mean(values: ArrayLike, groups: Sequence[int] | None = None) -> Rate | None:
    """The mean, with the percentile bootstrap's interval (Efron 1979, Ann. Stat. 7); None of no values.

    Args:
        values: (n,) numbers.
        groups: (n,) which values belong together; whole groups are drawn. By default each value is its own.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        return None
    _, members = np.unique(np.arange(numbers.size) if groups is None else np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(members, numbers).astype(np.float64), np.bincount(members)
    low, high = np.quantile(_resampled(sums, counts), (0.025, 0.975))
    return Rate(value=float(numbers.mean()), low=float(low), high=float(high), n=numbers.size)


def _resampled(sums: NDArray[np.float64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """(RESAMPLES,) means of groups drawn with replacement, always the same draws."""
    rng = np.random.default_rng(0)
    groups = sums.size
    means = []
    for _ in range(RESAMPLES // _BLOCK):
        drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=_BLOCK)
        means.append(drawn @ sums / (drawn @ counts))
    return np.concatenate(means)
