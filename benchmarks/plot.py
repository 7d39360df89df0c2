"""Draws every figure and writes every table of the results, from the committed rows alone.

python benchmarks/plot.py            or: make figures

Figures go to docs/images/, each table between its pair of markers in the README and the pages of docs/.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro
from measures import Results, final_returns, followed_to_the_end, interval, iqm, needed
from run import RESULTS, ROOT
from suites import ABLATED, ALGOS, ERRORS, FOLLOWED, HORIZON, SHARES, TASKS
from tables import NAMES, write_tables

COLOURS = {"plain": "#b5651d", "paper": "#3b6ea5", "best": "#2a7f62"}


@dataclass
class Args:
    """Where results are read, and figures and tables written."""

    results: Path = RESULTS  # folder of runs.csv, curves.csv and teachers.csv
    out: Path = ROOT  # folder with README.md and docs/


def band(axes, results, rows, column, colour, label):
    """A learning curve: the interquartile mean over seeds and its 95% interval, where every seed has a value."""
    frames = np.geomspace(500, HORIZON, 80)
    scores = np.stack([results.curve(row, column, frames) for row in rows])
    known = ~np.isnan(scores).any(axis=0)
    frames, scores = frames[known], scores[:, known]
    axes.plot(frames, iqm(scores), color=colour, label=label, linewidth=1.8)
    if len(scores) > 1:
        axes.fill_between(frames, *interval((scores,), iqm), color=colour, alpha=0.2, linewidth=0)


def draw_headline(results, algo, out):
    """Success and mean return against frames on the four tasks, with the teacher's own (the paper's Fig. 3)."""
    figure, grid = plt.subplots(2, len(TASKS), figsize=(12, 5), sharex=True, layout="constrained", squeeze=False)
    headline = results.of("headline")
    for column, task in enumerate(TASKS.values()):
        for axes, quantity, key in ((grid[0, column], 2, "success"), (grid[1, column], 1, "mean_return")):
            for method, colour in COLOURS.items():
                if rows := headline.get((task.name, algo, method)):
                    band(axes, results, rows, quantity, colour, f"{algo.upper()} {NAMES[method]}")
            of_task = (row for row in results.teachers if (row["task"], row["error"]) == (task.name, str(task.error)))
            if teacher := [float(row[key]) for row in of_task]:
                axes.axhline(np.mean(teacher), color="0.4", linestyle="--", linewidth=1, label="the teacher, sampled")
            axes.spines[["top", "right"]].set_visible(False)
            axes.set(xscale="log", xlim=(500, FOLLOWED))
        grid[0, column].set_title(task.name, fontsize=11)
        grid[0, column].set_ylim(0, 1.03)
        grid[1, column].set(xlabel="frames", ylim=(min(0, grid[1, column].get_ylim()[0]), 1.03))
    grid[0, 0].set_ylabel("success, last 100 episodes")
    grid[1, 0].set_ylabel("mean return, last 50")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(out / f"headline_{algo}.png", dpi=110)
    plt.close(figure)


def draw_seeds(axes, y, values, reached, colour, height):
    """A bar for the interquartile mean of some seeds, a dot for each, a cross for one that never got there."""
    axes.barh(y, iqm(values), height, color=colour, alpha=0.35)
    for which, marker, size in ((reached, "o", 14), (~reached, "x", 36)):
        axes.scatter(values[which], np.full(which.sum(), y), s=size, marker=marker, color=colour, zorder=3)


def draw_frames(results, out):
    """Frames to threshold on every task: a dot for a seed, a bar for their interquartile mean."""
    found = results.of("threshold")
    algos = [algo for algo in ALGOS if any(rows for (_, of, _), rows in found.items() if of == algo)]
    figure, panels = plt.subplots(
        len(algos), 1, figsize=(7.5, 0.6 + 3 * len(algos)), layout="constrained", squeeze=False
    )
    for axes, algo in zip(panels[:, 0], algos, strict=True):
        for (task, of, method), rows in found.items():
            if of == algo and rows:
                y = list(TASKS).index(task) + 0.26 * (list(NAMES).index(method) - 1)
                draw_seeds(axes, y, *needed(rows), COLOURS[method], 0.22)
        axes.set(xscale="log", xlim=(500, HORIZON), xlabel="frames to threshold", ylim=(len(TASKS) - 0.5, -0.5))
        axes.set_yticks(range(len(TASKS)), TASKS)
        axes.set_title(algo.upper(), fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour, alpha=0.5) for colour in COLOURS.values()]
    figure.legend(
        handles, [NAMES[name] for name in COLOURS], loc="outside upper center", ncols=3, frameon=False, fontsize=9
    )
    figure.savefig(out / "frames_to_threshold.png", dpi=110)
    plt.close(figure)


def draw_ablation(results, out):
    """Frames to threshold of every way to learn, and of ours without each of its parts (the paper's Fig. 4)."""
    found = {key: rows for key, rows in results.of("ablation").items() if rows}
    methods = dict.fromkeys(method for *_, method in found)
    methods = sorted(methods, key=lambda method: list(COLOURS).index(family(method)))
    figure, panels = plt.subplots(
        1, len(ABLATED), figsize=(11, 0.8 + 0.26 * len(methods)), sharey=True, layout="constrained", squeeze=False
    )
    for axes, task in zip(panels[0], ABLATED, strict=True):
        for y, method in enumerate(methods):
            if rows := found.get((task, "ppo", method)):
                draw_seeds(axes, y, *needed(rows), COLOURS[family(method)], 0.6)
        axes.set(xscale="log", xlim=(500, 100_000), xlabel="frames to threshold", ylim=(len(methods) - 0.5, -0.5))
        axes.set_yticks(range(len(methods)), [NAMES.get(method, method) for method in methods])
        axes.set_title(task, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "ablation.png", dpi=110)
    plt.close(figure)


def draw_quality(results, out):
    """What worse teachers do to the return in the end, and fewer labels to the frames until the threshold."""
    found = results.of("quality")
    figure, grid = plt.subplots(len(ABLATED), 2, figsize=(10, 4.6), layout="constrained", squeeze=False)
    for (left, right), task in zip(grid, ABLATED, strict=True):
        columns = (
            (left, ("0.96", *ERRORS), "teacher", "{}, teacher {}"),
            (right, [f"{share:.0%}" for share in (1, *SHARES)], "labels", "{}, {} of the labels"),
        )
        for axes, ticks, name, pattern in columns:
            for (y, tick), method in itertools.product(enumerate(ticks), ("paper", "best")):
                rows = found.get((task, "ppo", pattern.format(method, tick)))
                if not rows or (axes is left and not followed_to_the_end(rows)):
                    continue
                values = needed(rows) if axes is right else final_returns(rows)
                draw_seeds(axes, y + 0.2 * (method == "best"), *values, COLOURS[method], 0.18)
            axes.set_yticks(np.arange(len(ticks)) + 0.1, ticks)
            axes.set(ylim=(len(ticks) - 0.6, -0.3), ylabel=name, title=task)
            axes.spines[["top", "right"]].set_visible(False)
        if rows := found.get((task, "ppo", "plain")):
            left.axvline(iqm(final_returns(rows)[0]), color=COLOURS["plain"], linestyle="--", label="PPO alone")
        left.set(xlim=(0, 1.02), xlabel="mean return in the last tenth of the run")
        right.set(xscale="log", xlim=(500, 100_000), xlabel="frames to threshold")
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[method], alpha=0.5) for method in ("paper", "best")]
    handles += grid[0, 0].get_legend_handles_labels()[0]
    names = [NAMES["paper"], NAMES["best"], "PPO alone"]
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(out / "quality.png", dpi=110)
    plt.close(figure)


def family(method):
    """The one of plain, paper and best that a method is a variant of."""
    return next(name for name in COLOURS if method.startswith(name))


def main(args):
    """Draw and write all."""
    results = Results(args.results)
    images = args.out / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    draw_frames(results, images)
    for algo in ALGOS:
        if any(rows for (_, of, _), rows in results.of("headline").items() if of == algo):
            draw_headline(results, algo, images)
    for suite, draw in (("ablation", draw_ablation), ("quality", draw_quality)):
        if any(results.of(suite).values()):
            draw(results, images)
    for path in (args.out / "README.md", *sorted((args.out / "docs").glob("*.md"))):
        if path.exists():
            write_tables(results, path)


if __name__ == "__main__":
    main(tyro.cli(Args))
