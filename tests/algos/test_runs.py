"""The scripts as programs: what a run leaves behind, how it goes on after a kill, and what it says of mistakes."""

import collections
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lvlm2p_wrappers import TrainingRun, training_run
from tests.algos.scripts import (
    a2c,
    called,
    checkpoint_of,
    command,
    curve_of,
    episodes_of,
    ppo,
    ppo_replay,
    resume,
    scalars_of,
    student_of,
    train,
)

CHARTS = {f"charts/{name}" for name in ("episodic_return", "episodic_length", "SPS", "learning_rate")}
LOSSES = {f"losses/{name}" for name in ("value_loss", "policy_loss", "entropy", "explained_variance")}
LOSSES_OF_PPO = {f"losses/{name}" for name in ("old_approx_kl", "approx_kl", "clipfrac")}
TEACHER = {
    f"teacher/{name}"
    for name in ("labels", "calls", "cached_share", "bad_replies", "cost_usd", "kl", "agreement", "lam")
}


def expected_scalars(script):
    return CHARTS | LOSSES | (LOSSES_OF_PPO if script.ALGO.startswith("ppo") else set())


@pytest.mark.slow
def test_a_run_with_the_embedded_teacher_leaves_summary_curve_scalars_and_student(script):
    flags = "--lam", 1, "--total-timesteps", 512, "--num-envs", 4, "--num-steps", 64, "--store", "answers.sqlite"
    done = subprocess.run(command(script, *flags), check=True, capture_output=True, text=True)
    (run_dir,) = Path("runs").iterdir()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert list(summary) == [
        *("env_id", "algo", "seed", "lam", "global_step", "episodes", "mean_return_100", "success_100"),
        *("steps_per_s", "teacher"),
    ]
    assert (summary["env_id"], summary["algo"], summary["seed"]) == ("MiniGrid-LavaGapS7-v0", script.ALGO, 1)
    assert summary["lam"] == 1
    assert summary["global_step"] == 512
    teacher = summary["teacher"]
    assert list(teacher) == ["model", "labels", "distinct_views", "calls", "cached", "bad_replies", "cost_usd"]
    assert (teacher["model"], teacher["labels"], teacher["bad_replies"]) == ("embedded/minigrid-planner", 512, 0)
    assert 0 < teacher["distinct_views"] <= teacher["calls"] < 512 * 2
    assert Path("answers.sqlite").exists()
    assert "answers.sqlite" in done.stdout
    replayed = {"teacher/replay_kl"} if script.ALGO.endswith("replay") else set()
    assert scalars_of(run_dir).keys() == expected_scalars(script) | TEACHER | replayed
    assert [row["global_step"] for row in curve_of(run_dir)] == ["256", "512"]
    assert student_of(run_dir)

    again = subprocess.run(command(script, *flags, "--exp-name", "again"), check=True, capture_output=True, text=True)
    summary = json.loads(again.stdout[again.stdout.index("{") :])
    assert summary["teacher"]["calls"] == 0
    assert summary["teacher"]["cached"] == summary["teacher"]["labels"] == 512


def test_a_plain_run_asks_nobody_and_says_so(script):
    summary, run_dir = train(script, lam=0, samples_every=1)
    assert summary["teacher"] is None
    of_episodes = {"charts/episodic_return", "charts/episodic_length"}  # there may be none yet
    assert scalars_of(run_dir).keys() | of_episodes == expected_scalars(script)
    assert not Path("store.sqlite").exists()


@pytest.mark.slow
def test_a_plain_run_opens_no_store_and_loads_no_litellm(script, tmp_path):
    lines = f"import runpy, sys; script = runpy.run_path({script.__file__!r}); "
    lines += "script['main'](script['Args'](lam=0, total_timesteps=32, num_envs=2, num_steps=16)); "
    lines += "print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_figures_over_100_episodes_are_empty_before_there_are_so_many(turn_to_the_ball):
    summary, run_dir = train(ppo, env_id=turn_to_the_ball, lam=0, total_timesteps=128)
    first, second = curve_of(run_dir)
    assert (first["episodes"], first["mean_return_100"], first["success_100"]) == ("64", "", "")
    assert float(first["mean_return_50"]) <= 1
    assert float(second["success_100"]) == summary["success_100"]


