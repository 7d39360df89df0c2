"""Writes every table of the results into the README and the pages of docs/, between its pair of markers."""

import itertools
from functools import partial

import numpy as np
from measures import (
    final_returns,
    followed_to_the_end,
    held,
    iqm,
    looked_at_alike,
    needed,
    return_afterwards,
    speed_up,
)
from suites import ALGOS, SHARES, TASKS

NAMES = {"plain": "alone, best of the tuned settings", "paper": "the paper's method", "best": "our best method"}


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


def headline_table(results):
    """Samples to threshold and speed-ups, by task; and the geometric means."""
    headline, lines = results.of("threshold"), []
    for algo in ALGOS:
        pairs = {}
        for task, method in itertools.product(TASKS, NAMES):
            plain, rows = headline.get((task, algo, "plain")), headline.get((task, algo, method))
            if plain and rows:
                pairs.setdefault(method, []).append((needed(plain), needed(rows)))
                faster = "1" if method == "plain" else speed_up(pairs[method][-1:])
                frames, seconds = with_range(rows, "solved_frames", 0), with_range(rows, "solved_s", 0)
                lines.append([task, algo.upper(), NAMES[method], len(rows), frames, faster, seconds])
        for method, of_tasks in pairs.items():
            if method != "plain" and len(of_tasks) == len(TASKS):
                mean = f"**{speed_up(of_tasks)}**"
                lines.append(["**geometric mean**", algo.upper(), NAMES[method], "", "", mean, ""])
    columns = ["task", "student", "method", "seeds", "frames to threshold", "speed-up", "seconds"]
    return table(columns, lines)


def readme_table(results, algo="ppo"):
    """Samples to threshold of the three methods side by side, a row a task: the short form of the headline table."""
    headline, lines = results.of("threshold"), []
    for task in TASKS:
        plain = headline.get((task, algo, "plain"))
        cells = [with_range(plain, "solved_frames", 0)] if plain else ["-"]
        for method in ("paper", "best"):
            rows = headline.get((task, algo, method))
            frames = with_range(rows, "solved_frames", 0).split(" (")[0] if rows else "-"
            cells.append(f"{frames}, {speed_up([(needed(plain), needed(rows))])}" if plain and rows else frames)
        lines.append([task, *cells])
    return table(["task", f"{algo.upper()} alone, tuned", "the paper's method", "our variant"], lines)


def commands_table(results, script):
    """The command of every kind of run of a script in the threshold suite; other seeds differ in seed and salt."""
    lines = []
    for (task, _, method), rows in results.of("threshold").items():
        if rows and f"algos/{script}.py" in rows[0]["command"]:
            lines.append([task, method, f"`{rows[0]['command']}`"])
    return table(["task", "method", "command"], lines)


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
    for method in ("best",):
        pairs = []
        for task in TASKS:
            pair = [quality.get((task, "ppo", f"{method}, {share} of the labels")) for share in (few, "100%")]
            if all(pair):
                pairs.append([needed(rows) for rows in pair])
                frames = [with_range(rows, "solved_frames", 0) for rows in reversed(pair)]
                lines.append([task, method, *frames, with_range(pair[0], "labels", 0), speed_up(pairs[-1:])])
        if len(pairs) == len(TASKS):
            lines.append(["**geometric mean**", method, "", "", "", f"**{speed_up(pairs)}**"])
    return table(["task", "method", "frames, all labels", f"frames, {few} of them", "labels then", "ratio"], lines)


def stricter_table(results):
    """Speed-ups if all runs are looked at equally often, and if the threshold has to be held; and what comes after."""
    headline, first_looks, lines = results.of("headline"), results.of("threshold"), []
    for algo, method in itertools.product(ALGOS, ("paper", "best")):
        pairs = {"first": [], "alike": [], "held": []}
        for task in TASKS.values():
            plain, rows = first_looks[task.name, algo, "plain"], headline[task.name, algo, method]
            if not (plain and rows):
                continue
            alike = partial(looked_at_alike, results, threshold=task.threshold)
            # A2C alone is not followed beyond its threshold: that it holds it from there on is taken for granted.
            holding = partial(held, results, threshold=task.threshold)
            plain_held = needed(headline[task.name, algo, "plain"], holding) if algo == "ppo" else needed(plain)
            pairs["first"].append((needed(plain), needed(rows)))
            pairs["alike"].append((needed(plain, alike), needed(rows, alike)))
            pairs["held"].append((plain_held, needed(rows, holding)))
            after = [return_afterwards(results, row) for row in rows if row["solved_frames"]]
            afterwards = f"{np.mean(after):.3f} ({task.threshold})" if after else ""
            lines.append(
                [task.name, algo.upper(), NAMES[method], *(speed_up(p[-1:]) for p in pairs.values()), afterwards]
            )
        if len(pairs["first"]) == len(TASKS):
            means = (f"**{speed_up(of_tasks)}**" for of_tasks in pairs.values())
            lines.append(["**geometric mean**", algo.upper(), NAMES[method], *means, ""])
    columns = ["first look at the threshold", "a look every 1,024 frames", "held for 5,000 frames"]
    return table(["task", "student", "method", *columns, "mean return in those (threshold)"], lines)


def final_table(results):
    """Mean returns at the end of the curves, and how the best method's compare with plain RL's."""
    lines = []
    for suite, method in (("headline", "best"), ("quality", "best, teacher 0.8"), ("quality", "best, teacher 0.6")):
        found = results.of(suite)
        for (task, algo, of), rows in found.items():
            plain = found.get((task, algo, "plain"))
            if of == method and rows and plain:
                ours, alone = final_returns(rows)[0], final_returns(plain)[0]
                ratios = f"{iqm(ours) / iqm(alone):.3f}", f"{np.mean(ours) / np.mean(alone):.3f}"
                lines.append([task, algo.upper(), method, len(rows), f"{iqm(ours):.3f}", f"{iqm(alone):.3f}", *ratios])
    columns = ["seeds", "return at the end", "of plain RL", "ratio", "ratio of plain means"]
    return table(["task", "student", "method", *columns], lines)


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
    "readme": readme_table,
    "teachers": teacher_table,
    "tuning": tuning_table,
    "ablation": partial(comparison_table, suite="ablation"),
    "quality": partial(comparison_table, suite="quality"),
    "fewer labels": fewer_labels_table,
    "stricter": stricter_table,
    "final": final_table,
    "curves": partial(comparison_table, suite="headline"),
}
SCRIPTS = [f"{algo}_lvlm2p{replay}" for algo in ALGOS for replay in ("", "_replay")]
TABLES |= {f"{script} commands": partial(commands_table, script=script) for script in SCRIPTS}


def write_tables(results, path):
    """Put each table between its pair of markers, ``<!-- name -->`` and ``<!-- end -->``."""
    text = path.read_text()
    for name, make in TABLES.items():
        mark = f"<!-- {name} -->\n"
        if mark in text:
            before, after = text.split(mark)
            text = before + mark + make(results) + "\n<!-- end -->" + after.split("<!-- end -->", 1)[1]
    path.write_text(text)
