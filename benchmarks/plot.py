"""Draws every figure and writes every table of the results, from the committed rows alone.

python benchmarks/plot.py            or: make figures

Figures go to docs/images/, each table between its pair of markers in the README and the pages of docs/.
Interquartile means over seeds are rliable's (Agarwal et al. 2021), and so are the 95% intervals of the curves; those of
the speed-ups resample the seeds of plain and of taught runs apart.
"""

import csv
import itertools
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro
from rliable import library, metrics
from run import CURVE_COLUMNS, RESULTS, ROOT, finished
from suites import ABLATED, ALGOS, ERRORS, FOLLOWED, HORIZON, SHARES, SUITES, TASKS

COLOURS = {"plain": "#b5651d", "paper": "#3b6ea5", "best": "#2a7f62"}
NAMES = {"plain": "alone, best of the tuned settings", "paper": "the paper's method", "best": "our best method"}
BOOTSTRAPS = 2000


@dataclass
class Args:
    """Where results are read, and figures and tables written."""

    results: Path = RESULTS  # folder of runs.csv, curves.csv and teachers.csv
    out: Path = ROOT  # folder with README.md and docs/


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


def frames_to_threshold(rows):
    """The frames that each seed needed; the frames it was given where it never got there, and whether it did."""
    needed = np.array([float(row["solved_frames"] or row["frames"]) for row in rows])
    return needed, np.array([bool(row["solved_frames"]) for row in rows])


def followed_to_the_end(rows):
    """Whether none of the runs ended at its threshold, so that its last return is what it came to."""
    return all(row["ended"] == "horizon" for row in rows)


def final_returns(rows):
    """The mean return in the last tenth of each run; and that it has one, as `frames_to_threshold` does."""
    return np.array([float(row["final_return"]) for row in rows]), np.ones(len(rows), dtype=bool)


def iqm(values):
    """The interquartile mean of a one-dimensional sample."""
    return metrics.aggregate_iqm(np.asarray(values))