def test_a_run_in_which_no_episode_ended_reports_no_return(script):
    summary, _ = train(script, lam=0, total_timesteps=16, num_steps=8, seed=2)
    assert summary["episodes"] == 0
    assert (summary["mean_return_100"], summary["success_100"]) == (None, None)


def test_without_a_terminal_a_line_tells_now_and_then_how_far_a_run_is(script, monkeypatch, capsys):
    train(script, lam=0)
    assert "global_step 64" not in capsys.readouterr().out
    monkeypatch.setattr(training_run, "PROGRESS_EVERY_S", 0)
    train(script, lam=0)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("global_step")]
    assert [line.split()[1] for line in lines] == ["64", "128"]


def test_a_second_run_in_one_process_counts_its_own_labels_only():
    assert train(ppo)[0]["teacher"]["labels"] == 128
    summary, _ = train(ppo)
    assert (summary["teacher"]["labels"], summary["teacher"]["calls"]) == (128, 0)


@pytest.mark.parametrize("script", [ppo, a2c], ids=lambda script: script.ALGO)
def test_learning_rate_is_annealed_only_if_asked(script):
    _, constant = train(script, lam=0, total_timesteps=256)
    _, annealed = train(script, lam=0, total_timesteps=256, anneal_lr=True)
    rate = script.Args().learning_rate
    assert scalars_of(constant)["charts/learning_rate"] == pytest.approx([rate] * 4)
    assert scalars_of(annealed)["charts/learning_rate"] == pytest.approx([rate, 0.75 * rate, 0.5 * rate, 0.25 * rate])


def test_where_returns_are_constant_they_have_no_explained_variance(script):
    """With constant returns, the explained variance was minus infinity."""
    _, run_dir = train(script, lam=0, gamma=0, env_id="MiniGrid-DoorKey-8x8-v0")  # where chance earns nothing
    scalars = scalars_of(run_dir)
    assert "losses/explained_variance" not in scalars
    assert np.isfinite(np.concatenate([*scalars.values()])).all()


def test_capture_video_records_the_first_env():
    train(ppo, lam=0, capture_video=True, total_timesteps=512, num_steps=128)
    assert list(Path("videos").glob("*/*.mp4"))


# Going on after a kill


def test_a_resumed_run_goes_on_with_the_flags_weights_counters_and_curve_of_the_run(script):
    _, run_dir = train(script, lam=0, total_timesteps=576, checkpoint_every=3, seed=5)
    kept = (run_dir / "checkpoint.pt").read_bytes()
    resume(script, run_dir, total_timesteps=768)
    (run_dir / "checkpoint.pt").write_bytes(kept)  # as if it had been killed before it could write another one
    time.sleep(1)  # TensorBoard orders files of one second by text: the tenth writer of a process before its ninth
    summary = resume(script, run_dir, total_timesteps=640)
    assert (summary["global_step"], summary["seed"]) == (640, 5)
    assert summary["episodes"] >= checkpoint_of(run_dir)["run"]["episodes"] > 0
    steps = [str(step) for step in range(64, 641, 64)]
    assert [row["global_step"] for row in curve_of(run_dir)] == steps
    events = EventAccumulator(str(run_dir)).Reload()
    assert [event.step for event in events.Scalars("charts/SPS")] == [int(step) for step in steps]


def test_a_resumed_run_that_is_killed_before_its_first_update_keeps_its_curve(script, monkeypatch):
    _, run_dir = train(script, lam=0, total_timesteps=320, checkpoint_every=3)
    before, at_its_beginning = curve_of(run_dir), []
    monkeypatch.setattr(script, "train", lambda *_: at_its_beginning.extend(curve_of(run_dir)))
    resume(script, run_dir, total_timesteps=640)
    assert at_its_beginning == before


