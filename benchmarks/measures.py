"""Metrics of the committed rows and curves: frames to threshold, speed-ups, and whether a threshold is held.

Runs are summed up as Agarwal et al. (2021) recommend: by the interquartile mean over seeds, with the 95% interval of a
percentile bootstrap. That of a speed-up resamples the seeds of plain and of taught runs apart, although runs of a seed
begin with the same layouts. With five seeds the intervals are rather too narrow.
"""

import csv
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from run import CURVE_COLUMNS, finished
from scipy.stats import bootstrap, trim_mean
from suites import SUITES

BOOTSTRAPS = 2000
LOOK_EVERY = 1024
"""Frames between two looks at a run, where all runs are to be looked at equally often."""

HELD_FOR = 5000
"""Frames for which a mean return has to stay at its threshold, where that is asked."""


class Results:
    """The finished runs, found by suite, task, algorithm and method."""

    def __init__(self, folder):
        self.rows = finished(folder)
        self.curves = {}
        for row in read(folder / "curves.csv"):
            values = [float(row[name] or "nan") for name in CURVE_COLUMNS[1:]]
            self.curves.setdefault(row["id"], []).append(values)
        self.teachers = read(folder / "teachers.csv")

    def of(self, suite):
        """{(task, algo, method): [row of a seed, ...]}, in the suite's order, with what is finished."""
        found = {}
        for cell in SUITES[suite](self.rows):
            row = self.rows.get(cell.id)
            found.setdefault((cell.task.name, cell.algo, cell.method), []).extend([row] if row else [])
        return found

    def curve(self, row, column, frames):
        """A run's return (1) or success (2) at some frames: the last value known at each, NaN before and after."""
        steps, values = np.array(self.curves[row["id"]])[:, [0, column]].T
        at = np.searchsorted(steps, frames, side="right") - 1
        return np.where((at >= 0) & (frames <= steps[-1]), values[at], np.nan)


def read(path):
    """The rows of a CSV file; none if it is not there."""
    return list(csv.DictReader(path.open())) if path.exists() else []


class Needed(NamedTuple):
    """The frames that each of some runs needed: (n,) float, those it was given where it never got there; (n,) bool."""

    frames: np.ndarray
    reached: np.ndarray


def needed(rows, of=lambda row: float(row["solved_frames"] or "nan")):
    """What some runs needed, by their first look at the threshold or by another measure of one run, NaN for never."""
    frames, given = np.array([of(row) for row in rows]), np.array([float(row["frames"]) for row in rows])
    reached = ~np.isnan(frames)
    return Needed(np.where(reached, frames, given), reached)


def followed_to_the_end(rows):
    """Whether none of the runs ended at its threshold, so that its last return is what it came to."""
    return all(row["ended"] == "horizon" for row in rows)


def final_returns(rows):
    """The mean return in the last tenth of each run; and that it has one, as `needed` has."""
    return np.array([float(row["final_return"]) for row in rows]), np.ones(len(rows), dtype=bool)


def looked_at_alike(results, row, threshold):
    """The frames that a run needed if it is looked at every 1,024 frames, whatever its rollouts are; NaN if never."""
    frames = np.arange(LOOK_EVERY, int(row["frames"]) + 1, LOOK_EVERY)
    reached = results.curve(row, 1, frames) >= threshold
    if reached.any():
        return float(frames[reached.argmax()])
    # Where a run ended as soon as it got there, between two looks, the next one would have seen it.
    return float(np.ceil(float(row["solved_frames"] or "nan") / LOOK_EVERY) * LOOK_EVERY)


def held(results, row, threshold):
    """The frames after which a run's mean return over the next 5,000 is at the threshold; NaN if never."""
    end = int(row["frames"])
    for start in np.array(results.curves[row["id"]])[:, 0]:
        after = results.curve(row, 1, np.arange(start, start + HELD_FOR + 1, 256))
        if start + HELD_FOR <= end and after.mean() >= threshold:
            return float(start)
    return float("nan")


def return_afterwards(results, row):
    """The mean return over the 5,000 frames after the threshold was reached; NaN if it was not."""
    if not row["solved_frames"]:
        return float("nan")
    start = int(row["solved_frames"])
    return float(np.nanmean(results.curve(row, 1, np.arange(start, start + HELD_FOR + 1, 256))))


iqm = partial(trim_mean, proportiontocut=0.25)
"""The interquartile mean, over the first axis or another one."""


def interval(samples, statistic):
    """The 95% interval of a statistic of some samples, each resampled by itself, over their first axis."""
    drawn = bootstrap(samples, statistic, n_resamples=BOOTSTRAPS, vectorized=True, method="percentile", rng=0)
    return drawn.confidence_interval


@dataclass
class SpeedUp:
    """How many times fewer frames a method needs than plain RL.

    Attributes:
        value: the ratio of the interquartile means over seeds.
        low, high: its 95% interval; NaN where some sample is a single seed.
        is_bound: whether some plain run never got there, so that the truth is at least this.
        failed: the share of the method's runs that never got there; above 0.2 there is no ratio.
    """

    value: float
    low: float
    high: float
    is_bound: bool
    failed: float

    def __str__(self):
        if self.failed > 0.2:
            return f"none: {self.failed:.0%} never got there"
        high = "or more" if self.is_bound else f"to {self.high:.1f}"
        interval = "" if np.isnan(self.low) else f" ({self.low:.1f} {high})"
        return f"{'>= ' if self.is_bound else ''}{self.value:.1f}x{interval}"


def speed_up(pairs):
    """The geometric mean over tasks of plain frames / method frames.

    Args:
        pairs: for each task what plain RL and what the method needed, a run a seed.
    """

    def ratio(*frames, axis=0):
        logs = [np.log(iqm(sample, axis=axis)) for sample in frames]
        return np.exp(np.mean(logs[::2], axis=0) - np.mean(logs[1::2], axis=0))

    frames = [side.frames for pair in pairs for side in pair]
    low = high = np.nan
    if min(map(len, frames)) > 1:  # one seed says nothing of the others
        low, high = interval(frames, ratio)
    failed = max(1 - taught.reached.mean() for _, taught in pairs)
    return SpeedUp(ratio(*frames), low, high, not all(plain.reached.all() for plain, _ in pairs), failed)
