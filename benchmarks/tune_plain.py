"""Tunes plain PPO (`--lam 0`), so that the taught one is compared with the best of it and not with an untuned one.

python benchmarks/tune_plain.py

Every setting runs on seed 1, the best three on seeds 2 and 3 too, one process at a time. A finished run is a row of
results/tune_plain.csv and is skipped, so that the command may be stopped and started again.
"""

import csv
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "algos" / "ppo_lvlm2p.py"
COLUMNS = ("setting", "seed", "env_id", "frames", "frames_to_return_50", "frames_to_return_100", "success_100_at_30k")
COLUMNS += ("mean_return_100_at_end", "success_100_at_end", "steps_per_s", "command")

BASE = {
    "num-envs": 8,
    "num-steps": 128,
    "num-minibatches": 4,
    "update-epochs": 4,
    "learning-rate": 1e-3,
    "ent-coef": 0.01,
    "gae-lambda": 0.95,
}
# One thing at a time, by name.
SETTINGS = {
    "base": {},
    "learning rate 5e-4": {"learning-rate": 5e-4},
    "learning rate 2e-3": {"learning-rate": 2e-3},
    "16 envs": {"num-envs": 16},
    "4 envs x 64 steps": {"num-envs": 4, "num-steps": 64},
    "8 epochs": {"update-epochs": 8},
    "8 minibatches": {"num-minibatches": 8},
    "entropy 0.003": {"ent-coef": 0.003},
    "entropy 0.03": {"ent-coef": 0.03},
    "GAE 0.9": {"gae-lambda": 0.9},
}


@dataclass
class Args:
    """What to tune on."""

    env_id: str = "MiniGrid-LavaGapS7-v0"  # the task
    frames: int = 50_000  # the horizon of a run
    threshold: float = 0.91  # the mean return that counts as solved; 0.91 is the paper's for LavaGapS7
    seeds: int = 3  # how many seeds the best settings run on
    best: int = 3  # how many settings count as best
    results: Path = HERE / "results" / "tune_plain.csv"  # where the rows are appended


def first_frame(curve, column, threshold):
    """The first frame of a curve at which a column reaches the threshold; empty if it never does."""
    reached = (int(row["global_step"]) for row in curve if row[column] and float(row[column]) >= threshold)
    return next(reached, "")


def run(args, setting, seed):
    """Train once; returns the row of the results."""
    flags = {"lam": 0, "env-id": args.env_id, "total-timesteps": args.frames, "seed": seed, **BASE, **SETTINGS[setting]}
    flags = " ".join(f"--{name} {value}" for name, value in flags.items())
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, SCRIPT, *flags.split()], cwd=folder, env=environ, check=True)
        with next(Path(folder).glob("runs/*/curve.csv")).open() as file:
            curve = list(csv.DictReader(file))
    end = curve[-1]
    at_30k = [row["success_100"] for row in curve if int(row["global_step"]) <= 30_000][-1]
    to_50, to_100 = (first_frame(curve, f"mean_return_{n}", args.threshold) for n in (50, 100))
    measured = to_50, to_100, at_30k, end["mean_return_100"], end["success_100"], end["steps_per_s"]
    command = f"python algos/ppo_lvlm2p.py {flags}"
    return dict(zip(COLUMNS, (setting, seed, args.env_id, args.frames, *measured, command), strict=True))


def finished(args):
    """The rows that are there, by setting and seed."""
    if not args.results.exists():
        return {}
    with args.results.open() as file:
        rows = [
            row for row in csv.DictReader(file) if (row["env_id"], int(row["frames"])) == (args.env_id, args.frames)
        ]
    return {(row["setting"], int(row["seed"])): row for row in rows}


def complete(args, settings, seeds):
    """Run what is missing of settings x seeds."""
    args.results.parent.mkdir(exist_ok=True)
    for seed in seeds:
        for setting in settings:
            if (setting, seed) in finished(args):
                continue
            row = run(args, setting, seed)
            is_new = not args.results.exists()
            with args.results.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if is_new:
                    writer.writeheader()
                writer.writerow(row)


def best_first(args, settings, seeds):
    """Settings by the frames that they need on average; a run that never gets there counts as the horizon."""

    def frames(setting):
        rows = [finished(args)[setting, seed] for seed in seeds]
        return sum(int(row["frames_to_return_50"] or args.frames) for row in rows) / len(rows)

    return sorted(settings, key=frames)


def main(args):
    """Tune, and print the table."""
    complete(args, SETTINGS, [1])
    best = best_first(args, SETTINGS, [1])[: args.best]
    seeds = range(1, args.seeds + 1)
    complete(args, best, seeds)
    for setting in best_first(args, best, seeds):
        rows = [finished(args)[setting, seed] for seed in seeds]
        frames, success = ([row[name] for row in rows] for name in ("frames_to_return_50", "success_100_at_30k"))
        print(f"{setting}: frames to {args.threshold}: {frames}; success after 30,000 frames: {success}")


if __name__ == "__main__":
    main(tyro.cli(Args))