def test_the_table_of_episodes_holds_each_of_them_once_after_a_kill_too():
    _, run_dir = train(ppo, lam=0, total_timesteps=1920, checkpoint_every=10)
    with (run_dir / "episodes.csv").open("a") as file:
        file.write("19")  # a kill has cut the row of an episode
    summary = resume(ppo, run_dir, total_timesteps=5120)
    episodes = episodes_of(run_dir)
    assert len(episodes) == summary["episodes"]
    last = [(float(row["return"]), int(row["success"])) for row in episodes[-100:]]
    assert np.mean(last, axis=0) == pytest.approx([summary["mean_return_100"], summary["success_100"]], abs=1e-6)
    ends = [int(row["global_step"]) for row in episodes]
    assert ends == sorted(ends)
    assert sum(int(row["length"]) for row in episodes) <= summary["global_step"]


@pytest.mark.parametrize("script", [ppo, a2c], ids=lambda script: script.ALGO)
def test_a_run_that_anneals_its_learning_rate_cannot_be_made_longer(script, monkeypatch, capsys):
    _, run_dir = train(script, lam=0, total_timesteps=128, checkpoint_every=1, anneal_lr=True)
    code, message = called(script, monkeypatch, capsys, "--resume", run_dir, "--total-timesteps", 256)
    assert code == 2
    assert "it is a run with --total-timesteps 128, not with --total-timesteps 256" in message


def test_a_finished_run_that_is_resumed_stays_as_it_was(script):
    before, run_dir = train(script, lam=0, total_timesteps=320, checkpoint_every=3)
    curve, student = curve_of(run_dir), student_of(run_dir)
    after = resume(script, run_dir)
    same = "global_step", "episodes", "mean_return_100"
    assert [before[name] for name in same] == [after[name] for name in same]
    assert curve_of(run_dir) == curve
    assert all(torch.equal(student[name], weights) for name, weights in student_of(run_dir).items())


def test_a_resumed_run_can_be_given_more_frames_and_another_budget_but_no_other_task(script, monkeypatch, capsys):
    _, run_dir = train(script, checkpoint_every=1, seed=5)
    longer = "--resume", run_dir, "--total-timesteps", 256, "--budget-calls", 0
    assert called(script, monkeypatch, capsys, *longer)[0] == 0
    assert curve_of(run_dir)[-1]["global_step"] == "256"
    for flags, says in (
        (("--seed", 6), "it is a run with --seed 5, not with --seed 6"),
        (("--lam", 0.5), "it is a run with --lam 1.0, not with --lam 0.5"),
    ):
        code, message = called(script, monkeypatch, capsys, "--resume", run_dir, *flags)
        assert code == 2
        assert says in message
    assert curve_of(run_dir)[-1]["global_step"] == "256"


def test_a_resumed_student_starts_from_the_checkpoints_weights(script):
    _, run_dir = train(script, lam=0, total_timesteps=128, checkpoint_every=2)
    kept = checkpoint_of(run_dir)["student"]
    resume(script, run_dir)  # nothing is left to do
    again = student_of(run_dir)
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_a_resumed_runs_teacher_counters_go_on():
    flags = {"env_id": "MiniGrid-LavaGapS5-v0", "lam": 1.0, "checkpoint_every": 1, "store": None}
    first, run_dir = train(ppo, total_timesteps=128, **flags)
    summary = resume(ppo, run_dir, total_timesteps=256)
    assert summary["teacher"]["labels"] == 256
    assert summary["teacher"]["calls"] >= first["teacher"]["calls"]


class RunsCode:
    def __reduce__(self):
        return Path.touch, (Path("code_ran"),)


