"""The PPO script: its arithmetic, its command line, and what its runs leave behind."""

import ast
import csv
import dataclasses
import importlib.util
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball
from minigrid.minigrid_env import MiniGridEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SCRIPT = Path(__file__).parents[2] / "algos" / "ppo_lvlm2p.py"
SMALL = {"num_envs": 2, "num_steps": 32, "num_minibatches": 2, "update_epochs": 2}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ppo = load(SCRIPT)


def train(**flags):
    """A run of the script in this process; returns its summary and its folder."""
    before = set(Path().glob("runs/*"))
    flags = SMALL | {"total_timesteps": 128, "env_id": "MiniGrid-Empty-5x5-v0"} | flags
    summary = ppo.main(ppo.Args(exp_name=f"run{len(before)}", **flags))
    (run_dir,) = set(Path().glob("runs/*")) - before
    return summary, run_dir


def curve_of(run_dir):
    with (run_dir / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def command(*flags):
    return [sys.executable, str(SCRIPT), *map(str, flags)]


def called(monkeypatch, capsys, *flags):
    """The command line, run in this process: exit code and what it wrote to standard error."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, flags)])
    with pytest.raises(SystemExit) as exit_:
        ppo.cli()
    return exit_.value.code, " ".join(capsys.readouterr().err.replace("│", " ").split())


# Arithmetic


def test_gae_of_constant_rewards_is_the_geometric_sum_of_the_td_errors():
    steps, gamma, lam, reward, value = 6, 0.9, 0.8, 1.0, 0.5
    ones = torch.ones(steps, 1)
    advantages, returns = ppo.compute_gae(
        reward * ones, value * ones, 0 * ones, torch.tensor([value]), torch.zeros(1), gamma, lam
    )
    delta = reward + gamma * value - value
    expected = [delta * (1 - (gamma * lam) ** left) / (1 - gamma * lam) for left in range(steps, 0, -1)]
    torch.testing.assert_close(advantages[:, 0], torch.tensor(expected))
    torch.testing.assert_close(returns, advantages + value)


def test_gae_credits_the_step_that_ends_an_episode_with_its_reward_and_nothing_after_it():
    rewards = torch.tensor([[0.0], [5.0], [100.0]])
    values = torch.tensor([[1.0], [2.0], [70.0]])
    begins_new_episode = torch.tensor([[1.0], [0.0], [1.0]])
    advantages, _ = ppo.compute_gae(
        rewards, values, begins_new_episode, torch.tensor([1e6]), torch.ones(1), gamma=0.9, gae_lambda=0.8
    )
    last, ending = 100 - 70, 5 - 2
    torch.testing.assert_close(advantages[:, 0], torch.tensor([0.9 * 2 - 1 + 0.9 * 0.8 * ending, ending, last]))


def test_distillation_loss_is_the_kl_from_teacher_to_student_of_the_rows_with_advice():
    teacher = torch.tensor([[0.5, 0.5, 0.0], [math.nan, 9.0, 9.0], [0.0, 1.0, 0.0]])
    student = torch.tensor([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]])
    loss = ppo.distillation_loss(teacher, student.log(), torch.tensor([True, False, True]))
    by_hand = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.5) + math.log(1 / 0.6)) / 2
    assert loss.item() == pytest.approx(by_hand)


def test_distillation_loss_is_zero_where_the_student_agrees():
    probs = torch.tensor([[0.9, 0.1, 0.0]])
    assert ppo.distillation_loss(probs, (probs + 1e-12).log(), torch.tensor([True])).item() == pytest.approx(
        0, abs=1e-6
    )


def test_without_any_advice_the_distillation_loss_and_its_gradient_are_zero():
    logits = torch.zeros(2, 3, requires_grad=True)
    loss = ppo.distillation_loss(torch.zeros(2, 3), logits.log_softmax(-1), torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def batch_of(agent, envs, rows=8, seed=0):
    torch.manual_seed(seed)
    obs = torch.as_tensor(np.stack([envs.single_observation_space.sample() for _ in range(rows)]))
    with torch.no_grad():
        actions, logprobs, _, values, _ = agent.get_action_and_value(obs)
    advantages = torch.randn(rows)
    probs = torch.randn(rows, envs.single_action_space.n).softmax(-1)
    return ppo.Batch(
        obs, actions, logprobs, values, advantages, values + advantages, probs, torch.arange(rows) % 2 == 0
    )


def test_lam_adds_just_its_multiple_of_the_kl_to_the_loss():
    args = ppo.Args(lam=0)
    envs = ppo.make_envs(args, "run")
    agent = ppo.Agent(envs)
    batch = batch_of(agent, envs)
    plain, _ = ppo.ppo_loss(agent, batch, args, lam=0)
    taught, measured = ppo.ppo_loss(agent, batch, args, lam=3)
    kl = ppo.distillation_loss(batch.teacher_probs, agent.get_action_and_value(batch.obs)[4], batch.teacher_mask)
    assert kl > 0
    assert taught.item() == pytest.approx(plain.item() + 3 * kl.item(), rel=1e-5)
    assert measured["teacher/kl"] == pytest.approx(kl.item())


def test_where_the_teacher_has_several_best_actions_the_student_agrees_with_any_of_them():
    args = ppo.Args(lam=0)
    envs = ppo.make_envs(args, "run")
    agent = ppo.Agent(envs)
    batch = batch_of(agent, envs)
    favourite = agent.get_action_and_value(batch.obs)[4].argmax(-1)
    best = torch.nn.functional.one_hot(favourite, 7) + torch.nn.functional.one_hot((favourite + 1) % 7, 7)
    for probs, agreement in ((best / 2, 1), (1 - best.float(), 0)):
        assert (
            ppo.ppo_loss(agent, batch._replace(teacher_probs=probs), args, lam=1)[1]["teacher/agreement"] == agreement
        )


def test_the_first_pass_over_a_batch_is_on_policy():
    args = ppo.Args(lam=0)
    envs = ppo.make_envs(args, "run")
    agent = ppo.Agent(envs)
    _, measured = ppo.ppo_loss(agent, batch_of(agent, envs), args, lam=0)
    assert measured["losses/approx_kl"] == pytest.approx(0, abs=1e-6)
    assert measured["losses/clipfrac"] == 0


# Learning


class TurnToTheBallEnv(MiniGridEnv):
    """One step an episode: a ball lies to the left or to the right, and turning to it is worth 1."""

    def __init__(self, **kwargs):
        super().__init__(mission_space=MissionSpace(lambda: "turn to the ball"), grid_size=5, max_steps=8, **kwargs)

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        self.agent_pos, self.agent_dir = (2, 2), self._rand_int(0, 4)
        self.side = self._rand_elem([-1, 1])
        self.grid.set(*(self.agent_pos + self.side * self.right_vec), Ball("blue"))
        self.mission = "turn to the ball"

    def step(self, action):
        right = self.actions.left if self.side < 0 else self.actions.right
        obs, _, _, truncated, info = super().step(action)
        return obs, float(action == right), True, truncated, info


@pytest.fixture
def turn_to_the_ball():
    gym.register("MiniGrid-TurnToTheBall-v0", TurnToTheBallEnv)
    yield "MiniGrid-TurnToTheBall-v0"
    del gym.registry["MiniGrid-TurnToTheBall-v0"]


def test_plain_ppo_learns_to_turn_to_the_ball(turn_to_the_ball):
    summary, run_dir = train(env_id=turn_to_the_ball, lam=0, num_envs=4, total_timesteps=4096)
    assert float(curve_of(run_dir)[0]["success_100"]) < 0.4
    assert summary["success_100"] >= 0.95


def test_a_student_comes_to_agree_with_its_teacher():
    _, run_dir = train(total_timesteps=1024, update_epochs=4)
    curve = curve_of(run_dir)
    assert float(curve[0]["agreement"]) < 0.7
    assert np.mean([float(row["agreement"]) for row in curve[-3:]]) > 0.9
    assert float(curve[-1]["kl"]) < float(curve[0]["kl"]) / 2


def student_of(run_dir):
    return torch.load(run_dir / "student.pt", weights_only=True)["student"]


@pytest.mark.parametrize("lam", [0, 1])
def test_the_same_seed_gives_the_same_losses_and_another_seed_others(lam):
    runs = [train(lam=lam, seed=seed)[1] for seed in (5, 5, 6)]
    losses = [scalars_of(run_dir)["losses/policy_loss"] for run_dir in runs]
    assert losses[0] == losses[1] != losses[2]
    same, again, other = map(student_of, runs)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not all(torch.equal(same[name], other[name]) for name in same)


# What a run leaves


def scalars_of(run_dir):
    events = EventAccumulator(str(run_dir)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


CLEANRL = {f"charts/{name}" for name in ("episodic_return", "episodic_length", "SPS", "learning_rate")} | {
    f"losses/{name}"
    for name in (
        "value_loss",
        "policy_loss",
        "entropy",
        "old_approx_kl",
        "approx_kl",
        "clipfrac",
        "explained_variance",
    )
}
TEACHER = {
    f"teacher/{name}"
    for name in ("labels", "calls", "cached_share", "bad_replies", "cost_usd", "kl", "agreement", "lam")
}


@pytest.mark.slow
def test_a_run_with_the_embedded_teacher_leaves_summary_curve_scalars_and_student():
    flags = "--lam", 1, "--total-timesteps", 512, "--num-envs", 4, "--num-steps", 64, "--store", "answers.sqlite"
    done = subprocess.run(command(*flags), check=True, capture_output=True, text=True)
    (run_dir,) = Path("runs").iterdir()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert list(summary) == [
        *("env_id", "algo", "seed", "lam", "global_step", "episodes", "mean_return_100", "success_100"),
        *("steps_per_s", "teacher"),
    ]
    assert (summary["env_id"], summary["algo"], summary["seed"]) == ("MiniGrid-LavaGapS7-v0", "ppo", 1)
    assert summary["lam"] == 1
    assert summary["global_step"] == 512
    teacher = summary["teacher"]
    assert list(teacher) == ["model", "labels", "distinct_views", "calls", "cached", "bad_replies", "cost_usd"]
    assert (teacher["model"], teacher["labels"], teacher["bad_replies"]) == ("embedded/minigrid-planner", 512, 0)
    assert 0 < teacher["distinct_views"] <= teacher["calls"] < 512
    assert Path("answers.sqlite").exists()
    assert "answers.sqlite" in done.stdout
    assert scalars_of(run_dir).keys() >= CLEANRL | TEACHER
    assert [row["global_step"] for row in curve_of(run_dir)] == ["256", "512"]

    again = subprocess.run(command(*flags, "--exp-name", "again"), check=True, capture_output=True, text=True)
    summary = json.loads(again.stdout[again.stdout.index("{") :])
    assert summary["teacher"]["calls"] == 0
    assert summary["teacher"]["cached"] == summary["teacher"]["labels"] == 512


def test_a_plain_run_asks_nobody_and_says_so():
    summary, run_dir = train(lam=0)
    assert summary["teacher"] is None
    assert scalars_of(run_dir).keys() >= CLEANRL - {"charts/episodic_return", "charts/episodic_length"}
    assert not scalars_of(run_dir).keys() & TEACHER


def test_a_plain_run_opens_no_store_and_loads_no_litellm(tmp_path):
    lines = f"import runpy, sys; script = runpy.run_path({str(SCRIPT)!r}); "
    lines += "script['main'](script['Args'](lam=0, total_timesteps=32, num_envs=2, num_steps=16)); "
    lines += "print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_figures_over_100_episodes_are_empty_before_there_are_so_many(turn_to_the_ball):
    summary, run_dir = train(env_id=turn_to_the_ball, lam=0, total_timesteps=128)
    first, second = curve_of(run_dir)
    assert (first["episodes"], first["mean_return_100"], first["success_100"]) == ("64", "", "")
    assert float(first["mean_return_50"]) <= 1
    assert float(second["success_100"]) == summary["success_100"]


def test_a_run_in_which_no_episode_ended_reports_no_return():
    summary, _ = train(lam=0, total_timesteps=16, num_steps=8, seed=2)
    assert summary["episodes"] == 0
    assert (summary["mean_return_100"], summary["success_100"]) == (None, None)


def test_a_second_run_in_one_process_counts_its_own_labels_only():
    assert train()[0]["teacher"]["labels"] == 128
    summary, _ = train()
    assert (summary["teacher"]["labels"], summary["teacher"]["calls"]) == (128, 0)


def test_when_lam_has_decayed_to_nothing_the_teacher_is_asked_no_more():
    summary, run_dir = train(env_id="MiniGrid-LavaGapS7-v0", lam_decay_steps=128, total_timesteps=256)
    curve = curve_of(run_dir)
    assert [float(row["lam"]) for row in curve] == [1, 0.5, 0, 0]
    assert [row["agreement"] == "" for row in curve] == [False, False, True, True]
    assert summary["teacher"]["labels"] == 128
    calls_under_way = 2 * SMALL["num_envs"]  # about the observations at which lam fell to 0
    assert summary["teacher"]["calls"] <= int(curve[1]["calls"]) + calls_under_way


def test_a_saved_student_plays_as_it_was_trained():
    _, run_dir = train(lam=0)
    saved = torch.load(run_dir / "student.pt", weights_only=True)
    args = ppo.Args(**saved["args"])
    envs = ppo.make_envs(args, "run")
    agent = ppo.Agent(envs)
    agent.load_state_dict(saved["student"])
    obs, _ = envs.reset(seed=0)
    action, *_ = agent.get_action_and_value(torch.as_tensor(obs))
    assert action.shape == (args.num_envs,)


def test_learning_rate_is_annealed_only_if_asked():
    _, constant = train(lam=0, total_timesteps=256)
    _, annealed = train(lam=0, total_timesteps=256, anneal_lr=True)
    rate = ppo.Args().learning_rate
    assert scalars_of(constant)["charts/learning_rate"] == pytest.approx([rate] * 4)
    assert scalars_of(annealed)["charts/learning_rate"] == pytest.approx([rate, 0.75 * rate, 0.5 * rate, 0.25 * rate])


def test_ctrl_c_ends_a_run_with_its_summary_and_its_student():
    flags = "--lam", 0, "--total-timesteps", 10_000_000, "--num-envs", 2, "--num-steps", 16
    # A job in a script's background ignores Ctrl-C, and so do its children: the tests may be run like that.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    run = subprocess.Popen(command(*flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heeding)
    try:
        while run.poll() is None and not any(path.stat().st_size for path in Path().glob("runs/*/curve.csv")):
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    (run_dir,) = Path("runs").iterdir()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert 0 < summary["global_step"] < 10_000_000
    assert student_of(run_dir)
    assert int(curve_of(run_dir)[-1]["global_step"]) <= summary["global_step"]


def test_capture_video_records_the_first_env():
    train(lam=0, capture_video=True, total_timesteps=512, num_steps=128)
    assert list(Path("videos").glob("*/*.mp4"))


# Mistakes


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lam", -1], "--lam -1.0: give 0 or more"),
        (["--lam", "nan"], "--lam nan: give 0 or more"),
        (["--lam-decay-steps", -5], "--lam-decay-steps -5: give 0 or more"),
        (["--num-envs", 0], "--num-envs 0: give 1 or more"),
        (["--concurrency", 0], "--concurrency 0: give 1 or more"),
        (["--num-envs", 2, "--num-steps", 3, "--num-minibatches", 4], "--num-minibatches 4: give at most 3"),
        (["--num-envs", 2, "--num-steps", 64, "--total-timesteps", 100], "--total-timesteps 100: give 128 or more"),
        (["--lam", 0, "--env-id", "CartPole-v1"], "CartPole-v1 is not a MiniGrid env"),
        (["--model", "nosuchprovider/nosuchmodel"], "nosuchprovider/nosuchmodel"),
        (["--prompts", "no_such_folder"], "no_such_folder"),
    ],
)
def test_a_mistake_of_the_user_ends_in_one_short_message_and_exit_code_2(monkeypatch, capsys, flags, says):
    code, message = called(monkeypatch, capsys, *flags)
    assert code == 2
    assert says in message
    assert "Traceback" not in message


def test_an_unknown_env_is_named(monkeypatch, capsys):
    code, message = called(monkeypatch, capsys, "--lam", 0, "--env-id", "MiniGrid-LavaGapS99-v0")
    assert code == 1
    assert "MiniGrid-LavaGapS99" in message


def test_capture_video_without_moviepy_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "moviepy", None)
    code, message = called(monkeypatch, capsys, "--lam", 0, "--capture-video")
    assert code == 1
    assert "moviepy" in message.lower()
    assert "pip install" in message


def test_every_flag_is_read_and_explained():
    tree = ast.parse(SCRIPT.read_text())
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "args"
    }
    # The teacher's options are read by their names.
    read |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    fields = {field.name for field in dataclasses.fields(ppo.Args)}
    assert fields <= read
    lines = SCRIPT.read_text().splitlines()
    for node in next(node for node in tree.body if getattr(node, "name", "") == "Args").body:
        if isinstance(node, ast.AnnAssign):
            assert "  # " in lines[node.lineno - 1], f"{node.target.id} has no explanation"


def resume(run_dir, **flags):
    return ppo.main(ppo.Args(resume=str(run_dir), **flags))


def test_a_resumed_run_goes_on_with_the_flags_weights_counters_and_curve_of_the_run():
    flags = {"lam": 0, "total_timesteps": 640, "checkpoint_every": 3, "seed": 5}
    _, run_dir = train(**flags)
    whole = [row["global_step"] for row in curve_of(run_dir)]
    checkpoint = torch.load(run_dir / "checkpoint.pt", weights_only=False)
    assert checkpoint["log"]["global_step"] == 576  # the ninth of ten updates; the tenth came after it
    (run_dir / "summary.json").unlink()  # as if it had been killed there
    summary = resume(run_dir, seed=77, total_timesteps=1024)
    assert (summary["global_step"], summary["seed"]) == (640, 5)
    assert summary["episodes"] >= checkpoint["log"]["episodes"]
    assert [row["global_step"] for row in curve_of(run_dir)] == whole
    events = EventAccumulator(str(run_dir)).Reload()
    assert [event.step for event in events.Scalars("charts/SPS")] == [int(step) for step in whole]


def test_a_resumed_student_starts_from_the_checkpoints_weights():
    _, run_dir = train(lam=0, total_timesteps=128, checkpoint_every=2)
    kept = torch.load(run_dir / "checkpoint.pt", weights_only=False)["student"]
    resume(run_dir)  # nothing is left to do
    again = torch.load(run_dir / "student.pt")["student"]
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_resuming_where_there_is_no_checkpoint_says_how_to_get_one(monkeypatch, capsys):
    code, message = called(monkeypatch, capsys, "--resume", "no/such/run")
    assert code == 2
    assert "--resume no/such/run: no checkpoint.pt in it; --checkpoint-every writes one" in message


def test_a_resumed_runs_teacher_counters_go_on():
    flags = {"env_id": "MiniGrid-LavaGapS5-v0", "lam": 1.0, "checkpoint_every": 1, "store": None}
    first, run_dir = train(total_timesteps=128, **flags)
    checkpoint = torch.load(run_dir / "checkpoint.pt", weights_only=False)
    checkpoint["args"]["total_timesteps"] = 256
    torch.save(checkpoint, run_dir / "checkpoint.pt")
    summary = resume(run_dir)
    assert summary["teacher"]["labels"] == 256
    assert summary["teacher"]["calls"] >= first["teacher"]["calls"]
