"""What a teacher is worth, task by task: a report card for each of many environments, as one table.

python benchmarks/teacher_cards.py
python benchmarks/teacher_cards.py --envs MiniGrid-LavaGapS7-v0 --states 200 --episodes 100

Each card is what `lvlm2p evaluate` prints for the environment; the folders are kept under --folder.
"""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from lvlm2p_wrappers.cli.evaluate import default_folder

ENVS = (
    "MiniGrid-LavaGapS7-v0",
    "MiniGrid-Dynamic-Obstacles-6x6-v0",
    "MiniGrid-Fetch-6x6-N2-v0",
    "MiniGrid-GoToDoor-6x6-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-LavaCrossingS9N2-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-KeyCorridorS3R2-v0",
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-RedBlueDoors-6x6-v0",
    "MiniGrid-PutNear-6x6-N2-v0",
    "MiniGrid-ObstructedMaze-1Dlhb-v0",
    "BabyAI-GoToLocal-v0",
    "BabyAI-PickupLoc-v0",
    "BabyAI-PutNextS5N2-v0",
    "BabyAI-GoToSeqS5R2-v0",
    "BabyAI-SynthSeq-v0",
    "BabyAI-BossLevel-v0",
)


@dataclass
class Args:
    """Who is judged, on what, how thoroughly."""

    model: str = "embedded/minigrid-planner"  # the teacher
    envs: tuple[str, ...] = ENVS  # ids of the environments
    states: int = 100  # states labelled, per environment
    episodes: int = 50  # episodes played, per environment and way
    store: str | None = None  # where the answers are kept; a temporary file by default
    folder: Path = Path("evaluations")  # the evaluations' folders; what is in them is not done again
    out: Path = Path(__file__).parent / "results" / "teacher_cards.csv"  # one row per environment


RATES = {
    "argmax_success": ("rollouts", "argmax", "success"),
    "sampled_success": ("rollouts", "sampled", "success"),
    "pose": ("analysis", "pose"),
    "targets": ("analysis", "targets"),
    "hazards": ("analysis", "hazards"),
    "agreement": ("action", "agreement"),
    "mass_optimal": ("action", "mass_optimal"),
    "mass_fatal": ("action", "mass_fatal"),
}
COLUMNS = ["model", "env_id", "states", "episodes"]
COLUMNS += [f"{name}{end}" for name in RATES for end in ("", "_low", "_high")]


def evaluated(args, env_id, store):
    """The card of one environment."""
    folder = args.folder / default_folder(env_id, args.model, None).name
    command = [sys.executable, "-c", "import sys; from lvlm2p_wrappers.cli import main; sys.exit(main())"]
    command += ["evaluate", env_id, "--model", args.model, "--states", str(args.states), "--out", str(folder)]
    command += ["--episodes", str(args.episodes), "--store", store, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def as_row(found):
    """One row of the table."""
    row = {"model": found["model"], "env_id": found["env_id"], "episodes": found["episodes"]}
    row["states"] = found["metrics"]["replies"]["labels"]
    for name, path in RATES.items():
        rate = found["metrics"]
        for part in path:
            rate = rate and rate.get(part)
        for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
            row[name + end] = None if rate is None else round(rate[key], 4)
    return row


def main(args):
    """Evaluate everything; print the table and write it."""
    titles = ["most probable action", "action drawn", "cell and heading", "targets", "best action optimal"]
    print(f"| environment | {' | '.join(titles)} |\n|{'---|' * (1 + len(titles))}")
    args.out.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for env_id in args.envs:
            row = as_row(evaluated(args, env_id, args.store or str(Path(folder) / "store.sqlite")))
            writer.writerow(row)
            file.flush()
            shown = [shorten(row, name) for name in ("argmax_success", "sampled_success", "pose", "targets")]
            name = env_id.removeprefix("MiniGrid-").rpartition("-v")[0]
            print(f"| {name} | {' | '.join(shown)} | {shorten(row, 'agreement')} |", flush=True)


def shorten(row, name):
    """A rate and its interval."""
    if row[name] is None:
        return "-"
    return f"{row[name]:.2f} ({row[name + '_low']:.2f} to {row[name + '_high']:.2f})"


if __name__ == "__main__":
    main(tyro.cli(Args))