def test_a_checkpoint_runs_no_code(script, monkeypatch, capsys):
    """Resuming a run folder from somebody else unpickled what its checkpoint held, and so ran code."""
    _, run_dir = train(script, lam=0, checkpoint_every=1)
    torch.save(checkpoint_of(run_dir) | {"run": RunsCode()}, run_dir / "checkpoint.pt")
    code, message = called(script, monkeypatch, capsys, "--resume", run_dir)
    assert not Path("code_ran").exists()
    assert code == 2
    assert message.startswith(f"--resume {run_dir}: its checkpoint.pt is damaged or of version 0.1.0; begin a new run")


@pytest.mark.parametrize("kept", [0, 100, 50_000, -10])
def test_a_damaged_checkpoint_is_one_message(script, monkeypatch, capsys, kept):
    """A truncated checkpoint ended in a traceback."""
    _, run_dir = train(script, lam=0, checkpoint_every=1)
    content = (run_dir / "checkpoint.pt").read_bytes()
    (run_dir / "checkpoint.pt").write_bytes(content[:kept])
    code, message = called(script, monkeypatch, capsys, "--resume", run_dir)
    assert (code, message.endswith(f"begin a new run with algos/{script.ALGO}.py")) == (2, True)


def nested(depth):
    return [nested(depth - 1)] * 2 if depth else []


@pytest.mark.parametrize(
    "changes",
    [
        {"student": {"x": torch.zeros(1)}},
        {"optimizer": {}},
        {"rng": []},
        {"run": {"global_step": "x"}},
        {"run": {"global_step": 64, "ends": [1], "counts": {}}},
        {"args": {"exp_name": nested(12)}},
        {"args": {"model": ["a"]}},
        {"args": {"budget_usd": "1"}},
    ],
    ids=str,
)
def test_a_checkpoint_without_what_belongs_into_it_is_one_message(monkeypatch, capsys, changes):
    """Weights of another network, or a flag of another kind, ended in a traceback."""
    _, run_dir = train(ppo, lam=0, checkpoint_every=1)
    kept = checkpoint_of(run_dir)
    torch.save(kept | {**changes, "args": kept["args"] | changes.get("args", {})}, run_dir / "checkpoint.pt")
    code, message = called(ppo, monkeypatch, capsys, "--resume", run_dir, "--total-timesteps", 256)
    assert "Traceback" not in message
    assert code == 2
    assert message.startswith((f"--resume {run_dir}: its checkpoint.pt is", f"--resume {run_dir}: its files are"))


def test_a_checkpoint_tells_nobody_of_the_run(monkeypatch, capsys):
    """A run folder from somebody else could have the run followed, and sent to an account that it named."""
    _, run_dir = train(ppo, lam=0, checkpoint_every=1)
    kept = checkpoint_of(run_dir)
    followed = kept["args"] | {"track": True, "wandb_entity": "evil"}
    torch.save(kept | {"args": followed}, run_dir / "checkpoint.pt")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert called(ppo, monkeypatch, capsys, "--resume", run_dir)[0] == 0
    code, message = called(ppo, monkeypatch, capsys, "--resume", run_dir, "--track")
    assert (code, "pip install wandb" in message) == (2, True)


def test_a_checkpoint_of_version_0_1_0_is_one_message_that_names_the_script(script, monkeypatch, capsys):
    Path("run").mkdir()
    log = {"global_step": 64, "ends": collections.deque([(0.0, 0.0)], maxlen=100)}
    torch.save({"algo": "ppo", "args": {"seed": 1, "labels": "soft"}, "log": log}, "run/checkpoint.pt")
    code, message = called(script, monkeypatch, capsys, "--resume", "run")
    assert (code, message) == (
        2,
        f"--resume run: its checkpoint.pt is damaged or of version 0.1.0; begin a new run with algos/{script.ALGO}.py",
    )


