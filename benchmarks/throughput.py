"""Environment steps per second under the teacher's wrapper, on a warm store, against the bare environments.

python benchmarks/throughput.py

Both are measured in turns, in one process: blocks of steps of the bare envs and of the wrapped ones, same actions.
A view is drawn and looked up when it is first seen, so the ratio rises with the length of a run.
"""

import tempfile
import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import tyro

from lvlm2p_wrappers import Teacher, VectorTeacherWrapper


@dataclass
class Args:
    """What is measured."""

    env_id: str = "MiniGrid-LavaGapS7-v0"  # id of the environment
    num_envs: int = 8  # environments side by side
    frames: int = 100_000  # frames of the run that is measured
    block: int = 50  # steps of one measured block
    model: str = "embedded/minigrid-planner"  # the teacher


def make_envs(args):
    """The bare vector environment."""
    fns = [lambda: gym.make(args.env_id)] * args.num_envs
    return gym.vector.SyncVectorEnv(fns, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)


def run(envs, actions):
    """Seconds for some steps."""
    started = time.perf_counter()
    for row in actions:
        envs.step(row)
    return time.perf_counter() - started


def measure(args, store):
    """Seconds of the bare and of the wrapped environments after so many frames, block by block in turns."""
    Teacher._shared.clear()  # nothing but the store is warm: a new process would begin like this
    bare, wrapped = make_envs(args), VectorTeacherWrapper(make_envs(args), args.model, defer=True, store=store)
    bare.reset(seed=0)
    wrapped.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 3, size=(args.frames // args.num_envs, args.num_envs))
    seconds, course = np.zeros(2), {}
    for start in range(0, len(actions), args.block):
        block = actions[start : start + args.block]
        seconds += run(bare, block), run(wrapped, block)
        waited = time.perf_counter()
        wrapped.gather()
        seconds[1] += time.perf_counter() - waited
        course[(start + len(block)) * args.num_envs] = seconds.copy()
    return course, wrapped.teacher.counters


def main(args):
    """Warm the store, measure, print the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store.sqlite"
        _, cold = measure(args, store)
        course, warm = measure(args, store)
    print(f"{args.env_id}, {args.num_envs} envs, {args.frames:,} frames, {warm.distinct_views} distinct views")
    print(f"filling the store: {cold.calls} calls for {cold.distinct_views} views; measured run: {warm.calls} calls")
    print("| frames | bare, steps/s | wrapped, steps/s (gather() included) | ratio |\n|---|---|---|---|")
    for frames in sorted({min(course, key=lambda f: abs(f - mark)) for mark in (20_000, 50_000, args.frames)}):
        bare, wrapped = course[frames]
        print(f"| {frames:,} | {frames / bare:.0f} | {frames / wrapped:.0f} | {bare / wrapped:.2f} |")


if __name__ == "__main__":
    main(tyro.cli(Args))
