"""Several processes on one store: labels per second over Ray actors, two engines, and trainers that are killed.

python benchmarks/scale.py --part actors      # 1, 2, 4 actors of concurrency 8 against a provider of 1 s
python benchmarks/scale.py --part engines     # SQLite and PostgreSQL, an answer read and written, 1 and 4 processes
python benchmarks/scale.py --part trainers    # PPO on one PostgreSQL, killed and begun again; what the provider saw

The provider is this machine's (tests/provider), PostgreSQL a server that is begun for the run (tests/postgres.py).
What a label costs of our own CPU is measured by benchmarks/label_cost.py.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lvlm2p_wrappers.records import Answer, Call, Message  # noqa: E402
from lvlm2p_wrappers.store import Store  # noqa: E402
from tests.postgres import PostgresServer  # noqa: E402
from tests.provider import Provider  # noqa: E402

ENV, MODEL = "MiniGrid-LavaGapS7-v0", "openai/gpt-4o-mini"


@dataclass
class Args:
    """What is measured, and how much of it."""

    part: Literal["actors", "engines", "trainers"] = "engines"
    actors: tuple[int, ...] = (1, 2, 4)  # how many actors, one run each
    concurrency: int = 8  # calls in flight of an actor
    latency: float = 1.0  # seconds from a request to its reply
    states: int = 80  # states an actor
    answers: int = 2_000  # answers that each process writes and reads
    trainers: int = 8  # PPO processes
    env_id: str = "MiniGrid-LavaGapS5-v0"  # their environment
    total_timesteps: int = 4_096  # frames of each of them
    rpm: int = 300  # their calls in any 60 s, all together
    budget_usd: float = 1.0  # what all of them together may spend
    kill_every: float = 10.0  # seconds between two kills


def run_of(words, provider, cwd, **options):
    """A process with the package in its path and the provider in its environment."""
    environment = os.environ | provider.env | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *map(str, words)], env=environment, cwd=cwd, **options)


def actors(args):
    """Labels per second while all actors have work: those of the middle half of a run."""
    print("| actors | labels/s | of linear |\n|---|---|---|")
    first = None
    for n in args.actors:
        with Provider(latency=args.latency) as provider, tempfile.TemporaryDirectory() as folder:
            code = "import sys; from lvlm2p_wrappers.cli import main; sys.exit(main(sys.argv[1:]))"
            words = ["label", ENV, "--model", MODEL, "--states", n * args.states, "--concurrency", args.concurrency]
            words += ["--store", "store.sqlite", "--actors", n, "--ray"]
            assert run_of(["-c", code, *words], provider, folder, stdout=subprocess.DEVNULL).wait() == 0
            labels = sorted(each.sent for each in provider.log if each.seen.asks_for_an_action)
        middle = labels[len(labels) // 4 : -len(labels) // 4]
        speed = (len(middle) - 1) / (middle[-1] - middle[0])
        first = first or speed / n
        print(f"| {n} | {speed:.2f} | {speed / first / n:.2f} |", flush=True)


def use_store(location, process, answers):
    """Milliseconds for an answer written, and for one read."""
    message = Message("user", "x" * 4000)
    with Store(location) as store:
        started = time.perf_counter()
        for i in range(answers):
            key = f"{process:08x}{i:032x}"
            store.get_or_claim(key, seconds=60)
            reply = '{"probabilities": {}}'
            store.record(
                Call(
                    key=key, stage="action", env_id=ENV, requested_model=MODEL, messages=(message,), schema_text="{}",
                    options="{}", reply=reply, answered_model=MODEL, outcome="ok",
                ),
                Answer(reply, MODEL),
            )  # fmt: skip
        written = time.perf_counter()
        for i in range(answers):
            assert store.get(f"{process:08x}{i:032x}") is not None
        read = time.perf_counter()
    return 1000 * (written - started) / answers, 1000 * (read - written) / answers


def engines(args):
    """Both engines, in turns."""
    print("| engine | processes | claim and write, ms | read, ms | answers written/s, all |\n|---|---|---|---|---|")
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        for processes in (1, 4):
            for name in ("SQLite", "PostgreSQL"):
                location = f"{folder}/{processes}.sqlite" if name == "SQLite" else server.url()
                Store(location).close()
                with ProcessPoolExecutor(processes) as pool:
                    told = [pool.submit(use_store, location, i, args.answers) for i in range(processes)]
                    write, read = np.mean([each.result() for each in told], axis=0)
                print(
                    f"| {name} | {processes} | {write:.2f} | {read:.3f} | {1000 * processes / write:,.0f} |", flush=True
                )


def trainer(args, seed, provider, folder, url):
    """A PPO run, begun or, where it has left a checkpoint, resumed."""
    checkpoints = sorted(Path(folder).glob(f"runs/*__trainer__{seed}__*/checkpoint.pt"))
    words = [ROOT / "algos/ppo_lvlm2p_replay.py", "--exp-name", "trainer", "--seed", seed, "--env-id", args.env_id]
    words += ["--total-timesteps", args.total_timesteps, "--model", MODEL, "--checkpoint-every", 1, "--no-cuda"]
    words += ["--store", url, "--rpm", args.rpm, "--rpm-scope", "store"]
    words += ["--budget-usd", args.budget_usd, "--budget-scope", "store"]
    words += ["--resume", checkpoints[-1].parent] if checkpoints else []
    return run_of(words, provider, folder, stdout=subprocess.DEVNULL)


def most_in_a_minute(log):
    """The most calls that arrived in any 60 seconds."""
    times = np.sort([exchange.received for exchange in log])
    return int(max(np.searchsorted(times, times + 60) - np.arange(len(times))))


def trainers(args):
    """Trainers on one PostgreSQL store, one of them killed every so often, until all have ended."""
    chance, kills, started = random.Random(0), 0, time.monotonic()
    with (
        PostgresServer() as server,
        Provider(latency=0.3) as provider,
        tempfile.TemporaryDirectory() as folder,
    ):
        url = server.url()
        Store(url).close()
        running = {seed: trainer(args, seed, provider, folder, url) for seed in range(args.trainers)}
        ended, next_kill = [], time.monotonic() + args.kill_every
        while running:
            time.sleep(0.2)
            for seed, process in [*running.items()]:
                if process.poll() is not None:
                    assert process.returncode == 0, f"trainer {seed} ended with {process.returncode}"
                    ended.append(seed)
                    del running[seed]
            if running and time.monotonic() > next_kill and provider.log:
                seed = chance.choice([*running])
                running[seed].send_signal(signal.SIGKILL)
                running[seed].wait()
                running[seed] = trainer(args, seed, provider, folder, url)
                kills, next_kill = kills + 1, time.monotonic() + args.kill_every
        log = provider.log
        done = Counter((e.seen.digest, e.seen.asks_for_an_action) for e in log if e.status == 200)
        summaries = len([*Path(folder).glob("runs/*/summary.json")])
    seconds = time.monotonic() - started
    print(f"{len(ended)} of {args.trainers} trainers ended in {seconds:.0f} s, {kills} kills, {summaries} summaries")
    print(f"calls: {len(log)}, of them without a whole reply: {sum(e.status != 200 for e in log)}")
    print(f"questions answered: {len(done)}; the most often that one was: {max(done.values())}")
    print(f"the most calls in any 60 s: {most_in_a_minute(log)} (rpm {args.rpm})")
    print(f"the provider charged ${provider.cost_usd:.4f} (budget ${args.budget_usd:g})")


if __name__ == "__main__":
    args = tyro.cli(Args)
    {"actors": actors, "engines": engines, "trainers": trainers}[args.part](args)