def test_a_module_that_a_checkpoint_names_is_not_imported_unless_the_user_names_it_too(script, monkeypatch, capsys):
    """A run folder from somebody else could have any module of the user's path imported."""
    _, run_dir = train(script, lam=0, checkpoint_every=1)
    module = f"module_for_{script.ALGO}"
    Path(f"{module}.py").write_text("from pathlib import Path\nPath('code_ran').touch()\n")
    monkeypatch.syspath_prepend(".")
    env_id, kept = f"{module}:MiniGrid-Empty-5x5-v0", checkpoint_of(run_dir)
    torch.save(kept | {"args": kept["args"] | {"env_id": env_id}}, run_dir / "checkpoint.pt")
    resumed = "--resume", run_dir, "--total-timesteps", 192
    for name in ("env_id", "render", "facts", "model"):
        value = f"python:{module}:teach" if name == "model" else env_id
        torch.save(kept | {"args": kept["args"] | {name: value}}, run_dir / "checkpoint.pt")
        flag = name.replace("_", "-")
        code, message = called(script, monkeypatch, capsys, *resumed)
        assert f"{value} names a module; if you trust it, add --{flag} {value}" in message
    torch.save(kept | {"args": kept["args"] | {"env_id": env_id}}, run_dir / "checkpoint.pt")
    code, message = called(script, monkeypatch, capsys, *resumed)
    assert code == 2
    assert f"{env_id} names a module; if you trust it, add --env-id {env_id}" in message
    assert not Path("code_ran").exists()
    assert called(script, monkeypatch, capsys, *resumed, "--env-id", env_id)[0] == 0
    assert Path("code_ran").exists()


def test_a_run_that_another_process_is_at_is_not_resumed(script, monkeypatch, capsys):
    _, run_dir = train(script, lam=0, checkpoint_every=1)
    with TrainingRun(resume=run_dir):
        code, message = called(script, monkeypatch, capsys, "--resume", run_dir)
    assert code == 2
    assert f"process {os.getpid()} is training there; wait until it has ended" in message


def test_the_budget_of_a_resumed_run_counts_what_it_has_spent(script, provider):
    """A resumed run had its whole budget anew."""
    flags = {"env_id": "MiniGrid-GoToDoor-6x6-v0", "model": "openai/gpt-4o-mini", "store": None}
    _, run_dir = train(script, checkpoint_every=1, budget_calls=20, **flags)
    assert len(provider.log) == 20
    summary = resume(script, run_dir, total_timesteps=256)
    assert len(provider.log) == summary["teacher"]["calls"] == 20
    summary = resume(script, run_dir, total_timesteps=384, budget_calls=26)
    assert len(provider.log) == summary["teacher"]["calls"] == 26


