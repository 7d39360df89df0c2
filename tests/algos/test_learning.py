"""Students learn: by reinforcement, from a teacher, and in every way that has a flag.

What is learnt depends on the last floats, and so on a CPU: the ranges beside the bounds are those of five seeds under
each of four settings: none, ATEN_CPU_CAPABILITY=default, ATEN_CPU_CAPABILITY=avx2 and ONEDNN_MAX_CPU_ISA=SSE41.
"""

import contextlib
import itertools
import math

import numpy as np
import pytest
import torch

from lvlm2p_wrappers import TrainingRun, UsageError
from tests.algos.scripts import (
    SMALL,
    a2c,
    a2c_replay,
    checkpoint_of,
    curve_of,
    ppo,
    ppo_replay,
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
    summary, run_dir = train(script, env_id=turn_to_the_ball, lam=0, seed=2, total_timesteps=6144, **flags)
    first = next(row["success_100"] for row in curve_of(run_dir) if row["success_100"])
    # A student that always turns to the same side has half of the episodes.
    assert float(first) < 0.4  # measured: 0.09 to 0.23
    assert summary["success_100"] > 0.7  # measured: 0.99 to 1


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        pytest.param(ppo, {"update_epochs": 4}, id="ppo", marks=pytest.mark.slow),
        pytest.param(a2c, {"num_steps": 8, "learning_rate": 2e-3}, id="a2c"),
    ],
)
def test_a_student_comes_to_agree_with_its_teacher(script, flags):
    _, run_dir = train(script, total_timesteps=1024, **flags)
    first, *rows = curve_of(run_dir)
    agreement, kl = np.mean([[float(row[name]) for name in ("agreement", "kl")] for row in rows[-len(rows) // 4 :]], 0)
    assert kl < 0.6 * float(first["kl"])  # measured: 0.02 to 0.04 of it with PPO, 0.03 to 0.15 with A2C
    assert agreement > 0.5  # measured: 0.99 to 1 with PPO, 0.90 to 1 with A2C; a seventh by chance


@pytest.mark.parametrize("lam", [0, 1])
def test_the_same_seed_gives_the_same_losses_and_another_seed_others(script, lam):
    runs = [train(script, lam=lam, seed=seed)[1] for seed in (5, 5, 6)]
    losses = [scalars_of(run_dir)["losses/policy_loss"] for run_dir in runs]
    assert losses[0] == losses[1] != losses[2]
    same, again, other = map(student_of, runs)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not all(torch.equal(same[name], other[name]) for name in same)


@pytest.mark.parametrize("script", [ppo, a2c], ids=lambda script: script.ALGO)
def test_hard_labels_are_the_teachers_most_probable_action_alone(script):
    one_pass = {"update_epochs": 1, "num_minibatches": 1} if script is ppo else {}
    kl = {}
    for label_type in ("soft", "hard"):
        _, run_dir = train(script, label_type=label_type, **one_pass)
        kl[label_type] = float(curve_of(run_dir)[0]["kl"])
    # The student begins with nearly the same probability for each of the 7 actions.
    assert kl["hard"] == pytest.approx(math.log(7), abs=0.02)
    assert kl["soft"] < 0.8 * math.log(7)


class Labelled:
    """What stands in for a vector environment: it has these labels, and a run that waits for them."""

    def __init__(self, probs, mask):
        self.gather = lambda: (np.float32(probs), np.array(mask))

    @contextlib.contextmanager
    def waiting(self):
        yield


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1, [0.6, 0.3, 0.1]), (0.5, [36 / 46, 9 / 46, 1 / 46]), (0.1, [0.999, 0.001, 0])],
)
def test_label_temperature_sharpens_labels_and_leaves_rows_without_one_alone(replay, temperature, expected):
    labelled = Labelled([[[0.6, 0.3, 0.1], [0, 0, 0]]], [[True, False]])
    args = replay.Args(label_temperature=temperature)
    (row, nothing), mask = (part[0] for part in replay.gather_labels(labelled, args, None, labelled))
    assert row.tolist() == pytest.approx(expected, abs=1e-3)
    assert mask.tolist() == [True, False]
    assert not nothing.any()


