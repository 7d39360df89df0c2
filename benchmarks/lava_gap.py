"""The README's learning curve: the taught student and the best plain PPO on LavaGapS7, three seeds each.

python benchmarks/lava_gap.py                 run what is missing, then draw
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "lava_gap.csv"
COLUMNS = ["method", "seed", "global_step", "success_100", "mean_return_100", "calls", "command"]

# The taught student with the script's defaults; plain PPO with the best settings of results/tune_plain.csv.
METHODS = {
    "plain": ["--lam", "0", "--num-envs", "8", "--num-steps", "128", "--update-epochs", "8"],
    "taught": ["--lam", "1.0"],
}
NAMES = {"taught": "PPO with teacher, lam 1", "plain": "PPO alone, best of the settings tried"}


@dataclass
class Args:
    """How much is run."""

    seeds: tuple[int, ...] = (1, 2, 3)  # seeds of every method
    total_timesteps: int = 40_000  # frames of a run
    store: str | None = "default"  # where the teacher's answers are kept


def run(args, method, seed):
    """One run of the script; a few rows of its learning curve."""
    flags = [*METHODS[method], "--seed", str(seed), "--total-timesteps", str(args.total_timesteps)]
    command = ["algos/ppo_lvlm2p.py", *flags]
    store = ["--store", str(args.store)] if method == "taught" else []
    with tempfile.TemporaryDirectory() as folder:
        script = [sys.executable, str(ROOT / command[0]), *flags, *store]
        subprocess.run(script, cwd=folder, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        (run_dir,) = Path(folder).glob("runs/*")
        rows = list(csv.DictReader((run_dir / "curve.csv").open()))
        summary = json.loads((run_dir / "summary.json").read_text())
    for row in rows[:: max(1, len(rows) // 60)] + rows[-1:]:
        figures = (row["global_step"], row["success_100"], row["mean_return_100"], row.get("calls", ""))
        yield dict(zip(COLUMNS, (method, seed, *figures, "python " + " ".join(command)), strict=True))
    print(method, seed, summary["success_100"], summary["steps_per_s"], flush=True)


def read():
    """The committed rows, by method and seed."""
    rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    runs = {}
    for row in rows:
        runs.setdefault((row["method"], int(row["seed"])), []).append(row)
    return runs


def draw(runs, out):
    """Success against frames: every seed as a thin line, the mean as a thick one."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    for method, colour in (("taught", "#2a7f62"), ("plain", "#b5651d")):
        frames, curves = np.arange(0, 40_001, 250), []
        for (name, _), rows in runs.items():
            if name == method:
                steps = [int(row["global_step"]) for row in rows if row["success_100"]]
                success = [float(row["success_100"]) for row in rows if row["success_100"]]
                axes.plot(steps, success, color=colour, alpha=0.35, linewidth=1)
                curves.append(np.interp(frames, steps, success, left=np.nan, right=np.nan))
        axes.plot(frames, np.mean(curves, axis=0), color=colour, linewidth=2.5, label=NAMES[method])
    axes.set(xlabel="frames", ylabel="success, last 100 episodes", ylim=(0, 1.03), xlim=(0, 40_000))
    axes.set_title("MiniGrid-LavaGapS7-v0, three seeds (thin), their mean (thick)", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center right", frameon=False)
    figure.savefig(out, dpi=110)


def main(args):
    """Run what is missing, print when each run reached 0.9, draw."""
    runs = read()
    for method in METHODS:
        for seed in args.seeds:
            if (method, seed) not in runs:
                rows = list(run(args, method, seed))
                with RESULTS.open("a", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    if file.tell() == 0:
                        writer.writeheader()
                    writer.writerows(rows)
    runs = read()
    print("| method | seed | first frame with success 0.9 | success of plain PPO there | success at the end |")
    print("|---|---|---|---|---|")
    for (method, seed), rows in runs.items():
        known = [(int(row["global_step"]), float(row["success_100"])) for row in rows if row["success_100"]]
        reached = next((step for step, success in known if success >= 0.9), None)
        plain = [row["success_100"] for row in runs["plain", seed] if reached and int(row["global_step"]) <= reached]
        there = (plain or [""])[-1] or "no 100 episodes yet"
        print(f"| {NAMES[method]} | {seed} | {reached} | {there} | {known[-1][1]} |")
    draw(runs, ROOT / "docs" / "images" / "lava_gap.png")


if __name__ == "__main__":
    main(tyro.cli(Args))
