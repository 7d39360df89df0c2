"""Writes every table of the results into the README and the pages of docs/, between its pair of markers."""

from functools import partial

import numpy as np
from measures import iqm, needed, speed_up
from suites import ALGOS, HARD_TASKS, PAPER_TASKS

NAMES = {"plain": "alone, best of the tuned settings", "paper": "the paper's method", "ours": "ours"}
TASKS_OF = {"paper": PAPER_TASKS, "hard": HARD_TASKS}


def table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def with_range(rows, key, digits=0):
    """The interquartile mean of a column of some runs, its least and greatest, and how many runs have none."""
    values = [float(row[key]) for row in rows if row[key]]
    missing = f"; {len(rows) - len(values)} of {len(rows)} never" if len(values) < len(rows) else ""
    if not values:
        return f"not in {min(int(row['frames']) for row in rows):,}" if "frames" in key else ""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}{missing}"
    return f"{iqm(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f}){missing}"


def after(results, rows):
    """Over the seeds of a method, after the threshold is held: the lowest share of good looks, and the lowest look."""
    found = [values for row in rows if (values := results.afterwards(row))]
    return f"{min(share for share, _ in found):.0%}, {min(low for _, low in found):.2f}" if found else ""


def suite_table(results, suite):
    """Frames to threshold, held and at the first look; speed-ups; what comes after; and the geometric means."""
    found, lines = results.of(suite), []
    for algo in ALGOS:
        pairs = {}
        for task in TASKS_OF[suite]:
            plain = found.get((task, algo, "plain"))
            for method, name in NAMES.items():
                if rows := found.get((task, algo, method)):
                    faster = ["", ""]
                    if plain and method != "plain":
                        keys = ("held_frames", "first_frames")
                        pairs.setdefault(method, []).append([(needed(plain, k), needed(rows, k)) for k in keys])
                        faster = [speed_up([pair]) for pair in pairs[method][-1]]
                    frames = with_range(rows, "held_frames"), with_range(rows, "first_frames")
                    lines.append([task, algo.upper(), name, len(rows), *frames, *faster, after(results, rows)])
        for method, of_tasks in pairs.items():
            means = [f"**{speed_up(of_both)}**" for of_both in zip(*of_tasks, strict=True)]
            tasks = f"{len(of_tasks)} of {len(TASKS_OF[suite])} tasks"
            lines.append([f"**geometric mean**, {tasks}", algo.upper(), NAMES[method], "", "", "", *means, ""])
    columns = ["held from frame", "first look", "speed-up, held", "by the first look", "afterwards"]
    return table(["task", "student", "method", "seeds", *columns], lines)


def readme_table(results):
    """Frames until the threshold is held by the three methods side by side, PPO: the short form of the first table."""
    found, lines = results.of("paper"), []
    for task in PAPER_TASKS:
        plain, cells = found.get((task, "ppo", "plain")), []
        for method in NAMES:
            rows = found.get((task, "ppo", method))
            frames = with_range(rows, "held_frames") if rows else "-"
            is_taught = plain and rows and method != "plain"
            pair = [(needed(plain), needed(rows))] if is_taught else None
            cells.append(f"{frames.split(' (')[0]}, {speed_up(pair)}" if pair else frames)
        lines.append([task, *cells])
    return table(["task", "PPO alone, tuned", "the paper's method", "ours"], lines)


def commands_table(results, script):
    """The command of every kind of run of a script; other seeds differ in seed and salt."""
    lines = []
    for (task, _, method), rows in (results.of("paper") | results.of("hard")).items():
        if f"algos/{script}.py" in rows[0]["command"]:
            lines.append([task, method, f"`{rows[0]['command']}`"])
    return table(["task", "method", "command"], lines)


def tuning_table(results):
    """Frames until plain RL held the threshold, by setting."""
    lines = []
    for (task, algo, method), rows in results.of("tune").items():
        frames = [row["held_frames"] or f"not in {int(row['frames']):,} ({row['ended']})" for row in rows]
        lines.append([task, algo.upper(), method.removeprefix("tune: "), ", ".join(frames)])
    return table(["task", "student", "setting", "held from frame, seed by seed"], lines)


def comparison_table(results, suite):
    """Frames to threshold of every method of a suite, what comes after, and the return in the end."""
    lines = []
    for (task, algo, method), rows in results.of(suite).items():
        figures = with_range(rows, "held_frames"), after(results, rows), with_range(rows, "final_return", 3)
        lines.append([task, algo.upper(), method, len(rows), *figures, with_range(rows, "labels")])
    lines.sort(key=lambda line: line[0])
    columns = ["seeds", "held from frame", "afterwards", "return at the end", "labels"]
    return table(["task", "student", "method", *columns], lines)


def cost_table(results):
    """What our method asks in a run: labels, distinct views, and the calls of an empty store."""
    lines = []
    for (task, algo, method), rows in (results.of("paper") | results.of("hard")).items():
        if method == "ours":
            asked = [with_range(rows, name) for name in ("held_frames", "labels", "views")]
            lines.append([task, algo.upper(), len(rows), *asked])
    return table(["task", "student", "seeds", "held from frame", "labels in all", "distinct views"], lines)


def teacher_table(results):
    """How good the teachers are by themselves: means over their salts, the least and the greatest in brackets."""
    found, lines = {}, []
    for row in results.teachers:
        found.setdefault((row["task"], row["faults"]), []).append(row)
    for (task, faults), rows in found.items():
        episodes = sum(int(row["episodes"]) for row in rows)
        figures = (spread(rows, name) for name in ("success", "mean_return", "action_accuracy"))
        lines.append([task, f"`{faults}`", len(rows), episodes, *figures])
    return table(["task", "faults", "salts", "episodes", "success, sampled", "mean return", "action accuracy"], lines)


def spread(rows, key):
    """The mean of a column of some rows, its least and its greatest."""
    values = [float(row[key]) for row in rows]
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


TABLES = {
    "paper": partial(suite_table, suite="paper"),
    "hard": partial(suite_table, suite="hard"),
    "readme": readme_table,
    "teachers": teacher_table,
    "tuning": tuning_table,
    "handover": partial(comparison_table, suite="handover"),
    "quality": partial(comparison_table, suite="quality"),
    "cost": cost_table,
}
SCRIPTS = [f"{algo}_lvlm2p{replay}" for algo in ALGOS for replay in ("", "_replay")]
TABLES |= {f"{script} commands": partial(commands_table, script=script) for script in SCRIPTS}


def write_tables(results, path):
    """Put each table between its pair of markers, ``<!-- name -->`` and ``<!-- end -->``."""
    text = path.read_text()
    for name, make in TABLES.items():
        mark = f"<!-- {name} -->\n"
        if mark in text:
            before, after_it = text.split(mark)
            text = before + mark + make(results) + "\n<!-- end -->" + after_it.split("<!-- end -->", 1)[1]
    path.write_text(text)
