"""Stable-Baselines3's PPO and A2C learn from a teacher, without a subclass."""

import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3", reason="the extra sb3 is not installed")

from minigrid.wrappers import ImgObsWrapper, RGBImgObsWrapper
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from lvlm2p_wrappers import UsageError, VectorTeacherWrapper, student_env
from lvlm2p_wrappers.sb3 import TeacherCallback, VecTeacher, distillation_loss
from tests.algos.scripts import ppo, ppo_replay

EMPTY, LAVA, PLANNER = "MiniGrid-Empty-5x5-v0", "MiniGrid-LavaGapS5-v0", "embedded/minigrid-planner"


def flat(env_id=EMPTY):
    """MiniGrid's own partial view as a vector: small, and enough to learn from."""
    env = ImgObsWrapper(gym.make(env_id, render_mode="rgb_array"))
    return Monitor(gym.wrappers.FlattenObservation(env))


def picture():
    return Monitor(ImgObsWrapper(RGBImgObsWrapper(gym.make(EMPTY, render_mode="rgb_array"), tile_size=8)))


class Parts(gym.ObservationWrapper):
    """A Dict observation of numbers."""

    def __init__(self, env):
        super().__init__(env)
        spaces = {"cells": gym.spaces.Box(0, 255, (147,), np.uint8), "direction": gym.spaces.Discrete(4)}
        self.observation_space = gym.spaces.Dict(spaces)

    def observation(self, obs):
        return {"cells": obs["image"].ravel(), "direction": obs["direction"]}


def parts():
    return Monitor(Parts(gym.make(EMPTY, render_mode="rgb_array")))


def taught(make=flat, n=2, **options):
    return VecTeacher(DummyVecEnv([make] * n), PLANNER, **options)


def agreement(model, envs):
    """How often the student's most probable action is one of the teacher's best, on the views of a rollout."""
    obs, same = envs.reset(), []
    envs.is_asking = True
    chosen = []
    for _ in range(40):
        actions, _ = model.predict(obs, deterministic=True)
        chosen.append(actions)
        obs, *_ = envs.step(np.array([envs.action_space.sample() for _ in actions]))
    probs, mask = envs.gather()
    for actions, rows, has in zip(chosen, probs, mask, strict=True):
        same += [row[action] >= row.max() - 0.05 for action, row, ok in zip(actions, rows, has, strict=True) if ok]
    return np.mean(same)


def test_the_loss_is_that_of_the_scripts_on_the_same_batch():
    probs = torch.randn(32, 7).softmax(-1)
    probs[3] = torch.eye(7)[2]
    logprobs, mask = torch.randn(32, 7).log_softmax(-1), torch.rand(32) < 0.7
    for script in (ppo, ppo_replay):
        theirs = script.distillation_loss(probs, logprobs, mask)
        assert distillation_loss(probs, logprobs, mask).item() == pytest.approx(theirs.item(), rel=1e-5)
    assert distillation_loss(probs, logprobs, torch.zeros(32, dtype=torch.bool)) == 0


@pytest.mark.parametrize("kind", [DummyVecEnv, pytest.param(SubprocVecEnv, marks=pytest.mark.slow)])
def test_each_label_belongs_to_the_observation_that_its_action_was_chosen_from(kind):
    venv = VecTeacher(kind([lambda: flat(LAVA)] * 2), PLANNER)
    venv.seed(5)
    obs = venv.reset()
    seen = []
    actions = np.random.default_rng(0).integers(0, 3, (40, 2))
    for row in actions:
        seen.append(obs)
        obs, _, dones, infos = venv.step(row)
        assert all(("terminal_observation" in info) == done for info, done in zip(infos, dones, strict=True))
    probs, mask = venv.gather()
    assert mask.all()
    envs = gym.vector.SyncVectorEnv([lambda: flat(LAVA)] * 2, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    envs = VectorTeacherWrapper(envs, PLANNER, defer=True)
    obs, _ = envs.reset(seed=[5, 6])
    for row, before in zip(actions, seen, strict=True):
        assert np.array_equal(obs, before)
        obs, *_ = envs.step(row)
    theirs, _ = envs.gather()
    assert np.array_equal(probs, theirs)
    venv.close()
    envs.close()


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [(PPO, {"n_steps": 32, "batch_size": 64, "n_epochs": 2}), (A2C, {"n_steps": 32})],
    ids=["PPO", "A2C"],
)
def test_a_student_comes_to_agree_with_its_teacher(algorithm, options):
    envs = taught()
    model = algorithm("MlpPolicy", envs, seed=1, device="cpu", **options)
    before = agreement(model, envs)
    callback = TeacherCallback(replay_batch=64)
    model.learn(640, callback=callback)
    assert callback.labels > 10
    assert agreement(model, envs) > max(0.7, before)


