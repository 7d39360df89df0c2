"""95% intervals of rates, of means, and of differences between two teachers.

``scipy.stats`` is imported where it is used: it takes half a second, and every command would wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lvlm2p_wrappers.records import Rate

RESAMPLES = 10_000


def proportion(hits: Sequence[bool]) -> Rate:
    """The share of hits, of one case at least, with Wilson's interval (Wilson 1927, J. Am. Stat. Assoc. 22).

    >>> rate = proportion([True] * 9 + [False])
    >>> rate.value, round(rate.low, 3), round(rate.high, 3)
    (0.9, 0.596, 0.982)
    """
    from scipy.stats import binomtest

    test = binomtest(sum(hits), len(hits))
    interval = test.proportion_ci(method="wilson")
    return Rate(value=test.statistic, low=interval.low, high=interval.high, n=len(hits))


def mean(values: ArrayLike, groups: Sequence[Any] | None = None) -> Rate:
    """The mean, with the percentile bootstrap's interval (Efron 1979, Ann. Stat. 7).

    Args:
        values: (n,) numbers, n >= 1.
        groups: (n,) the group of each value; whole groups are resampled. By default each value is its own group.
    """
    from scipy.stats import bootstrap

    numbers = np.asarray(values, dtype=np.float64)
    value = float(numbers.mean())
    _, members = np.unique(np.arange(numbers.size) if groups is None else np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(members, numbers), np.bincount(members)
    if sums.size == 1:  # there is nothing to resample
        return Rate(value=value, low=value, high=value, n=numbers.size)
    interval = bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,  # a group's sum and count stay together
        method="percentile",
        n_resamples=RESAMPLES,
        batch=500,  # bounds the memory
        random_state=np.random.default_rng(0),  # the same resamples each time
    ).confidence_interval
    return Rate(value=value, low=float(interval.low), high=float(interval.high), n=numbers.size)
