"""How a run is read: by looks at its log of episodes, at the same frames for every run, whatever its rollouts are.

A look is the mean of the last 50 episodes, every 256 frames. A threshold is held from the first look on which the mean
of the looks at the next 5,000 frames is at the threshold; it is reached at the first look that is at it. A run can hold
a threshold before it reaches it, since the last 50 episodes are of its past.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

EVERY = 256
"""Frames between two looks."""

WINDOW = 50
"""Episodes that a look is over."""

HELD_FOR = 5000
"""Frames over which the mean of the looks has to be at the threshold."""

FOLLOWED = 30_000
"""Frames for which a run goes on after those, to see what it loses."""


class Log(NamedTuple):
    """The episodes of a run: the frame at which each ended, its return and its success, all (n,); frames in all."""

    ends: np.ndarray
    returns: np.ndarray
    successes: np.ndarray
    frames: int


def read_log(folder):
    """The log of a run that may be under way; None before its first update."""
    try:
        frames = int(whole_lines(Path(folder, "curve.csv"))[-1].partition(",")[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    rows = whole_lines(Path(folder, "episodes.csv"))[1:]
    ends, returns, _, successes = np.loadtxt(rows, delimiter=",", ndmin=2).T if rows else np.zeros((4, 0))
    return Log(ends, returns, successes, frames)


def whole_lines(path):
    """The lines of a file, without one that is being written."""
    text = path.read_text()
    return text[: text.rfind("\n") + 1].splitlines()


def looks(log, values):
    """The mean of the last episodes' values at each look, NaN while they are too few; (frames // 256,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    done = np.searchsorted(log.ends, np.arange(EVERY, log.frames + 1, EVERY), side="right")
    return np.where(done >= WINDOW, (sums[done] - sums[np.maximum(done - WINDOW, 0)]) / WINDOW, np.nan)


def first(returns, threshold):
    """The frames at the first look at the threshold; NaN if there is none."""
    at = np.flatnonzero(returns >= threshold)
    return float(EVERY * (at[0] + 1)) if len(at) else np.nan


def held(returns, threshold):
    """The frames from which on the next 5,000 hold the threshold; NaN if they never do."""
    n = HELD_FOR // EVERY + 1
    if len(returns) < n:
        return np.nan
    means = np.lib.stride_tricks.sliding_window_view(returns, n).mean(axis=1)
    at = np.flatnonzero(means >= threshold)
    return float(EVERY * (at[0] + 1)) if len(at) else np.nan


def end_of(held_at):
    """The frame up to which a run is followed that holds its threshold from some frame on."""
    return held_at + HELD_FOR + FOLLOWED


def afterwards(returns, threshold, held_at):
    """What comes after the threshold is held: the share of looks at 0.85 of it or more, and the lowest, relative."""
    later = returns[int(held_at) // EVERY - 1 :][: FOLLOWED // EVERY + 1] / threshold
    return float((later >= 0.85).mean()), float(later.min())
