"""The training script as a user runs it, against a provider that costs money and fails."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from lvlm2p_wrappers.store import Store, calls
from tests.client import llama_server
from tests.provider import FAULTS, random_faults

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "algos" / "ppo_lvlm2p.py"
MODEL = "openai/gpt-4o-mini"
PASSING = [
    name for name in FAULTS if name not in {"400", "401", "401_echoing_key", "403", "404", "endless_drip", "time_out"}
]


@pytest.fixture
def provider(provider):
    provider.latency = 0.05
    return provider


def start(provider, tmp_path, *flags, model=MODEL, env=None):
    command = [sys.executable, str(SCRIPT), "--env-id", "MiniGrid-LavaGapS5-v0", "--model", model, *map(str, flags)]
    environment = os.environ | (provider.env if provider else {}) | (env or {}) | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(provider, tmp_path, *flags, code=0, **options):
    """Run the script to its end; its newest summary and what it wrote to standard error."""
    process = start(provider, tmp_path, *flags, **options)
    try:
        _, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == code, stderr
    newest = max(tmp_path.glob("runs/*/summary.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text()), stderr


def asked(provider):
    """How often each question was answered by the provider."""
    answered = [exchange.seen for exchange in provider.log if exchange.answer is not None]
    return Counter((seen.asks_for_an_action, seen.digest, seen.turns) for seen in answered)


def test_a_run_through_random_faults_finishes_and_every_label_can_be_traced(provider, tmp_path):
    provider.faults = random_faults(0.3, seed=1, names=PASSING)
    summary, stderr = run(provider, tmp_path, "--total-timesteps", 1024, "--concurrency", 64)
    assert summary["global_step"] == 1024
    assert summary["teacher"]["labels"] > 900
    sent = set(provider.answers)
    used = [row.call for row in calls(Store(tmp_path / "store.sqlite"), outcome="ok")]
    assert used
    assert all(call.reply in sent for call in used)
    assert provider.env["OPENAI_API_KEY"] not in stderr


def test_a_run_in_which_nothing_is_answered_stops_early_with_a_clear_message(provider, tmp_path):
    provider.faults = lambda _: FAULTS["500"]
    _, stderr = run(provider, tmp_path, "--total-timesteps", 4096, "--concurrency", 64, code=1)
    assert "20 questions in a row stayed without an answer. The last: openai/gpt-4o-mini: HTTP 500" in stderr
    assert "Traceback" not in stderr


def test_a_killed_run_loses_no_answer_that_had_arrived(provider, tmp_path):
    flags = ("--total-timesteps", 2048, "--concurrency", 8)
    process = start(provider, tmp_path, *flags)
    while len(provider.answers) < 60:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # what was in flight arrives nowhere
    before = asked(provider)
    summary, _ = run(provider, tmp_path, *flags)
    assert summary["teacher"]["labels"] == 2048
    # Only what had been in flight at the kill was paid for again: the first run stored the rest.
    assert sum(count - 1 for count in asked(provider).values()) <= 8
    assert summary["teacher"]["calls"] <= len(asked(provider)) - len(before) + 8


def test_two_trainers_with_one_store_never_pay_twice_for_one_question(provider, tmp_path):
    both = [start(provider, tmp_path, "--total-timesteps", 1024, "--exp-name", name) for name in ("one", "two")]
    for process in both:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    assert max(asked(provider).values()) == 1


def test_a_budget_in_dollars_holds_by_the_providers_count_and_training_goes_on(provider, tmp_path):
    flags = ("--total-timesteps", 2048, "--concurrency", 64, "--budget-usd", 0.01)
    summary, stderr = run(provider, tmp_path, *flags)
    assert 0.005 < provider.cost_usd <= 0.01
    assert summary["global_step"] == 2048
    assert 0 < summary["teacher"]["labels"] < 2048
    assert stderr.count("is spent") == 1


def test_an_experiment_can_be_repeated_offline_without_key_or_network(provider, tmp_path):
    first, _ = run(provider, tmp_path, "--total-timesteps", 512)
    paid = len(provider.log)
    again, _ = run(None, tmp_path, "--total-timesteps", 512, "--offline")
    assert len(provider.log) == paid
    assert again["teacher"]["calls"] == 0
    assert again["mean_return_100"] == first["mean_return_100"]
    assert again["teacher"]["labels"] == first["teacher"]["labels"]


def test_a_killed_run_is_resumed_and_leaves_one_curve(tmp_path):
    process = start(None, tmp_path, "--lam", 0, "--total-timesteps", 8192, "--checkpoint-every", 2)
    while not list(tmp_path.glob("runs/*/checkpoint.pt")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run_dir,) = tmp_path.glob("runs/*")
    assert not (run_dir / "summary.json").exists()
    summary, _ = run(None, tmp_path, "--resume", run_dir)
    steps = [int(row["global_step"]) for row in csv.DictReader((run_dir / "curve.csv").open())]
    assert steps == list(range(256, 8192 + 1, 256))
    assert (summary["global_step"], summary["lam"]) == (8192, 0)


@pytest.mark.skipif(llama_server.missing_wheels() is not None, reason=str(llama_server.missing_wheels()))
def test_a_real_model_server_teaches_for_a_while(tmp_path):
    with llama_server.LlamaServer(tmp_path) as server:
        flags = ("--total-timesteps", 256, "--num-envs", 2, "--num-steps", 32, "--concurrency", 2)
        summary, _ = run(None, tmp_path, *flags, model=llama_server.MODEL, env=server.env)
    assert summary["global_step"] == 256
    assert summary["teacher"]["labels"] > 128
    made = Counter(row.call.outcome for row in calls(Store(tmp_path / "store.sqlite")))
    assert made["ok"] >= 2