@pytest.mark.parametrize(("paper", "replay"), [(ppo, ppo_replay), (a2c, a2c_replay)], ids=["ppo", "a2c"])
def test_without_replay_falling_lam_and_sharpening_our_method_is_the_papers(paper, replay):
    flags = {"env_id": "MiniGrid-LavaGapS5-v0", "total_timesteps": 192, "learning_rate": 1e-3, "gae_lambda": 0.95}
    ours, theirs = (student_of(train(script, **SMALL[paper.ALGO] | flags)[1]) for script in (replay, paper))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# Where the environments begin


def test_no_two_seeds_share_a_layout_and_a_resumed_run_has_new_ones(script):
    """Runs with the seeds 1 and 2 shared all but one of their environments' layouts, as environment i had seed + i."""
    given = []

    class Envs:
        def reset(self, seed):
            given.append(seed)
            raise KeyboardInterrupt

    class Run:
        def __init__(self, global_step):
            self.global_step = global_step

    for seed, step in itertools.product(range(1, 6), (0, 1024)):
        args = script.Args(seed=seed, num_envs=16)
        learning = (None, None) if script.ALGO.endswith("replay") else ()
        with pytest.raises(KeyboardInterrupt):
            script.train(args, Envs(), None, None, Run(step), *learning, "cpu")
    drawn = [*itertools.chain(*given)]
    assert len(set(drawn)) == len(drawn) == 5 * 2 * 16


# The weight of the labels


FALLING = (1, 0.5, 0)


def of_falling_weight(replay, monkeypatch):
    """Have the weight of the labels fall with the updates, whatever the student learns."""

    class Falling:
        def __init__(self, lam, _patience, *_learners):
            self.lam, self.left = lam, [*FALLING[1:]]

        def update(self, *_measured):
            self.lam = self.left.pop(0)

    monkeypatch.setattr(replay, "Lambda", Falling)


def test_when_lam_has_fallen_to_nothing_the_teacher_is_asked_no_more(replay, monkeypatch):
    of_falling_weight(replay, monkeypatch)
    summary, run_dir = train(replay, env_id="MiniGrid-LavaGapS7-v0", total_timesteps=256)
    curve = curve_of(run_dir)
    assert [float(row["lam"]) for row in curve] == [*FALLING, 0]
    assert [row["agreement"] == "" for row in curve] == [False, False, True, True]
    assert summary["teacher"]["labels"] == 128
    assert summary["teacher"]["calls"] == int(curve[1]["calls"])


def test_rollouts_may_be_longer_once_there_are_no_labels(replay, monkeypatch):
    of_falling_weight(replay, monkeypatch)
    flags = {"num_envs": 2, "num_steps": 8, "num_steps_alone": 32}
    _, run_dir = train(replay, **flags, total_timesteps=200)
    # lam is above 0 at the frames 0 and 16; a rollout that would end after frame 200 is not begun
    assert [int(row["global_step"]) for row in curve_of(run_dir)] == [16, 32, 96, 160]
    _, run_dir = train(replay, **flags, lam=0, total_timesteps=200)
    assert [int(row["global_step"]) for row in curve_of(run_dir)] == [64, 128, 192]


def test_once_lam_is_nothing_the_student_learns_in_smaller_steps(replay, monkeypatch):
    of_falling_weight(replay, monkeypatch)
    _, run_dir = train(replay, learning_rate=1e-3, learning_rate_alone=1e-4, total_timesteps=256)
    assert scalars_of(run_dir)["charts/learning_rate"] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


def test_as_lam_falls_fewer_labels_are_replayed(replay, monkeypatch):
    """With a tenth of the weight Adam's steps were as long as with all of it, and the labels were learnt as well."""
    agent, optimizer, labels, _ = learnable(replay, replay_minibatches=20, replay_batch=8)
    steps = []
    monkeypatch.setattr(replay, "descend", lambda *_: steps.append(1))
    for lam, expected in ((1, 20), (0.5, 10), (0.04, 1)):
        steps.clear()
        labels.learn(agent, optimizer, lam)
        assert len(steps) == expected


def test_the_weight_of_the_labels_survives_a_kill(replay):
    flags = {"env_id": "MiniGrid-LavaGapS7-v0", "lam_patience": 0.5, "checkpoint_every": 1}
    _, run_dir = train(replay, **flags)
    before = checkpoint_of(run_dir)
    resume(replay, run_dir)
    after = checkpoint_of(run_dir)
    assert before["weight"] == after["weight"]
    assert set(before["weight"]["ranges"]) == {"distance"}
    assert before["labels"][2] == after["labels"][2]


