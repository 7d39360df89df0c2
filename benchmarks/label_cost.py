"""What a new label costs us in CPU time, beside what LiteLLM spends; and the memory of a run on a large store.

python benchmarks/label_cost.py
python benchmarks/label_cost.py --answers 1000000
"""

import dataclasses
import functools
import json
import os
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import tyro
from latency import provider

from lvlm2p_wrappers import Teacher
from lvlm2p_wrappers.client import client
from lvlm2p_wrappers.records import Reply, Usage
from lvlm2p_wrappers.store import Store
from lvlm2p_wrappers.views import viewer

ROOT = Path(__file__).resolve().parents[1]
MODEL = "openai/gpt-4o-mini"


@dataclasses.dataclass
class Args:
    """What is measured."""

    env_id: str = "MiniGrid-LavaGapS7-v0"  # id of the environment
    views: int = 300  # new labels
    answers: int = 0  # if above 0, also the memory of a training run on a store of so many answers


def states(args):
    """An environment moved through so many different states."""
    env = gym.make(args.env_id)
    env.reset(seed=0)
    look, seen = viewer(env), set()
    look.draw_lines()  # as the wrappers have it drawn for the bundled prompts
    while len(seen) < args.views:
        if look.key() not in seen:
            seen.add(look.key())
            yield look
        if any(env.step(int(env.np_random.integers(0, 3)))[2:4]):
            env.reset()


async def answer_at_once(request, **_):
    """In place of the road to a model: a reply that fits, for no time."""
    question = request.question
    asked = question.schema.json
    names = asked["properties"]["probabilities"]["required"] if question.stage == "action" else asked["required"]
    return Reply(fitting(question.stage, tuple(names)), request.model, "stop", "", Usage(1000, 100, 0), 0.0, 0.0)


@functools.cache
def fitting(stage, names):
    """The JSON of a stage: of an action stage with these actions, or of an analysis with these fields."""
    if stage == "action":
        return json.dumps({"reasoning": "x" * 100, "probabilities": {name: 1 / len(names) for name in names}})
    fields = {"agent_row": 1, "agent_column": 1, "heading": "up", "ahead": "floor", "hazards": [], "targets": [],
              "on_the_way": [], "next_step": {"row": 1, "column": 2}}  # fmt: skip
    return json.dumps({name: fields[name] for name in names})


def cpu_per_label(args, store):
    """Milliseconds of this process's CPU per new label, everything between env and store included."""
    teacher, looks = Teacher(MODEL, store=store), states(args)
    teacher.advise(next(looks).view())  # imports and connections are not the labels'
    # Playing to reach new states is not the labels' cost either.
    spent = 0.0
    for look in looks:
        started = time.process_time()
        teacher.advise(look.view())
        spent += time.process_time() - started
    return 1000 * spent / (args.views - 1)


def memory(args, folder):
    """Most MB of training processes on a store of so many answers, and on an empty one."""
    large = f"{folder}/large.sqlite"
    Store(large).close()
    with sqlite3.connect(large) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(answers)")]
        values = {"key": None, "text": '{"reasoning": "' + "x" * 400 + '"}', "model": MODEL, "at": time.time()}
        statement = f"INSERT INTO answers ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        rows = ([values[name] if name != "key" else f"{i:040x}" for name in columns] for i in range(args.answers))
        database.executemany(statement, rows)
    train = [sys.executable, str(ROOT / "algos" / "ppo_lvlm2p.py"), "--total-timesteps", "20000", "--store"]
    return {
        name: most_memory([*train, store], folder)
        for name, store in (("empty", f"{folder}/empty.sqlite"), (f"{args.answers:,} answers", large))
    }


def most_memory(command, folder):
    """The most MB that a process had: its own, and the pages of its libraries' files, which processes share (Linux)."""
    most = {"RssAnon": 0, "RssFile": 0}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            for name, kilobytes in re.findall(r"^(RssAnon|RssFile):\s+(\d+) kB", status, re.MULTILINE):
                most[name] = max(most[name], int(kilobytes) // 1024)
            time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return most


def main(args):
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        with provider(0.0):
            whole = cpu_per_label(args, f"{folder}/whole.sqlite")
        os.environ.setdefault("OPENAI_API_KEY", "sk-none")
        sent, client.send = client.send, answer_at_once
        ours = cpu_per_label(args, f"{folder}/ours.sqlite")
        client.send = sent
        print(f"{args.env_id}, {args.views} new labels of two calls each")
        print(f"our side     {ours:6.2f} ms CPU per label (view, prompts, PNG, keys, store, checks)")
        print(f"LiteLLM      {whole - ours:6.2f} ms CPU per label (both calls; the provider runs in another process)")
        if args.answers:
            for name, most in memory(args, folder).items():
                print(
                    f"memory, 20,000 frames of PPO on a store of {name}: {most['RssAnon']} MB of its own at most, "
                    f"and {most['RssFile']} MB of library files, shared with other processes"
                )
    print(f"this process at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB", file=sys.stderr)


if __name__ == "__main__":
    main(tyro.cli(Args))
