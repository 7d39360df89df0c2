"""That students learn: by reinforcement, from a teacher, and in every way that has a flag."""

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lvlm2p_wrappers import UsageError, VectorTeacherWrapper
from tests.algos.scripts import (
    SMALL,
    a2c,
    checkpoint_of,
    curve_of,
    ppo,
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
    summary, run_dir = train(script, env_id=turn_to_the_ball, lam=0, seed=2, total_timesteps=4096, **flags)
    first = next(row["success_100"] for row in curve_of(run_dir) if row["success_100"])
    assert float(first) < 0.5
    assert summary["success_100"] >= 0.9  # the last floats of a machine decide about some hundredths


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
        kept[labels] = torch.stack([*checkpoint_of(run_dir)["labels"][0].values()])
        kl[labels] = float(curve_of(run_dir)[0]["kl"])
    assert torch.equal(kept["hard"].sum(-1), torch.ones(len(kept["hard"])))
    assert set(kept["hard"].unique().tolist()) == {0, 1}
    assert (kept["soft"].amax(-1) < 1).all()
    # The student begins with nearly the same probability for each of the 7 actions.
    assert kl["hard"] == pytest.approx(math.log(7), abs=0.02)
    assert kl["soft"] < 0.8 * math.log(7)


def test_label_temperature_sharpens_soft_labels_and_leaves_rows_without_advice_alone(script):
    probs = torch.tensor([[0.6, 0.3, 0.1], [0, 0, 0]])
    assert torch.allclose(script.sharpened(probs, script.Args()), probs)
    sharper = script.sharpened(probs, script.Args(label_temperature=0.5))
    assert sharper[0].tolist() == pytest.approx([36 / 46, 9 / 46, 1 / 46])
    assert not sharper[1].any()
    sharpest = script.sharpened(probs, script.Args(label_temperature=0.1))
    assert sharpest[0].tolist() == pytest.approx([1, 0, 0], abs=2e-3)


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


def test_rollouts_may_be_longer_once_there_is_no_advice(script):
    flags = {"num_envs": 2, "num_steps": 8, "num_steps_alone": 32, "lam_decay_steps": 24}
    _, run_dir = train(script, **flags, total_timesteps=200)
    # lam is above 0 at the frames 0 and 16; a rollout that would end after frame 200 is not begun
    assert [int(row["global_step"]) for row in curve_of(run_dir)] == [16, 32, 96, 160]
    _, run_dir = train(script, **flags, lam=0, total_timesteps=200)
    assert [int(row["global_step"]) for row in curve_of(run_dir)] == [64, 128, 192]


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


def test_at_most_a_share_of_the_frames_is_asked_about_and_each_view_once(script):
    args = script.Args(lam=1, env_id="MiniGrid-LavaGapS7-v0", num_envs=4, num_steps=64, replay_minibatches=1)
    envs = script.make_envs(args, "run")
    assert isinstance(envs, VectorTeacherWrapper)
    agent, labels, log = script.Agent(envs), script.Labels(envs), script.RunLog(args, envs.teacher, Path())
    obs, done = torch.as_tensor(envs.reset(seed=1)[0]), torch.zeros(4)
    torch.manual_seed(1)
    shares_of_new = []
    for ask_share in (0, 0.25, 0.25, 0.25):
        rollout, obs, done = script.collect(agent, envs, obs, done, args.num_steps, log, labels, ask_share)
        probs, mask = map(torch.as_tensor, envs.gather())
        assert torch.allclose(probs.sum(-1), mask.float())
        views = [view.numpy().tobytes() for view in rollout.obs.flatten(0, 1)]
        new = [view not in labels.kept and view not in labels.fatal for view in views]
        assert all(itertools.compress(new, mask.flatten()))
        asked = [*itertools.compress(views, mask.flatten())]
        assert len(set(asked)) == len(asked)
        assert mask.float().mean() <= ask_share  # less where too few views are new
        assert mask.any() == (ask_share > 0)
        shares_of_new.append(np.mean(new))
        labels.add(rollout, done, probs, mask, args)
    assert shares_of_new[-1] < 0.95  # so that drawing from all frames would have asked again
    envs.close()
    log.finish(agent)


def test_ask_share_asks_about_such_a_share_of_the_frames_in_every_rollout(script):
    flags = {"env_id": "MiniGrid-GoToDoor-6x6-v0", "num_envs": 4, "num_steps": 64, "total_timesteps": 1024}
    summary, run_dir = train(script, ask_share=0.25, **flags)
    labels = [int(row["labels"]) for row in curve_of(run_dir)]
    assert all(np.diff([0, *labels]) > 0)
    assert summary["teacher"]["labels"] == labels[-1]
    assert labels[-1] / 1024 == pytest.approx(0.25, abs=0.1)


# Labels kept: to learn from again, or not at all


def some_envs(script):
    return script.make_envs(script.Args(lam=0, env_id="MiniGrid-Empty-5x5-v0"), "run")


def some_steps(script, envs, numbers, rewards=0, dones=(), actions=0):
    """Steps of one env, told apart by their first pixel, before which some episodes ended; and the done after them."""
    obs = torch.zeros(len(numbers), 1, *envs.single_observation_space.shape, dtype=torch.uint8)
    obs[:, 0, 0, 0, 0] = torch.tensor(numbers)
    zeros = torch.zeros(len(numbers) + 1, 1)
    ends = zeros.clone()
    ends[list(dones)] = 1
    steps = script.Rollout(obs, ends[:-1], zeros[:-1].long() + actions, zeros, zeros, zeros[:-1] + rewards)
    return steps, ends[-1]


def keep(script, labels, envs, numbers, favourite=0, flags=None, **outcome):
    """Labels of some views, one and the same favourite action for each; which of them may be learnt from."""
    probs = torch.full((len(numbers), 1, 7), 0.1 / 6)
    probs[..., favourite] = 0.9
    steps, next_done = some_steps(script, envs, numbers, **outcome)
    mask = torch.ones(len(numbers), 1, dtype=torch.bool)
    return labels.add(steps, next_done, probs, mask, script.Args(**flags or {})).flatten().tolist()


def numbers_of(labels):
    return [view[0] for view in labels.kept]


def test_each_views_last_label_is_kept_and_the_oldest_views_make_room(script):
    envs = some_envs(script)
    labels, flags = script.Labels(envs), {"replay_minibatches": 1, "replay_size": 4}
    keep(script, labels, envs, [1, 2, 2, 3], flags=flags)
    assert numbers_of(labels) == [1, 2, 3]
    keep(script, labels, envs, [1, 4, 5, 6], favourite=3, flags=flags)
    assert numbers_of(labels) == [3, 4, 5, 6]
    assert [int(probs.argmax()) for probs in labels.kept.values()] == [0, 3, 3, 3]


def test_without_replay_no_label_is_kept(script):
    envs = some_envs(script)
    labels = script.Labels(envs)
    assert keep(script, labels, envs, [1, 2], flags={"distrust_fatal": True}) == [True, True]
    assert not labels.kept


def test_advice_that_was_fatal_once_is_not_learnt_from_again(script):
    envs = some_envs(script)
    labels, flags = script.Labels(envs), {"replay_minibatches": 1, "distrust_fatal": True}
    assert keep(script, labels, envs, [1, 2, 3], flags=flags) == [True, True, True]
    assert keep(script, labels, envs, [4, 2, 5], flags=flags, dones=[2]) == [True, False, True]
    assert numbers_of(labels) == [1, 3, 4, 5]
    assert keep(script, labels, envs, [2, 6], flags=flags) == [False, True]
    assert keep(script, labels, envs, [7, 8], flags=flags, dones=[2]) == [True, False]  # at the rollout's very end


def test_advice_from_an_earlier_rollout_is_found_to_be_fatal_where_nothing_was_asked_this_time(script):
    envs = some_envs(script)
    labels, args = script.Labels(envs), script.Args(replay_minibatches=1, distrust_fatal=True)
    keep(script, labels, envs, [1, 2, 3], flags=vars(args))
    steps, next_done = some_steps(script, envs, [4, 2, 1], dones=[2])
    nothing = torch.zeros(3, 1, dtype=torch.bool)
    assert not labels.add(steps, next_done, torch.zeros(3, 1, 7), nothing, args).any()
    assert numbers_of(labels) == [1, 3]
    assert [view[0] for view in labels.fatal] == [2]


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param({"dones": [1], "rewards": 0.5}, id="the episode ended well"),
        pytest.param({"rewards": -1}, id="the episode went on"),
        pytest.param({"dones": [1], "actions": 4}, id="the student did something else"),
    ],
)
def test_advice_is_fatal_only_where_following_it_ended_an_episode_without_reward(script, outcome):
    envs = some_envs(script)
    labels = script.Labels(envs)
    assert keep(script, labels, envs, [1, 2], flags={"distrust_fatal": True}, **outcome) == [True, True]
    assert not labels.fatal