@pytest.mark.parametrize(("policy", "make"), [("CnnPolicy", picture), ("MultiInputPolicy", parts)])
def test_pictures_and_dicts_are_learnt_from(policy, make):
    model = PPO(policy, taught(make), n_steps=16, batch_size=32, n_epochs=1, seed=1, device="cpu")
    callback = TeacherCallback(replay_batch=16, replay_ratio=2)
    model.learn(64, callback=callback)
    assert callback.labels > 3


def test_the_scripts_observation_fits_as_well():
    venv = DummyVecEnv([lambda: student_env("FrozenLake-v1", render_mode="rgb_array")] * 2)
    model = PPO(
        "MlpPolicy", VecTeacher(venv, "python:tests.test_sb3:go_right"), n_steps=32, batch_size=64, device="cpu"
    )
    model.learn(256, callback=TeacherCallback(replay_batch=32))
    rows = torch.eye(16)
    assert (model.policy.get_distribution(rows).distribution.probs[:4, 2] > 0.5).all()


def go_right(view):
    return {"right": 1.0} if "right" in view.actions else {view.actions[2]: 1.0}


def test_once_the_weight_is_0_nothing_is_asked():
    envs = taught()
    model = PPO("MlpPolicy", envs, n_steps=16, batch_size=32, n_epochs=1, device="cpu")
    callback = TeacherCallback(lam=0)
    model.learn(64, callback=callback)
    assert envs.teacher.counters.calls == callback.labels == 0


def test_ask_every_asks_about_every_kth_observation_of_an_episode():
    envs = taught(ask_every=4)
    envs.reset()
    for _ in range(8):
        envs.step(np.zeros(2, dtype=np.int64))
    _, mask = envs.gather()
    assert mask.sum(0).tolist() == [2, 2]
    assert mask[0].all()
    assert mask[4].all()


def test_a_model_is_saved_and_loaded_in_a_fresh_process(tmp_path):
    envs = taught()
    model = PPO("MlpPolicy", envs, n_steps=16, batch_size=32, n_epochs=1, device="cpu")
    model.learn(32, callback=TeacherCallback())
    model.save(tmp_path / "model.zip")
    obs = np.zeros((1, 147), np.uint8)
    code = (
        "import sys, json, numpy as np\nfrom stable_baselines3 import PPO\n"
        "model = PPO.load('model.zip', device='cpu')\n"
        "print(json.dumps(int(model.predict(np.zeros((1, 147), np.uint8), deterministic=True)[0][0])))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == int(model.predict(obs, deterministic=True)[0][0])
    again = PPO.load(tmp_path / "model.zip", env=taught(), device="cpu")
    again.learn(32, callback=TeacherCallback())


def test_what_cannot_work_is_told_in_one_sentence():
    plain = DummyVecEnv([flat])
    with pytest.raises(UsageError, match="TeacherCallback needs an environment inside VecTeacher"):
        PPO("MlpPolicy", plain, n_steps=8, batch_size=8, device="cpu").learn(8, callback=TeacherCallback())
    with pytest.raises(UsageError, match="goes with PPO and A2C; DQN keeps no rollouts"):
        DQN("MlpPolicy", taught(n=1), device="cpu").learn(8, callback=TeacherCallback())
    for wrong in ({"lam": -1}, {"patience": float("nan")}, {"label_temperature": 0.0}, {"replay_batch": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            TeacherCallback(**wrong)
    with pytest.raises(UsageError, match="ask_every must be at least 1"):
        taught(ask_every=0)
    with pytest.raises(UsageError, match="render_mode"):
        VecTeacher(DummyVecEnv([lambda: gym.make("CartPole-v1")]), PLANNER)