@dataclass
class SpeedUp:
    """How many times fewer frames a method needs than plain RL.

    Attributes:
        value: the ratio of the interquartile means over seeds.
        low, high: its 95% interval; NaN where one side has a single seed.
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
        interval = "" if np.isnan(self.low) else f" ({self.low:.1f} to {self.high:.1f})"
        return f"{'>= ' if self.is_bound else ''}{self.value:.1f}x{interval}"


def speed_up(pairs):
    """The geometric mean over tasks of plain frames / method frames.

    Args:
        pairs: for each task the rows of plain RL and the rows of the method, a row a seed.
    """
    frames = [[frames_to_threshold(rows)[0] for rows in pair] for pair in pairs]
    rng = np.random.default_rng(0)

    def ratio(pairs):
        return np.exp(np.mean([np.log(iqm(plain) / iqm(taught)) for plain, taught in pairs]))

    # Seeds of plain and taught runs have nothing in common but their number: each side is resampled by itself.
    draws = ([[rng.choice(side, len(side)) for side in pair] for pair in frames] for _ in range(BOOTSTRAPS))
    low, high = np.percentile([ratio(draw) for draw in draws], [2.5, 97.5])
    if min(len(side) for pair in frames for side in pair) == 1:  # one seed says nothing of the others
        low, high = np.nan, np.nan
    reached = [[frames_to_threshold(rows)[1] for rows in pair] for pair in pairs]
    failed = max(1 - taught.mean() for _, taught in reached)
    return SpeedUp(ratio(frames), low, high, not all(plain.all() for plain, _ in reached), failed)


def band(axes, results, rows, column, colour, label):
    """A learning curve: the interquartile mean over seeds and its 95% interval, where every seed has a value."""
    frames = np.geomspace(500, HORIZON, 80)
    scores = np.stack([results.curve(row, column, frames) for row in rows])
    known = ~np.isnan(scores).any(axis=0)
    frames, scores = frames[known], scores[:, None, known]

    def aggregate(sample):
        return np.array([iqm(sample[..., point]) for point in range(sample.shape[-1])])

    seeded = np.random.RandomState(0)  # so that nothing changes where no result does
    middle, interval = library.get_interval_estimates({"": scores}, aggregate, reps=200, random_state=seeded)
    axes.plot(frames, middle[""], color=colour, label=label, linewidth=1.8)
    axes.fill_between(frames, *interval[""], color=colour, alpha=0.2, linewidth=0)


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
                draw_seeds(axes, y, *frames_to_threshold(rows), COLOURS[method], 0.22)
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
                draw_seeds(axes, y, *frames_to_threshold(rows), COLOURS[family(method)], 0.6)
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
                values = frames_to_threshold(rows) if axes is right else final_returns(rows)
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


def table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def with_range(rows, key, digits=2):
    """The interquartile mean of a column of some runs, its least and greatest, and how many runs have none."""
    values = [float(row[key]) for row in rows if row[key]]
    missing = f"; {len(rows) - len(values)} of {len(rows)} never" if len(values) < len(rows) else ""
    if not values:
        return "never"
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}{missing}"
    return f"{iqm(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f}){missing}"


def headline_table(results, algos=ALGOS):
    """Samples to threshold and speed-ups, by task; and the geometric means."""
    headline, lines = results.of("threshold"), []
    for algo in algos:
        pairs = {}
        for task, method in itertools.product(TASKS, NAMES):
            plain, rows = headline.get((task, algo, "plain")), headline.get((task, algo, method))
            if plain and rows:
                pairs.setdefault(method, []).append((plain, rows))
                faster = "1" if method == "plain" else speed_up([(plain, rows)])
                frames, seconds = with_range(rows, "solved_frames", 0), with_range(rows, "solved_s", 0)
                lines.append([task, algo.upper(), NAMES[method], len(rows), frames, faster, seconds])
        for method, of_tasks in pairs.items():
            if method != "plain" and len(of_tasks) == len(TASKS):
                mean = f"**{speed_up(of_tasks)}**"
                lines.append(["**geometric mean**", algo.upper(), NAMES[method], "", "", mean, ""])
    columns = ["task", "student", "method", "seeds", "frames to threshold", "speed-up", "seconds"]
    return table(columns, lines)


def commands_table(results, suite, algos=ALGOS):
    """The command of every kind of run of a suite; its other seeds differ in seed and salt alone."""
    lines = []
    for (task, algo, method), rows in results.of(suite).items():
        if rows and algo in algos:
            lines.append([task, algo.upper(), method, f"`{rows[0]['command']}`"])
    return table(["task", "student", "method", "command (seed 1)"], lines)


def tuning_table(results):
    """Frames to threshold of plain RL, by setting."""
    lines = []
    for (task, algo, method), rows in results.of("tune").items():
        frames = [row["solved_frames"] or f"not in {int(row['frames']):,} ({row['ended']})" for row in rows]
        if frames:
            lines.append([task, algo.upper(), method.removeprefix("tune: "), ", ".join(frames)])
    return table(["task", "student", "setting", "frames to threshold, seed by seed"], lines)


def comparison_table(results, suite):
    """Frames to threshold of every method of a suite, task by task; and the return of runs followed to the end."""
    lines = []
    for (task, algo, method), rows in results.of(suite).items():
        if rows:
            solved = sum(bool(row["solved_frames"]) for row in rows)
            figures = with_range(rows, "solved_frames", 0), f"{solved} of {len(rows)}"
            figures += (with_range(rows, "labels", 0) if rows[0]["labels"] else "none",)
            final = with_range(rows, "final_return", 3) if followed_to_the_end(rows) else ""
            lines.append([task, algo.upper(), method, *figures, final])
    lines.sort(key=lambda line: [*TASKS].index(line[0]))
    columns = [
        "task",
        "student",
        "method",
        "frames to threshold",
        "seeds that got there",
        "labels",
        "return at the end",
    ]
    return table(columns, lines)


def fewer_labels_table(results):
    """How many times as many frames our method needs with the smallest share of the labels as with all of them."""
    quality, few, lines = results.of("quality"), f"{min(SHARES):.0%}", []
    for method in ("best", "best, slow decay"):
        pairs = []
        for task in TASKS:
            pair = [quality.get((task, "ppo", f"{method}, {share} of the labels")) for share in (few, "100%")]
            if all(pair):
                pairs.append(pair)
                frames = [with_range(rows, "solved_frames", 0) for rows in reversed(pair)]
                lines.append([task, method, *frames, with_range(pair[0], "labels", 0), speed_up([pair])])
        if len(pairs) == len(TASKS):
            lines.append(["**geometric mean**", method, "", "", "", f"**{speed_up(pairs)}**"])
    return table(["task", "method", "frames, all labels", f"frames, {few} of them", "labels then", "ratio"], lines)


def teacher_table(results):
    """How good the teachers are by themselves: means over their salts, the least and the greatest in brackets."""
    found, lines = {}, []
    for row in results.teachers:
        found.setdefault((row["task"], row["error"]), []).append(row)
    for (task, error), rows in found.items():
        episodes = sum(int(row["episodes"]) for row in rows)
        figures = (spread(rows, name) for name in ("success", "mean_return", "action_accuracy"))
        lines.append([task, error, len(rows), episodes, *figures])
    return table(["task", "`error`", "salts", "episodes", "success, sampled", "mean return", "action accuracy"], lines)


def spread(rows, key):
    """The mean of a column of some rows, its least and its greatest."""
    values = [float(row[key]) for row in rows]
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


TABLES = {
    "headline": headline_table,
    "teachers": teacher_table,
    "tuning": tuning_table,
    "ablation": partial(comparison_table, suite="ablation"),
    "quality": partial(comparison_table, suite="quality"),
    "fewer labels": fewer_labels_table,
    "curves": partial(comparison_table, suite="headline"),
}
TABLES |= {f"{algo} headline": partial(headline_table, algos=(algo,)) for algo in ALGOS}
TABLES |= {f"{algo} commands": partial(commands_table, suite="threshold", algos=(algo,)) for algo in ALGOS}


def write_tables(results, path):
    """Put each table between its pair of markers, ``<!-- name -->`` and ``<!-- end -->``."""
    text = path.read_text()
    for name, make in TABLES.items():
        mark = f"<!-- {name} -->\n"
        if mark in text:
            before, after = text.split(mark)
            text = before + mark + make(results) + "\n<!-- end -->" + after.split("<!-- end -->", 1)[1]
    path.write_text(text)


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
