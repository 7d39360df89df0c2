"""How often a teacher reaches the goal by itself, playing its most probable action or a sampled one.

python benchmarks/teacher_success.py
python benchmarks/teacher_success.py --model "embedded/minigrid-planner?error=0.1" --ways sampled

Every action comes through TeacherWrapper: picture, prompt, LiteLLM, JSON.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro
from scipy.stats import binomtest

from lvlm2p_wrappers import TeacherWrapper

ENVS = (
    "MiniGrid-LavaGapS7-v0",
    "MiniGrid-Fetch-8x8-N3-v0",
    "MiniGrid-GoToDoor-8x8-v0",
    "MiniGrid-Dynamic-Obstacles-6x6-v0",
    "MiniGrid-Dynamic-Obstacles-8x8-v0",
    "MiniGrid-Empty-8x8-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-LavaCrossingS9N2-v0",
    "MiniGrid-MultiRoom-N2-S4-v0",
    "MiniGrid-KeyCorridorS3R3-v0",
    "MiniGrid-UnlockPickup-v0",
    "MiniGrid-ObstructedMaze-1Dl-v0",
    "BabyAI-GoToLocal-v0",
    "BabyAI-PutNextS5N2-v0",
)


@dataclass
class Args:
    """What is played, by whom, how often."""

    model: str = "embedded/minigrid-planner"  # the teacher
    envs: tuple[str, ...] = ENVS  # ids of the environments
    ways: tuple[str, ...] = ("argmax", "sampled")  # how its actions are chosen
    episodes: int = 200  # episodes per environment and way; episode i is seeded with i
    store: str | None = "default"  # where the answers are kept
    out: Path = Path(__file__).parent / "results" / "teacher_success.csv"  # one row per environment and way


def play(env, way, seed, rng):
    """One episode; its last reward and its length."""
    _, info = env.reset(seed=seed)
    for step in range(1, 10_000):
        probs = info["teacher_probs"]
        action = int(probs.argmax()) if way == "argmax" else int(rng.choice(len(probs), p=probs / probs.sum()))
        _, reward, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return float(reward), step
    raise RuntimeError(f"{env.spec.id} has no time limit")


COLUMNS = ["model", "env_id", "actions", "episodes", "success", "low", "high", "mean_return", "mean_length"]


def measure(args, env, way):
    """One row of the table: some episodes of one environment."""
    rng = np.random.default_rng(0)
    rewards, lengths = np.array([play(env, way, seed, rng) for seed in range(args.episodes)]).T
    successes = int((rewards > 0).sum())
    low, high = binomtest(successes, args.episodes).proportion_ci(method="wilson")
    figures = (successes / args.episodes, low, high, rewards.mean(), lengths.mean())
    return dict(zip(COLUMNS, (args.model, env.spec.id, way, args.episodes, *np.round(figures, 4)), strict=True))


def main(args):
    """Play everything; print the table and write it."""
    print(f"{args.model}, {args.episodes} episodes each\n")
    print("| env | actions | success (95% interval) | mean return | mean length |\n|---|---|---|---|---|")
    args.out.parent.mkdir(exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for env_id in args.envs:
            env = TeacherWrapper(gym.make(env_id), args.model, store=args.store)
            for way in args.ways:
                row = measure(args, env, way)
                writer.writerow(row)
                file.flush()
                success = "{success:.3f} ({low:.3f} to {high:.3f})".format(**row)
                print(
                    f"| {env_id} | {way} | {success} | {row['mean_return']:.3f} | {row['mean_length']:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Args))