def test_fatal_advice_is_followed_unless_it_is_distrusted(script):
    envs = some_envs(script)
    assert keep(script, script.Labels(envs), envs, [1, 2], dones=[1]) == [True, True]


def test_a_run_says_for_how_many_views_it_distrusts_the_advice(script):
    flags = {"env_id": "MiniGrid-LavaGapS5-v0", "model": "embedded/minigrid-planner?error=1", "total_timesteps": 1024}
    _, run_dir = train(script, distrust_fatal=True, **flags)
    counts = scalars_of(run_dir)["teacher/fatal_views"]
    assert counts == sorted(counts)
    assert counts[-1] > 0
    assert set(scalars_of(train(script, **flags)[1])["teacher/fatal_views"]) == {0}


def test_label_replay_without_labels_learns_nothing(script):
    envs = some_envs(script)
    agent = script.Agent(envs)
    optimizer = script.make_optimizer(agent, 1e-3)
    assert script.Labels(envs).learn(agent, optimizer, script.Args(replay_minibatches=3), lam=1) == {}


def test_replayed_labels_come_closer_and_closer(script):
    torch.manual_seed(0)
    envs = some_envs(script)
    agent, labels = script.Agent(envs), script.Labels(envs)
    views = torch.randint(0, 2, (64, *envs.single_observation_space.shape), dtype=torch.uint8).numpy()
    labels.kept = {view.tobytes(): (3 * torch.randn(7)).softmax(-1) for view in views}
    optimizer = script.make_optimizer(agent, 1e-3)
    args = script.Args(replay_minibatches=20, replay_batch=32)
    first, *_, last = (labels.learn(agent, optimizer, args, lam=1)["teacher/replay_kl"] for _ in range(5))
    assert last < first / 2


