"""Draws every figure and writes every table of the results, from the committed rows alone.

python benchmarks/plot.py            or: make figures

Figures go to docs/images/, each table between its pair of markers in the README and the pages of docs/.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro
from measures import Results, interval, iqm, needed
from run import RESULTS, ROOT
from suites import TASKS
from tables import NAMES, TASKS_OF, write_tables

COLOURS = {"plain": "#b5651d", "paper": "#3b6ea5", "ours": "#2a7f62"}
FIGURES = {"paper_ppo": ("paper", "ppo"), "paper_a2c": ("paper", "a2c"), "hard_ppo": ("hard", "ppo")}


@dataclass
class Args:
    """Where results are read, and figures and tables written."""

    results: Path = RESULTS  # folder of runs.csv, looks.csv and teachers.csv
    out: Path = ROOT  # folder with README.md and docs/


def band(axes, results, rows, colour, label):
    """A learning curve: the interquartile mean over seeds and its 95% interval, where every seed has a value."""
    frames = np.geomspace(500, max(int(row["frames"]) for row in rows), 80)
    returns = np.stack([results.curve(row, 0, frames) for row in rows])
    known = ~np.isnan(returns).any(axis=0)
    frames, returns = frames[known], returns[:, known]
    axes.plot(frames, iqm(returns), color=colour, label=label, linewidth=1.8)
    if len(returns) > 1 and known.any():
        axes.fill_between(frames, *interval((returns,), iqm), color=colour, alpha=0.2, linewidth=0)


def draw_curves(found, results, tasks, algo, file):
    """Mean return against frames, with the threshold."""
    width = min(len(tasks), 4)
    height = -(-len(tasks) // width)
    size = (3 * width, 2.5 * height)
    figure, grid = plt.subplots(height, width, figsize=size, sharex=True, layout="constrained", squeeze=False)
    for axes in grid.flat[len(tasks) :]:
        axes.remove()
    for axes, name in zip(grid.flat, tasks, strict=False):
        for method, colour in COLOURS.items():
            if rows := found.get((name, algo, method)):
                band(axes, results, rows, colour, f"{algo.upper()} {NAMES[method]}")
        axes.axhline(TASKS[name].threshold, color="0.4", linestyle="--", linewidth=1, label="threshold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xscale="log", title=name, ylim=(min(0, axes.get_ylim()[0]), 1.03))
    for axes in grid[-1]:
        axes.set_xlabel("frames")
    grid[0, 0].set_ylabel("mean return, last 50")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def draw_seeds(axes, y, values, reached, colour, height):
    """A bar for the interquartile mean of some seeds, a dot for each, a cross for one that never got there."""
    axes.barh(y, iqm(values), height, color=colour, alpha=0.35)
    for which, marker, size in ((reached, "o", 14), (~reached, "x", 36)):
        axes.scatter(values[which], np.full(which.sum(), y), s=size, marker=marker, color=colour, zorder=3)


def draw_frames(found, panels, file):
    """Frames until the threshold is held: a dot for a seed, a bar for their interquartile mean."""
    sizes = [len(tasks) for _, tasks, _ in panels]
    size, ratios = (7.5, 0.8 + 0.65 * sum(sizes)), {"height_ratios": sizes}
    figure, grid = plt.subplots(len(panels), 1, figsize=size, layout="constrained", squeeze=False, gridspec_kw=ratios)
    for axes, (suite, tasks, algo) in zip(grid[:, 0], panels, strict=True):
        for (task, of, method), rows in found[suite].items():
            if of == algo:
                y = tasks.index(task) + 0.26 * (list(NAMES).index(method) - 1)
                draw_seeds(axes, y, *needed(rows), COLOURS[method], 0.22)
        axes.set(xscale="log", xlim=(300, 1_000_000), ylim=(len(tasks) - 0.5, -0.5), title=algo.upper())
        axes.set_yticks(range(len(tasks)), tasks)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("frames until the threshold is held (cross: never)")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour, alpha=0.5) for colour in COLOURS.values()]
    names = [NAMES[name] for name in COLOURS]
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main(args):
    """Draw and write all."""
    results = Results(args.results)
    images = args.out / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    found, panels = {suite: results.of(suite) for suite in TASKS_OF}, []
    for name, (suite, algo) in FIGURES.items():
        if tasks := [task for task in TASKS_OF[suite] if any(key[:2] == (task, algo) for key in found[suite])]:
            draw_curves(found[suite], results, tasks, algo, images / f"{name}.png")
            panels.append((suite, tasks, algo))
    if panels:
        draw_frames(found, panels, images / "frames_to_threshold.png")
    for path in (args.out / "README.md", *sorted((args.out / "docs").glob("*.md"))):
        if path.exists():
            write_tables(results, path)


if __name__ == "__main__":
    main(tyro.cli(Args))
