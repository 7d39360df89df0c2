"""That students learn: by reinforcement, from a teacher, and in every way that has a flag."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lvlm2p_wrappers import VectorTeacherWrapper
from tests.algos.scripts import (
    SMALL,
    a2c,
    checkpoint_of,
    curve_of,
    ppo,
    prolong,
    resume,
    scalars_of,
    student_of,
    train,
)


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        pytest.param(ppo, {"num_envs": 4}, id="ppo", marks=pytest.mark.slow),
        # With less entropy it soon always turns to the same side, on some seeds for good.
        pytest.param(a2c, {"num_envs": 8, "num_steps": 4, "learning_rate": 2e-3, "ent_coef": 0.1}, id="a2c"),
    ],
)
def test_without_a_teacher_a_student_learns_to_turn_to_the_ball(turn_to_the_ball, script, flags):
    summary, run_dir = train(script, env_id=turn_to_the_ball, lam=0, total_timesteps=4096, **flags)
    first = next(row["success_100"] for row in curve_of(run_dir) if row["success_100"])
    assert float(first) < 0.5
    assert summary["success_100"] >= 0.95


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        pytest.param(ppo, {"update_epochs": 4}, id="ppo", marks=pytest.mark.slow),
        pytest.param(a2c, {"num_steps": 8, "learning_rate": 2e-3}, id="a2c"),
    ],
)
def test_a_student_comes_to_agree_with_its_teacher(script, flags):
    _, run_dir = train(script, total_timesteps=1024, **flags)
    curve = curve_of(run_dir)
    assert float(curve[0]["agreement"]) < 0.8
    assert np.mean([float(row["agreement"]) for row in curve[-3:]]) > 0.9
    assert float(curve[-1]["kl"]) < float(curve[0]["kl"]) / 2


@pytest.mark.parametrize("lam", [0, 1])
def test_the_same_seed_gives_the_same_losses_and_another_seed_others(script, lam):
    runs = [train(script, lam=lam, seed=seed)[1] for seed in (5, 5, 6)]
    losses = [scalars_of(run_dir)["losses/policy_loss"] for run_dir in runs]
    assert losses[0] == losses[1] != losses[2]
    same, again, other = map(student_of, runs)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not all(torch.equal(same[name], other[name]) for name in same)


def test_hard_labels_are_the_teachers_most_probable_action_alone_in_the_loss_and_in_the_replay(script):
    one_pass = {"update_epochs": 1, "num_minibatches": 1} if script is ppo else {}
    kept, kl = {}, {}
    for labels in ("soft", "hard"):
        _, run_dir = train(script, labels=labels, replay_minibatches=1, checkpoint_every=1, **one_pass)
        kept[labels], kl[labels] = checkpoint_of(run_dir)["labels"][1], float(curve_of(run_dir)[0]["kl"])
    assert torch.equal(kept["hard"].sum(-1), torch.ones(128))
    assert set(kept["hard"].unique().tolist()) == {0, 1}
    assert (kept["soft"].amax(-1) < 1).all()
    # The student begins with nearly the same probability for each of the 7 actions.
    assert kl["hard"] == pytest.approx(math.log(7), abs=0.02)
    assert kl["soft"] < 0.8 * math.log(7)


def test_with_rl_coef_0_the_rewards_teach_nothing(script):
    taught, by_both = (student_of(train(script, rl_coef=rl_coef)[1]) for rl_coef in (0, 1))
    assert not taught["critic.bias"].any()  # as it was at the start
    assert by_both["critic.bias"].any()
    assert taught["actor.bias"].any()


# The weight of advice


def test_lam_falls_with_time_until_it_is_nothing():
    args = ppo.Args(lam=2, lam_decay_steps=100)
    assert [ppo.weight_of_advice(args, step, None) for step in (0, 50, 100, 5000)] == [2, 1, 0, 0]


def test_gated_lam_falls_with_the_students_return_and_is_never_above_lam_or_below_0():
    args = ppo.Args(lam=2, lam_gate_return=0.8)
    weights = [ppo.weight_of_advice(args, 0, ret) for ret in (None, -1, 0, 0.2, 0.4, 0.8, 0.9)]
    assert weights == pytest.approx([2, 2, 2, 1.5, 1, 0, 0])


def test_decay_and_gate_multiply():
    args = ppo.Args(lam=1, lam_decay_steps=100, lam_gate_return=1)
    assert ppo.weight_of_advice(args, 50, 0.5) == 0.25


def test_when_lam_has_decayed_to_nothing_the_teacher_is_asked_no_more(script):
    summary, run_dir = train(script, env_id="MiniGrid-LavaGapS7-v0", lam_decay_steps=128, total_timesteps=256)
    curve = curve_of(run_dir)
    assert [float(row["lam"]) for row in curve] == [1, 0.5, 0, 0]
    assert [row["agreement"] == "" for row in curve] == [False, False, True, True]
    assert summary["teacher"]["labels"] == 128
    calls_under_way = 2 * SMALL[script.ALGO]["num_envs"]  # about the observations at which lam fell to 0
    assert summary["teacher"]["calls"] <= int(curve[1]["calls"]) + calls_under_way


@pytest.mark.slow
def test_a_student_as_good_as_its_teacher_asks_it_no_more():
    summary, run_dir = train(a2c, lam=2, lam_gate_return=0.8, num_steps=8, learning_rate=2e-3, total_timesteps=1536)
    curve = curve_of(run_dir)
    for before, row in itertools.pairwise(curve):
        gate = 1 - float(before["mean_return_50"]) / 0.8 if before["mean_return_50"] else 1
        assert float(row["lam"]) == pytest.approx(2 * min(max(gate, 0), 1))
    assert float(curve[0]["lam"]) == 2
    asked = [row for row in curve if float(row["lam"]) > 0]
    assert len(asked) < len(curve)
    assert summary["teacher"]["labels"] == 16 * len(asked)


# Asking about some frames only


def test_the_frames_asked_about_are_those_where_the_student_is_least_sure(script):
    args = script.Args(lam=1, num_envs=4, num_steps=16, env_id="MiniGrid-Empty-5x5-v0", total_timesteps=64)
    envs = script.make_envs(args, "run")
    assert isinstance(envs, VectorTeacherWrapper)
    torch.manual_seed(1)
    agent = script.Agent(envs)
    torch.nn.init.normal_(agent.actor.weight)  # an untrained student is as unsure everywhere
    log = script.RunLog(args, envs.teacher, Path())
    obs, done = torch.as_tensor(envs.reset(seed=1)[0]), torch.zeros(4)
    rollout, obs, done = script.collect(agent, envs, obs, done, args, log, 0)
    assert not envs.gather()[1].any()
    rollout, *_ = script.collect(agent, envs, obs, done, args, log, 0.25)
    probs, mask = envs.gather()
    entropies = agent.get_action_and_value(rollout.obs.flatten(0, 1))[2].reshape(mask.shape).detach()
    for t, asked in enumerate(mask):
        threshold = entropies[: t + 1].quantile(0.75)
        assert np.array_equal(asked, (entropies[t] >= threshold - 1e-6).numpy())
    assert 0.15 < mask.mean() < 0.5
    assert np.allclose(probs.sum(-1), mask)
    envs.close()
    log.finish(agent)


def test_ask_share_asks_about_such_a_share_of_the_frames_though_the_student_becomes_surer(script):
    summary, run_dir = train(script, ask_share=0.25, num_envs=4, num_steps=64, total_timesteps=1024)
    labels = [int(row["labels"]) for row in curve_of(run_dir)]
    assert all(np.diff([0, *labels]) > 0)
    assert summary["teacher"]["labels"] == labels[-1]
    assert labels[-1] / 1024 == pytest.approx(0.25, abs=0.1)


# Label replay


def some_envs(script):
    return script.make_envs(script.Args(lam=0, env_id="MiniGrid-Empty-5x5-v0"), "run")


def labels_numbered(envs, first, last):
    """Labels that can be told apart by their first probability."""
    probs = torch.zeros(last - first, 7)
    probs[:, 0] = torch.arange(first, last)
    return torch.zeros(last - first, *envs.single_observation_space.shape, dtype=torch.uint8), probs


def test_label_replay_keeps_the_last_labels():
    envs = some_envs(ppo)
    labels = ppo.LabelReplay(4, envs)
    for first, last in ((0, 2), (2, 3), (3, 6)):
        labels.add(*labels_numbered(envs, first, last))
    assert sorted(labels.probs[:, 0].tolist()) == [2, 3, 4, 5]
    labels.add(*labels_numbered(envs, 6, 15))
    assert sorted(labels.probs[:, 0].tolist()) == [11, 12, 13, 14]


def test_label_replay_without_labels_learns_nothing(script):
    envs = some_envs(script)
    agent = script.Agent(envs)
    optimizer = script.make_optimizer(agent, 1e-3)
    assert script.LabelReplay(4, envs).learn(agent, optimizer, script.Args(replay_minibatches=3), lam=1) == {}


def test_replayed_labels_come_closer_and_closer(script):
    torch.manual_seed(0)
    envs = some_envs(script)
    agent, labels = script.Agent(envs), script.LabelReplay(64, envs)
    obs = torch.randint(0, 2, (64, *envs.single_observation_space.shape), dtype=torch.uint8)
    labels.add(obs, (3 * torch.randn(64, 7)).softmax(-1))
    optimizer = script.make_optimizer(agent, 1e-3)
    args = script.Args(replay_minibatches=20, replay_batch=32)
    first, *_, last = (labels.learn(agent, optimizer, args, lam=1)["teacher/replay_kl"] for _ in range(5))
    assert last < first / 2


def test_a_run_with_replay_keeps_what_it_bought_and_learns_from_it_again(script):
    flags = {"replay_minibatches": 10, "replay_batch": 32, "checkpoint_every": 1}
    summary, run_dir = train(script, ask_share=0.25, learning_rate=0, total_timesteps=256, **flags)
    obs, probs = checkpoint_of(run_dir)["labels"]
    assert len(obs) == len(probs) == summary["teacher"]["labels"] > 0  # frames without advice are no labels
    assert torch.allclose(probs.sum(-1), torch.ones(len(probs)))

    _, run_dir = train(script, total_timesteps=256, **flags)
    replayed = scalars_of(run_dir)["teacher/replay_kl"]
    assert len(replayed) == 4
    assert replayed[-1] < replayed[0]


def test_labels_bought_before_a_kill_are_replayed_after_it(script):
    _, run_dir = train(script, replay_minibatches=1, replay_size=200, checkpoint_every=1)
    before = checkpoint_of(run_dir)["labels"]
    prolong(run_dir, 256)
    resume(script, run_dir)
    after = checkpoint_of(run_dir)["labels"]
    assert len(before[1]) == 128
    assert len(after[1]) == 200
    assert torch.equal(before[0][56:], after[0][:72])  # the oldest come first, and 56 had to make room
    assert torch.equal(before[1][56:], after[1][:72])
