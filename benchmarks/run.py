"""Runs a suite of experiments in parallel processes; what is finished is kept, and skipped the next time.

python benchmarks/run.py --suite paper
python benchmarks/run.py --suite tune --only GoToDoor --workers 4

Each run is a process of its own with one torch thread. When it ends, its row is appended to results/runs.csv and its
looks (see reading.py) to results/looks.csv; both name the run by a digest of its command, so that suites share what
they have in common. A run that was killed left nothing there, and is made again.
"""

import csv
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import reading
import suites
import tyro
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
COLUMNS = ("id", "task", "algo", "method", "seed", "frames", "ended", "threshold", "held_frames", "first_frames")
COLUMNS += ("held_s", "final_return", "final_success", "labels", "views", "calls", "steps_per_s", "command")
LOOK_COLUMNS = ("id", "returns", "successes")
PROCESSES = set()  # those under way


@dataclass
class Args:
    """What is run, and where."""

    suite: str  # one of the suites in suites.py
    workers: int = 2  # processes at a time
    only: str = ""  # run only cells whose description has this in it: a task, a method, "seed 1"
    store: str = "default"  # where the teachers' answers are kept, for all runs
    results: Path = RESULTS  # folder of runs.csv and looks.csv
    dry_run: bool = False  # print the commands of what is missing, and end


def finished(results):
    """The rows of the runs that are there, by id."""
    path = results / "runs.csv"
    return {row["id"]: row for row in csv.DictReader(path.open())} if path.exists() else {}


def append(path, columns, rows):
    """Add rows to a CSV file that other runners may be adding to as well."""
    with path.open("a", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = csv.DictWriter(file, columns)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def why_to_end(cell, log, outpaced_at):
    """Whether a run may end before its horizon: ``"held"``, ``"outpaced"`` or ``""``."""
    held = reading.held(reading.looks(log, log.returns), cell.task.threshold) if log else np.nan
    if log and log.frames >= cell.end(held):
        return "held"
    return "outpaced" if log and log.frames > outpaced_at() else ""


def run(cell, store, outpaced_at):
    """Train once; returns the run's row and its looks."""
    command = shlex.split(cell.command)
    command = [sys.executable, str(ROOT / command[1]), *command[2:], "--store", store]
    started, ended = time.time(), ""
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile("w+") as output:
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=place, env=environ, stdout=output, stderr=subprocess.STDOUT)
        PROCESSES.add(process)
        try:
            while process.poll() is None and not ended:
                time.sleep(2)
                ended = why_to_end(cell, log_of(place), outpaced_at)
        finally:
            process.terminate()
            process.wait()
            PROCESSES.discard(process)
        if not ended and process.returncode:
            output.seek(0)
            raise RuntimeError(f"{cell.command}\n{output.read()[-2000:]}")
        (summary,) = Path(place).glob("runs/*/summary.json")
        of_teacher = json.loads(summary.read_text())["teacher"] or {}
        return row_of(cell, log_of(place), ended or "horizon", time.time() - started, of_teacher)


def log_of(place):
    """The log of the one run in a place; None before there is one."""
    return next((reading.read_log(folder) for folder in Path(place).glob("runs/*")), None)


def row_of(cell, log, ended, seconds, of_teacher):
    """What a run comes to, and its looks: up to where it was to end, not to where it was seen to be there."""
    returns, successes = reading.looks(log, log.returns), reading.looks(log, log.successes)
    held = reading.held(returns, cell.task.threshold)
    n = int(np.fmin(cell.end(held), log.frames)) // reading.EVERY
    returns, successes, rate = returns[:n], successes[:n], log.frames / seconds
    row = {
        "id": cell.id,
        "task": cell.task.name,
        "algo": cell.algo,
        "method": cell.method,
        "seed": cell.seed,
        "frames": n * reading.EVERY,
        "ended": ended,
        "threshold": cell.task.threshold,
        "held_frames": number(held),
        "first_frames": number(reading.first(returns, cell.task.threshold)),
        "held_s": number(held / rate),
        "final_return": round(float(returns[-n // 10 :].mean()), 4),
        "final_success": round(float(successes[-n // 10 :].mean()), 4),
        "labels": of_teacher.get("labels", ""),
        "views": of_teacher.get("distinct_views", ""),
        "calls": of_teacher.get("calls", ""),
        "steps_per_s": round(rate, 1),
        "command": cell.command,
    }
    texts = (" ".join(f"{value:.3f}" for value in values) for values in (returns, successes))
    return row, dict(zip(LOOK_COLUMNS, (cell.id, *texts), strict=True))


def number(value):
    """A whole number, or nothing for NaN."""
    return "" if np.isnan(value) else round(value)


def outpacer(cell, results):
    """The frames after which a run of a race is of no interest: it holds half as late again as the best, or later."""

    def frames():
        rivals = (row for row in finished(results).values() if cell.races(row))
        best = min((int(row["held_frames"]) for row in rivals if row["held_frames"]), default=float("inf"))
        return 1.5 * best + reading.HELD_FOR

    return frames if cell.is_race else lambda: float("inf")


def describe(cell):
    """A cell in words, for the progress and for ``--only``."""
    return f"{cell.task.name} {cell.algo} {cell.method}, seed {cell.seed}"


def missing(args):
    """The cells of the suite that are to be run now; finished races may have added some."""
    rows = finished(args.results)
    cells = {cell.id: cell for cell in suites.SUITES[args.suite](rows) if args.only in describe(cell)}
    return {name: cell for name, cell in cells.items() if name not in rows}, len(cells)


def main(args):
    """Run what is missing of a suite."""
    if args.suite not in suites.SUITES:
        sys.exit(f"--suite {args.suite}: there is none; the suites are {', '.join(suites.SUITES)}")
    if args.dry_run:
        for cell in missing(args)[0].values():
            print(cell.command)
        return
    args.results.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a runner that is ended takes its processes with it
    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress, ThreadPoolExecutor(args.workers) as pool:
        try:
            run_all(args, progress, pool)
        finally:
            for process in PROCESSES.copy():
                process.terminate()


def run_all(args, progress, pool):
    """Keep the pool busy until nothing is missing."""
    bar = progress.add_task(args.suite, total=None)
    under_way = {}
    while True:
        cells, total = missing(args)
        progress.update(bar, total=total, completed=total - len(cells))
        begun = {cell.id for cell in under_way.values()}
        for cell in [cell for name, cell in cells.items() if name not in begun][: args.workers - len(begun)]:
            under_way[pool.submit(run, cell, args.store, outpacer(cell, args.results))] = cell
        if not under_way:
            break
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            cell = under_way.pop(future)
            row, looks = future.result()
            if row["id"] not in finished(args.results):  # another runner may have been at it, too
                append(args.results / "looks.csv", LOOK_COLUMNS, [looks])
                append(args.results / "runs.csv", COLUMNS, [row])
            held = row["held_frames"] or "never"
            progress.print(f"{describe(cell)}: held from {held}, {row['ended']} at {row['frames']} frames")


if __name__ == "__main__":
    main(tyro.cli(Args))
