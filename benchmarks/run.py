"""Runs a suite of experiments in parallel processes; what is finished is kept, and skipped the next time.

python benchmarks/run.py --suite headline
python benchmarks/run.py --suite tune --only GoToDoor --workers 4

Each run is a process of its own with one torch thread. When it ends, its row is appended to results/runs.csv and its
learning curve, thinned, to results/curves.csv; both name the run by a digest of its command, so that suites share what
they have in common. A run that was killed left nothing there, and is made again.
"""

import csv
import fcntl
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

import suites
import tyro
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
COLUMNS = ("id", "task", "algo", "method", "seed", "frames", "ended", "threshold", "solved_frames", "solved_s")
COLUMNS += ("final_return", "final_success", "labels", "calls", "steps_per_s", "command")
CURVE_COLUMNS = ("id", "global_step", "mean_return_50", "success_100")
POINTS = 100
PROCESSES = set()  # those under way


@dataclass
class Args:
    """What is run, and where."""

    suite: str  # one of the suites in suites.py
    workers: int = 2  # processes at a time
    only: str = ""  # run only cells whose description has this in it: a task, a method, "seed 1"
    store: str = "default"  # where the teachers' answers are kept, for all runs
    results: Path = RESULTS  # folder of runs.csv and curves.csv
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


def curve_so_far(folder):
    """The rows of a run's curve.csv up to now; one that is being written is left out."""
    for path in Path(folder).glob("runs/*/curve.csv"):
        text = path.read_text()
        return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
    return []


def solved_row(curve, threshold):
    """The first row with a mean return of the last 50 episodes that reaches the threshold; None if there is none."""
    reached = (row for row in curve if row["mean_return_50"] and float(row["mean_return_50"]) >= threshold)
    return next(reached, None)


def why_to_end(cell, curve, outpaced_at):
    """Whether a run may end before its horizon: ``"solved"``, ``"outpaced"`` or ``""``."""
    now, solved = int(curve[-1]["global_step"]) if curve else 0, solved_row(curve, cell.task.threshold)
    if solved and cell.frames_after_solved is not None and now >= int(solved["global_step"]) + cell.frames_after_solved:
        return "solved"
    return "outpaced" if now > outpaced_at() else ""


def run(cell, store, outpaced_at):
    """Train once; returns the run's row and its thinned curve."""
    command = shlex.split(cell.command)
    command = [sys.executable, str(ROOT / command[1]), *command[2:], "--store", store]
    started, ended = time.time(), ""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT)
        PROCESSES.add(process)
        try:
            while process.poll() is None and not ended:
                time.sleep(1)
                ended = why_to_end(cell, curve_so_far(folder), outpaced_at)
        finally:
            process.terminate()
            process.wait()
            PROCESSES.discard(process)
        curve = curve_so_far(folder)
        if not ended and process.returncode:
            output.seek(0)
            raise RuntimeError(f"{cell.command}\n{output.read()[-2000:]}")
    return row_of(cell, curve, ended or "horizon", time.time() - started), thinned(cell, curve)


def row_of(cell, curve, ended, seconds):
    """What a run comes to."""
    end, solved = curve[-1], solved_row(curve, cell.task.threshold)
    last_tenth = [row for row in curve if int(row["global_step"]) > 0.9 * int(end["global_step"])]
    final = {
        name: round(sum(float(row[column] or "nan") for row in last_tenth) / len(last_tenth), 4)
        for name, column in (("final_return", "mean_return_100"), ("final_success", "success_100"))
    }
    return {
        "id": cell.id,
        "task": cell.task.name,
        "algo": cell.algo,
        "method": cell.method,
        "seed": cell.seed,
        "frames": end["global_step"],
        "ended": ended,
        "threshold": cell.task.threshold,
        "solved_frames": solved["global_step"] if solved else "",
        "solved_s": round(int(solved["global_step"]) / float(solved["steps_per_s"]), 1) if solved else "",
        **final,
        "labels": end.get("labels", ""),
        "calls": end.get("calls", ""),
        "steps_per_s": round(int(end["global_step"]) / seconds, 1),
        "command": cell.command,
    }


def thinned(cell, curve):
    """Some rows of a curve: dense at its beginning, where taught students learn, and the last one."""
    horizon = int(curve[-1]["global_step"])
    wanted, rows = 0.0, []
    for row in curve:
        step = int(row["global_step"])
        if step >= wanted or step == horizon:
            rows.append({name: row.get(name, "") for name in CURVE_COLUMNS} | {"id": cell.id})
            wanted = max(step * 1.04, step + horizon / POINTS / 10)
    return rows


def outpacer(cell, results):
    """The frames after which a run of a race is of no interest: half as many again as the fastest one needed."""

    def frames():
        rivals = (row for row in finished(results).values() if cell.races(row))
        return 1.5 * min((int(row["solved_frames"]) for row in rivals if row["solved_frames"]), default=float("inf"))

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
            row, curve = future.result()
            if row["id"] not in finished(args.results):  # another runner may have been at it, too
                append(args.results / "curves.csv", CURVE_COLUMNS, curve)
                append(args.results / "runs.csv", COLUMNS, [row])
            solved = row["solved_frames"] or "never"
            progress.print(f"{describe(cell)}: solved at {solved}, {row['ended']} at {row['frames']} frames")


if __name__ == "__main__":
    main(tyro.cli(Args))