# Asking about some frames only


def test_at_most_a_share_of_the_frames_is_asked_about_and_each_view_once(replay):
    flags = {"env_id": "MiniGrid-LavaGapS7-v0", "num_envs": 4, "num_steps": 64, "replay_minibatches": 1}
    args = replay.Args(ask_share=0.25, **flags)
    envs = replay.make_envs(args, "run")
    agent, labels = replay.Agent(envs), replay.Labels(envs, args)
    obs, done = torch.as_tensor(envs.reset(seed=1)[0]), torch.zeros(4)
    torch.manual_seed(1)
    shares_of_new, labelled, frames = [], 0, 0
    with TrainingRun("test") as run:
        run.begin("test", vars(args), teacher=envs.teacher)
        for _ in range(4):
            rollout, obs, done = replay.collect(agent, envs, obs, done, args.num_steps, args, run, labels.ask)
            probs, mask = map(torch.as_tensor, envs.gather())
            assert torch.allclose(probs.sum(-1), mask.float())
            views = [view.numpy().tobytes() for view in rollout.obs.flatten(0, 1)]
            new = [view not in labels.kept for view in views]
            assert all(itertools.compress(new, mask.flatten()))
            asked = [*itertools.compress(views, mask.flatten())]
            assert len(set(asked)) == len(asked)
            labelled, frames = labelled + int(mask.sum()), frames + mask.numel()
            assert 0 < labelled <= 0.25 * frames  # less where too few views are new
            shares_of_new.append(np.mean(new))
            batch = replay.make_batch(rollout, rollout.rewards, rollout.rewards, probs, mask)
            labels.keep(agent, batch)
    assert shares_of_new[-1] < 0.95  # so that drawing from all frames would have asked again
    envs.close()


@pytest.mark.parametrize("share", [0.25, 0.02])
def test_ask_share_is_a_share_of_all_frames_however_short_the_rollouts(replay, share):
    """A2C with a share of 0.02 asked nobody, since what a rollout saved up was lost at its end."""
    flags = {"env_id": "MiniGrid-GoToDoor-6x6-v0", "num_envs": 4, "num_steps": 8, "total_timesteps": 1024}
    summary, _ = train(replay, ask_share=share, **flags)
    assert share * 1024 - 4 <= summary["teacher"]["labels"] <= share * 1024


def test_pictures_for_the_log_buy_no_labels_outside_the_share(replay):
    """With a picture after every update, a share of 0.01 became 124 labels in 1,024 frames."""
    flags = {"env_id": "MiniGrid-GoToDoor-6x6-v0", "num_envs": 4, "num_steps": 8, "total_timesteps": 512}
    summary, _ = train(replay, ask_share=0.02, samples_every=1, store=None, **flags)
    assert 0 < summary["teacher"]["calls"] <= 2 * 0.02 * 512


# Labels kept, to learn from again


def some_envs(script):
    return script.make_envs(script.Args(lam=0, env_id="MiniGrid-Empty-5x5-v0"), "run")


def labels_of(replay, **flags):
    return replay.Labels(some_envs(replay), replay.Args(**flags))


def keep(replay, labels, agent, numbers, favourite=0):
    """Keep labels with one favourite action for views that are told apart by their first cell; returns the distance."""
    obs = torch.zeros(len(numbers), *labels.space.shape, dtype=torch.uint8)
    obs[:, 0] = torch.tensor(numbers)
    probs = torch.full((len(numbers), 7), 0.1 / 6)
    probs[:, favourite] = 0.9
    unused = dict.fromkeys(replay.Batch._fields)
    mask = torch.ones(len(numbers), dtype=torch.bool)
    return labels.keep(agent, replay.Batch(**unused | {"obs": obs, "teacher_probs": probs, "teacher_mask": mask}))


def numbers_of(labels):
    return [view[0] for view in labels.kept]


def test_each_views_last_label_is_kept(replay):
    labels, agent = labels_of(replay), replay.Agent(some_envs(replay))
    keep(replay, labels, agent, [1, 2, 2, 3])
    assert numbers_of(labels) == [1, 2, 3]
    keep(replay, labels, agent, [1, 4], favourite=3)
    assert numbers_of(labels) == [1, 2, 3, 4]
    assert [int(probs.argmax()) for probs in labels.kept.values()] == [3, 0, 0, 3]