# Mistakes


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lam", -1], "--lam -1.0: give 0 or more"),
        (["--lam", "nan"], "--lam nan: give 0 or more"),
        (["--ent-coef", "nan"], "--ent-coef nan: give 0 or more"),
        (["--budget-usd", -1], "--budget-usd -1.0: give 0 or more"),
        (["--budget-usd", "nan"], "--budget-usd nan: give 0 or more"),
        (["--rpm", 0], "rpm must be greater than 0, not 0"),
        (["--rpm", 0.5], "Error parsing --rpm"),
        (["--no-distrust_fatal"], "--distrust-fatal is gone: it did not help"),
        (["--lam-gate-return=0.9"], "--lam-gate-return is gone: it did not help"),
        (["--rl-coef", 0], "--rl-coef is gone: it did not help"),
        (["--gamma", 2], "--gamma 2.0: give at most 1"),
        (["--seed", -1], "--seed -1: give 0 or more"),
        (["--rpm", 0.5], "Error parsing --rpm"),
        (["--num-envs", 0], "--num-envs 0: give 1 or more"),
        (["--concurrency", 0], "--concurrency 0: give 1 or more"),
        (["--num-envs", 2, "--num-steps", 64, "--total-timesteps", 100], "--total-timesteps 100: give 128 or more"),
        (["--lam", 0, "--env-id", "CartPole-v1", "--obs", "grid"], "CartPole-v1 is not a MiniGrid env"),
        (["--lam", 0, "--env-id", "Pendulum-v1"], "Pendulum-v1 has the action space Box"),
        (["--obs", "picture"], "invalid choice 'picture'"),
        (["--frame-stack", 0], "--frame-stack 0: give 1 or more"),
        (["--frame-stack", 2], "the symbols of a grid are not stacked"),
        (["--model", "nosuchprovider/nosuchmodel"], "nosuchprovider/nosuchmodel"),
        (["--prompts", "no_such_folder"], "no_such_folder"),
        (["--resume", "no/such/run"], "--resume no/such/run: no checkpoint.pt in it; --checkpoint-every writes one"),
    ],
)
def test_a_mistake_of_the_user_ends_in_one_short_message_and_exit_code_2(script, monkeypatch, capsys, flags, says):
    code, message = called(script, monkeypatch, capsys, *flags)
    assert code == 2
    assert says in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lam-decay-steps", 5], "--lam-decay-steps is gone: lam falls by itself, as --lam-patience says"),
        (["--lam-patience", -1], "--lam-patience -1.0: give 0 or more"),
        (["--ask-share", -0.1], "--ask-share -0.1: give 0 or more"),
        (["--ask-share", 25], "--ask-share 25.0: give at most 1"),
        (["--label-temperature", 0], "--label-temperature 0.0: give 0.1 or more"),
        (["--replay-minibatches", -1], "--replay-minibatches -1: give 0 or more"),
        (["--replay-batch", 0], "--replay-batch 0: give 1 or more"),
        (["--num-steps-alone", 0], "--num-steps-alone 0: give 1 or more"),
    ],
)
def test_a_mistake_about_replay_does_so_too(replay, monkeypatch, capsys, flags, says):
    assert called(replay, monkeypatch, capsys, *flags) == (2, says)


@pytest.mark.parametrize("script", [ppo, a2c], ids=lambda script: script.ALGO)
def test_a_flag_that_moved_to_another_script_names_it(script, monkeypatch, capsys):
    code, message = called(script, monkeypatch, capsys, "--labels", "hard")
    assert (code, message) == (2, "--labels is called --label-type now")
    for flag in ("--replay-minibatches", "--ask_share", "--lam-decay-steps=6000", "--num-steps-alone"):
        code, message = called(script, monkeypatch, capsys, flag, 1)
        flag = flag.partition("=")[0].replace("_", "-")
        assert (code, message) == (2, f"{flag} is a flag of algos/{script.ALGO}_replay.py now")


def test_tracking_without_its_package_says_what_to_install(script, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, message = called(script, monkeypatch, capsys, "--track")
    assert (code, message) == (2, "--track needs Weights and Biases: pip install wandb")


def test_advantages_that_cannot_be_normalized_are_refused(monkeypatch, capsys):
    flags = "--num-envs", 2, "--num-steps", 3, "--num-minibatches", 4
    code, message = called(ppo, monkeypatch, capsys, *flags)
    assert code == 2
    assert "--num-minibatches 4: give at most 3" in message
    code, message = called(ppo_replay, monkeypatch, capsys, "--num-envs", 2, "--num-steps-alone", 3)
    assert code == 2
    assert "--num-minibatches-alone 4: give at most 3" in message
    code, message = called(a2c, monkeypatch, capsys, "--num-envs", 1, "--num-steps", 1, "--norm-adv")
    assert code == 2
    assert "--num-steps 1: give 2 or more" in message


def test_an_unknown_env_is_named_and_leaves_no_run(script, monkeypatch, capsys):
    code, message = called(script, monkeypatch, capsys, "--lam", 0, "--env-id", "MiniGrid-LavaGapS99-v0")
    assert code == 2
    assert "MiniGrid-LavaGapS99" in message
    assert not [*Path("runs").iterdir()]


def test_capture_video_without_moviepy_says_what_to_install(script, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "moviepy", None)
    code, message = called(script, monkeypatch, capsys, "--lam", 0, "--capture-video")
    assert code == 2
    assert "moviepy" in message.lower()
    assert "pip install" in message
