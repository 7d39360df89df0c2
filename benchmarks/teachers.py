"""How good the imperfect teachers of the experiments are by themselves: five salts, a hundred episodes each.

python benchmarks/teachers.py

Each row is what `lvlm2p evaluate` finds for one teacher, its actions sampled. A finished one is skipped the next time.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import teacher_cards
import tyro
from run import RESULTS, append
from suites import FAULTS, TASKS

COLUMNS = ("task", "faults", "salt", "episodes", "success", "mean_return", "action_accuracy", "command")


@dataclass
class Args:
    """How thoroughly they are judged."""

    episodes: int = 100  # episodes of each salt
    states: int = 200  # states labelled for the action accuracy
    salts: tuple[int, ...] = (1, 2, 3, 4, 5)  # which of their mistakes
    store: str = "default"  # where the teachers' answers are kept
    results: Path = RESULTS / "teachers.csv"  # where the rows are appended


def teachers():
    """Every task with everything that is wrong with a teacher in an experiment on it."""
    yield from ((task, f"error={task.error}") for task in TASKS.values())
    yield from ((TASKS[name], faults) for name, of_task in FAULTS.items() for faults in of_task.values())


def row_of(args, task, faults, salt):
    """Judge one teacher."""
    model = task.teacher(salt, faults)
    with TemporaryDirectory() as folder:
        judged = teacher_cards.Args(model=model, states=args.states, episodes=args.episodes, folder=Path(folder))
        metrics = teacher_cards.evaluated(judged, task.env_id, args.store)["metrics"]
    played = metrics["rollouts"]["sampled"]
    values = (played["success"]["value"], played["return"]["value"], metrics["action"]["agreement"]["value"])
    command = f"lvlm2p evaluate {task.env_id} --model '{model}' --states {args.states} --episodes {args.episodes}"
    figures = (task.name, faults, salt, args.episodes, *(round(value, 4) for value in values), command)
    return dict(zip(COLUMNS, figures, strict=True))


def main(args):
    """Judge those that are missing."""
    rows = list(csv.DictReader(args.results.open())) if args.results.exists() else []
    there = {(row["task"], row["faults"], int(row["salt"])) for row in rows}
    for task, faults in teachers():
        for salt in args.salts:
            if (task.name, faults, salt) not in there:
                row = row_of(args, task, faults, salt)
                append(args.results, COLUMNS, [row])
                print(*list(row.values())[:-1], flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args))