def test_the_distance_to_labels_is_measured_where_they_are_new(replay):
    labels, agent = labels_of(replay), replay.Agent(some_envs(replay))
    uniform = 0.9 * math.log(7 * 0.9) + 0.1 * math.log(7 * 0.1 / 6)  # an untrained student knows no favourite
    assert keep(replay, labels, agent, [1, 2]) == pytest.approx(uniform, abs=0.1)
    assert len(labels.distances) == 2
    keep(replay, labels, agent, [1, 2, 3])
    assert len(labels.distances) == 3
    assert keep(replay, labels_of(replay), agent, []) is None


def test_label_replay_without_labels_learns_nothing(replay):
    assert labels_of(replay).learn(None, None, lam=1) == {}


def learnable(replay, **flags):
    """An untrained student, its optimizer, and labels of 64 views drawn at random; and those views."""
    torch.manual_seed(0)
    labels = labels_of(replay, **flags)
    agent = replay.Agent(some_envs(replay))
    views = torch.randint(0, 2, (64, *labels.space.shape), dtype=torch.uint8)
    labels.kept = {view.numpy().tobytes(): (3 * torch.randn(7)).softmax(-1) for view in views}
    return agent, torch.optim.Adam(agent.parameters(), lr=1e-3, eps=1e-5), labels, views


def test_replayed_labels_come_closer_and_closer(replay):
    agent, optimizer, labels, _ = learnable(replay, replay_minibatches=20, replay_batch=32)
    first, *_, last = (labels.learn(agent, optimizer, lam=1)["teacher/replay_kl"] for _ in range(5))
    assert last < first / 2  # measured: 0.24 to 0.29 of it


def test_replay_leaves_the_critic_where_it_was():
    """Whether this held depended on a CPU's last floats, after 50 minibatches: those that hold it had just begun."""
    moved = {}
    for vf_coef in (0, 0.5):
        flags = {"replay_minibatches": 200, "replay_batch": 64, "vf_coef": vf_coef}
        agent, optimizer, labels, views = learnable(ppo_replay, **flags)
        before = agent(views)[1].detach()
        labels.learn(agent, optimizer, lam=1)
        moved[vf_coef] = (agent(views)[1].detach() - before).abs().mean()
    assert moved[0.5] < moved[0] / 3  # measured: 0.04 to 0.14 of it


def test_a_run_with_replay_keeps_what_it_bought_and_learns_from_it_again(replay):
    flags = {"replay_minibatches": 20, "replay_batch": 32, "checkpoint_every": 1}
    summary, run_dir = train(replay, ask_share=0.25, learning_rate=0, total_timesteps=256, **flags)
    kept, asked, _ = checkpoint_of(run_dir)["labels"]
    assert 0 < len(kept) <= summary["teacher"]["labels"] == asked  # frames without a label are not kept
    assert torch.allclose(torch.stack([*kept.values()]).sum(-1), torch.ones(len(kept)))

    _, run_dir = train(replay, total_timesteps=256, **flags)
    replayed = scalars_of(run_dir)["teacher/replay_kl"]
    assert len(replayed) == 4
    assert replayed[-1] < 0.8 * replayed[0]  # measured: 0.04 to 0.24 of it


def test_labels_bought_before_a_kill_are_replayed_after_it(replay):
    flags = {"env_id": "MiniGrid-LavaGapS7-v0", "replay_minibatches": 1, "ask_share": 0.5}
    _, run_dir = train(replay, checkpoint_every=1, **flags)
    before, asked_before, _ = checkpoint_of(run_dir)["labels"]
    summary = resume(replay, run_dir, total_timesteps=256)
    after, asked, _ = checkpoint_of(run_dir)["labels"]
    assert before.keys() < after.keys()
    assert asked_before < asked == summary["teacher"]["labels"] <= 128


def test_a_run_is_not_resumed_by_another_script(script):
    _, run_dir = train(script, lam=0, checkpoint_every=1)
    for other in {ppo, a2c, ppo_replay, a2c_replay} - {script}:
        with pytest.raises(UsageError, match=rf"it is a run of algos/{script.ALGO}\.py; resume it with that script"):
            resume(other, run_dir)