def test_replay_leaves_the_critic_where_it_was(script):
    torch.manual_seed(0)
    envs = some_envs(script)
    agent, labels = script.Agent(envs), script.Labels(envs)
    views = torch.randint(0, 2, (64, *envs.single_observation_space.shape), dtype=torch.uint8)
    labels.kept = {view.numpy().tobytes(): (3 * torch.randn(7)).softmax(-1) for view in views}
    moved = {}
    for vf_coef in (0, 0.5):
        student = copy.deepcopy(agent)
        args = script.Args(replay_minibatches=50, vf_coef=vf_coef)
        labels.learn(student, script.make_optimizer(student, 1e-3), args, lam=1)
        values, before = (some.get_logprobs_and_value(views)[1].detach() for some in (student, agent))
        moved[vf_coef] = (values - before).abs().mean()
    assert moved[0.5] < moved[0] / 3


def test_a_run_with_replay_keeps_what_it_bought_and_learns_from_it_again(script):
    flags = {"replay_minibatches": 10, "replay_batch": 32, "checkpoint_every": 1}
    summary, run_dir = train(script, ask_share=0.25, learning_rate=0, total_timesteps=256, **flags)
    kept, _ = checkpoint_of(run_dir)["labels"]
    assert 0 < len(kept) <= summary["teacher"]["labels"]  # frames without advice are no labels
    assert torch.allclose(torch.stack([*kept.values()]).sum(-1), torch.ones(len(kept)))

    _, run_dir = train(script, total_timesteps=256, **flags)
    replayed = scalars_of(run_dir)["teacher/replay_kl"]
    assert len(replayed) == 4
    assert replayed[-1] < replayed[0]


def test_labels_bought_before_a_kill_are_replayed_after_it(script):
    flags = {"env_id": "MiniGrid-LavaGapS7-v0", "replay_minibatches": 1, "distrust_fatal": True}
    _, run_dir = train(script, checkpoint_every=1, **flags)
    before = checkpoint_of(run_dir)["labels"]
    resume(script, run_dir, total_timesteps=256)
    after = checkpoint_of(run_dir)["labels"]
    assert before[0].keys() - after[1] < after[0].keys()
    assert before[1] <= after[1]


def test_a_run_is_not_resumed_by_the_other_algorithm(script):
    _, run_dir = train(script, checkpoint_every=1)
    with pytest.raises(UsageError, match=f"a run of {script.ALGO}"):
        resume(a2c if script is ppo else ppo, run_dir)
