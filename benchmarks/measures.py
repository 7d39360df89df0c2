"""Metrics of the committed rows and looks: frames to threshold, speed-ups, and what is lost afterwards.

Runs are summed up as Agarwal et al. (2021) recommend: by the interquartile mean over seeds, with the 95% interval of a
percentile bootstrap. That of a speed-up resamples the seeds of plain and of taught runs apart. With five seeds the
intervals are rather too narrow.
"""

import csv
import sys
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import reading
from run import finished
from scipy.stats import bootstrap, trim_mean
from suites import SUITES

BOOTSTRAPS = 2000


class Results:
    """The finished runs, found by suite, task, algorithm and method."""

    def __init__(self, folder):
        self.rows = finished(folder)
        self.looks = {}  # (returns, successes) of each run
        for row in read(folder / "looks.csv"):
            self.looks[row["id"]] = tuple(np.array(row[name].split(), float) for name in ("returns", "successes"))
        self.teachers = read(folder / "teachers.csv")

    def of(self, suite):
        """{(task, algo, method): [row of a seed, ...]}, in the suite's order, with what is finished."""
        found = {}
        for cell in SUITES[suite](self.rows):
            row = self.rows.get(cell.id)
            found.setdefault((cell.task.name, cell.algo, cell.method), []).extend([row] if row else [])
        return {key: rows for key, rows in found.items() if rows}

    def curve(self, row, which, frames):
        """A run's return (0) or success (1) at some frames: the last look at each, NaN before and after."""
        values = self.looks[row["id"]][which]
        at = np.asarray(frames) // reading.EVERY - 1
        return np.where((at >= 0) & (at < len(values)), values[np.clip(at, 0, len(values) - 1).astype(int)], np.nan)

    def afterwards(self, row):
        """See `reading.afterwards`; None where the run never held its threshold or was not followed from there."""
        if not row["held_frames"] or int(row["frames"]) < reading.end_of(int(row["held_frames"])) - reading.EVERY:
            return None
        returns = self.looks[row["id"]][0]
        return reading.afterwards(returns, float(row["threshold"]), int(row["held_frames"]))


def read(path):
    """The rows of a CSV file; none if it is not there."""
    csv.field_size_limit(sys.maxsize)  # a long run has many looks
    return list(csv.DictReader(path.open())) if path.exists() else []


class Needed(NamedTuple):
    """The frames that each of some runs needed: (n,) float, those it was given where it never got there; (n,) bool."""

    frames: np.ndarray
    reached: np.ndarray


def needed(rows, of="held_frames"):
    """What some runs needed until they held the threshold, or until their first look at it (`first_frames`)."""
    frames, given = (
        np.array([float(row[of] or "nan") for row in rows]),
        np.array([float(row["frames"]) for row in rows]),
    )
    reached = ~np.isnan(frames)
    return Needed(np.where(reached, frames, given), reached)


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
