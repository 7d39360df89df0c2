"""A rollout's labels from a slow provider: all of them deferred, against one after another.

python benchmarks/latency.py

The provider is a loopback server in a process of its own that takes a second for every call; each view costs two calls.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro

from lvlm2p_wrappers import Teacher, VectorTeacherWrapper
from lvlm2p_wrappers.views import vector_viewer

ROOT = Path(__file__).resolve().parents[1]
MODEL = "openai/gpt-4o-mini"


@dataclass
class Args:
    """What is measured."""

    env_id: str = "MiniGrid-Dynamic-Obstacles-16x16-v0"  # its balls make nearly every view a new one
    num_envs: int = 8  # environments side by side
    num_steps: int = 128  # steps of the rollout
    latency: float = 1.0  # seconds that the provider takes for a call
    concurrency: int = 64  # calls in flight
    one_by_one: int = 32  # views that are timed one after another, and extrapolated to the rollout


@contextmanager
def provider(latency):
    """A loopback provider in its own process; the environment points LiteLLM to it."""
    command = [sys.executable, "-m", "tests.provider", "--latency", str(latency)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        os.environ |= {"OPENAI_API_BASE": f"{url}/openai/v1", "OPENAI_API_KEY": "sk-test-openai-5f1e0d7c3b"}
        yield url
        server.terminate()


def rollout(args, store):
    """Seconds for a deferred rollout on an empty store, its mask, and the teacher's counters."""
    fns = [lambda: gym.make(args.env_id)] * args.num_envs
    envs = gym.vector.SyncVectorEnv(fns, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    envs = VectorTeacherWrapper(envs, MODEL, defer=True, store=store, concurrency=args.concurrency)
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    envs.reset(seed=0)
    for _ in range(args.num_steps):
        envs.step(rng.integers(0, 3, size=args.num_envs))
    _, mask = envs.gather()
    return time.perf_counter() - started, mask, envs.teacher.counters


def one_after_another(args, store):
    """Seconds per view when each is asked and awaited before the next."""
    teacher = Teacher(MODEL, store=store, concurrency=1)
    envs = gym.vector.SyncVectorEnv([lambda: gym.make(args.env_id)] * args.one_by_one)
    envs.reset(seed=10_000)
    views = [seen.view() for seen in vector_viewer(envs).snapshots(range(args.one_by_one))]
    teacher.advise(views[0])  # LiteLLM is imported, the connection open
    started = time.perf_counter()
    for view in views[1:]:
        teacher.advise(view)
    return (time.perf_counter() - started) / (len(views) - 1)


def main(args):
    """Measure both, print the ratio and the bound."""
    with tempfile.TemporaryDirectory() as folder, provider(args.latency):
        each = one_after_another(args, f"{folder}/one.sqlite")
        seconds, mask, counters = rollout(args, f"{folder}/rollout.sqlite")
    views, calls = counters.distinct_views, counters.calls
    slowly, bound = each * views, calls * args.latency / args.concurrency
    print(f"{args.num_envs} envs x {args.num_steps} steps, {views} distinct views, {calls} calls of {args.latency:g} s")
    print(f"one after another {slowly:8.1f} s (extrapolated from {args.one_by_one - 1} views of {each:.2f} s each)")
    print(
        f"deferred          {seconds:8.1f} s (concurrency {args.concurrency}; {mask.mean():.0%} of the rows labelled)"
    )
    print(f"faster by         {slowly / seconds:8.1f} x")
    print(f"against the bound {seconds / bound:8.2f} x of calls x latency / concurrency = {bound:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"memory            {peak:8} MB at most, up to {views} questions open")


if __name__ == "__main__":
    main(tyro.cli(Args))
