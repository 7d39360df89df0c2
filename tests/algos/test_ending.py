"""However a script ends, what was paid for is in the store, and the run's files are there."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import gymnasium as gym
import pytest
from minigrid.envs import LavaGapEnv

from lvlm2p_wrappers.store import Store, calls
from tests.algos.scripts import command, curve_of, ppo, ppo_replay, student_of, train

MODEL = "openai/gpt-4o-mini"
TAUGHT = ("--env-id", "MiniGrid-LavaGapS7-v0", "--model", MODEL, "--store", "answers.sqlite", "--concurrency", 4)


def begun(script, *flags, **options):
    # A job in a shell's background ignores Ctrl-C, and so do its children: the tests may be run like that.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(
        command(script, *flags),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | heeding | options,
    )


def wait_for(run, condition):
    while run.poll() is None and not condition():
        time.sleep(0.02)
    assert run.poll() is None, run.communicate()


def end_of(run):
    try:
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert "Traceback" not in errors
    return run.returncode, errors


def summary_of_the_run():
    (run_dir,) = Path("runs").iterdir()
    assert student_of(run_dir)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert all(int(row["global_step"]) <= summary["global_step"] for row in curve_of(run_dir))
    return summary


def answered_and_stored(provider):
    """How many calls the provider has answered, which are to be paid for, and how many are in the store."""
    time.sleep(0.5)  # what would still be sent is sent
    return sum(exchange.answer is not None for exchange in provider.log), len([*calls(Store("answers.sqlite"))])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_a_plain_run_with_its_summary_and_its_student(script, number):
    """After SIGTERM there was no summary.json."""
    run = begun(script, "--lam", 0, "--total-timesteps", 10_000_000, "--num-envs", 2, "--num-steps", 16)
    wait_for(run, lambda: any(path.stat().st_size for path in Path().glob("runs/*/curve.csv")))
    run.send_signal(number)
    assert end_of(run) == (128 + number, "")
    assert 0 < summary_of_the_run()["global_step"] < 10_000_000


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("script", [ppo, ppo_replay], ids=lambda script: script.ALGO)
def test_after_a_signal_nothing_more_is_sent_and_what_was_sent_is_stored(script, number, provider):
    """The first Ctrl-C of PPO went on paying for 500 calls; SIGTERM lost what was in flight."""
    provider.latency = 0.5
    run = begun(script, *TAUGHT)
    wait_for(run, lambda: len(provider.log) >= 8)
    sent = len(provider.log)
    run.send_signal(number)
    signalled = time.monotonic()
    code, errors = end_of(run)
    assert (code, errors) == (128 + number, "")
    assert time.monotonic() - signalled < 15  # a rollout of 256 frames would take a minute
    answered, stored = answered_and_stored(provider)
    assert answered == stored >= 8
    assert len(provider.log) <= sent + 8  # those in flight, and those that took their places at that moment
    summary = summary_of_the_run()
    assert summary["teacher"]["calls"] == stored


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_what_is_in_flight(provider):
    provider.latency = 40
    run = begun(ppo, *TAUGHT)
    wait_for(run, lambda: provider.in_flight >= 4)
    run.send_signal(signal.SIGINT)
    time.sleep(1)
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    signalled = time.monotonic()
    assert end_of(run) == (130, "")
    assert time.monotonic() - signalled < 10
    summary_of_the_run()


class BreaksEnv(LavaGapEnv):
    steps = 0

    def step(self, action):
        BreaksEnv.steps += 1
        if BreaksEnv.steps > 20:
            raise RuntimeError("the environment broke")
        return super().step(action)


def test_after_an_exception_what_was_sent_is_stored(provider):
    """A script that an exception ended had been billed for 16 calls, and had stored none."""
    provider.latency = 0.2
    BreaksEnv.steps = 0
    gym.register("MiniGrid-Breaks-v0", BreaksEnv, kwargs={"size": 5})
    try:
        with pytest.raises(RuntimeError, match="the environment broke"):
            train(ppo, env_id="MiniGrid-Breaks-v0", model=MODEL, store="answers.sqlite")
    finally:
        del gym.registry["MiniGrid-Breaks-v0"]
    answered, stored = answered_and_stored(provider)
    assert answered == stored > 0
    assert summary_of_the_run()["teacher"]["calls"] == stored


@pytest.mark.parametrize("where", ["a closed pipe", "a full disk", "nowhere"])
def test_an_output_that_takes_nothing_ends_in_one_line_at_most(where):
    """With its standard output closed, or on a full disk, a script ended in a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe, Path("/dev/full").open("w") as full:
        if where == "nowhere":
            options = {"stdout": None, "preexec_fn": lambda: os.close(1)}
        else:
            options = {"stdout": pipe if where == "a closed pipe" else full}
        flags = "--lam", 0, "--total-timesteps", 64, "--num-envs", 2, "--num-steps", 16
        run = begun(ppo, *flags, **options)
        code, errors = end_of(run)
    assert (code, errors.count("\n")) == ((0, 0) if where == "nowhere" else (1, 1)), errors
    assert summary_of_the_run()["global_step"] == 64


def test_a_disk_without_room_for_the_student_ends_in_one_line():
    resource = pytest.importorskip("resource")
    limited = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))}
    flags = "--lam", 0, "--total-timesteps", 64, "--num-envs", 2, "--num-steps", 16
    run = begun(ppo, *flags, **limited)
    code, errors = end_of(run)
    (run_dir,) = Path("runs").iterdir()
    assert (code, errors) == (1, f"[Errno 27] File too large: '{run_dir}/student.pt'\n")
    assert (run_dir / "summary.json").exists()
