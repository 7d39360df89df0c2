"""Students of environments that are not MiniGrid's: what they see, when their value goes on, how they are evaluated."""

import json
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Text

from lvlm2p_wrappers import read_labels, student_env
from tests.algos.scripts import (
    a2c,
    a2c_replay,
    called,
    checkpoint_of,
    curve_of,
    episodes_of,
    evaluate,
    ppo,
    ppo_replay,
    resume,
    student_of,
    train,
)


class Corridor(gym.Env):
    """A corridor of four fields, walked from its left end; its actions begin at 3, its walls are seen and told."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode, self.action_space = render_mode, Discrete(2, start=3)
        spaces = {"camera": Box(0, 255, (32, 64, 3), np.uint8), "task": Text(30), "at": Box(-1, 9, (1,), np.float32)}
        self.observation_space = Dict(spaces)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.at = 0
        return self.seen(), {}

    def step(self, action):
        assert action in self.action_space
        self.at = max(self.at + (1 if action == 4 else -1), 0)
        return self.seen(), float(self.at == 3), self.at == 3, False, {}

    def seen(self):
        return {"camera": self.render(), "task": "walk to the right", "at": np.array([self.at], np.float32)}

    def render(self):
        picture = np.zeros((32, 64, 3), np.uint8)
        picture[:, 16 * self.at : 16 * self.at + 16] = 255
        return picture


@pytest.fixture(autouse=True)
def corridor():
    gym.register("Corridor-v0", Corridor, max_episode_steps=8)
    yield
    del gym.registry["Corridor-v0"]


def to_the_right(view):
    """A teacher that is a function: it reads the student's observation."""
    return {view.actions[1]: 0.9, view.actions[0]: 0.1}


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (ppo, {"env_id": "FrozenLake-v1"}),
        (a2c, {"env_id": "CartPole-v1", "frame_stack": 2}),
        (ppo_replay, {"env_id": "MiniGrid-Empty-5x5-v0", "obs": "env"}),
        (a2c_replay, {"env_id": "Corridor-v0"}),
        (ppo, {"env_id": "Corridor-v0", "obs": "pixels"}),
    ],
    ids=lambda value: value.get("env_id") if isinstance(value, dict) else value.ALGO,
)
def test_a_student_trains_in_any_env_with_discrete_actions(script, flags):
    summary, run_dir = train(script, lam=0, **flags)
    assert (summary["env_id"], summary["global_step"]) == (flags["env_id"], 128)
    assert all(weights.isfinite().all() for weights in student_of(run_dir).values())


@pytest.mark.parametrize(("env_id", "package"), [("ALE/Freeway-v5", "ale_py"), ("CrafterReward-v1", "crafter")])
def test_a_student_trains_in_atari_and_in_crafter(env_id, package):
    pytest.importorskip(package)
    summary, _ = train(a2c, lam=0, env_id=env_id, num_steps=8, total_timesteps=32)
    assert (summary["env_id"], summary["global_step"]) == (env_id, 32)


def test_a_student_of_pixels_learns_from_its_teacher_and_again_from_the_labels_it_keeps(replay):
    summary, run_dir = train(replay, obs="pixels", lam=1, store=None, replay_minibatches=2, replay_batch=16)
    assert (summary["teacher"]["labels"], summary["teacher"]["bad_replies"]) == (128, 0)
    first, *_, last = (float(row["kl"]) for row in curve_of(run_dir))
    assert last < first


def test_a_teacher_that_is_a_function_teaches_in_an_env_of_ones_own():
    summary, run_dir = train(
        a2c_replay, env_id="Corridor-v0", lam=1, model=f"python:{__name__}:to_the_right", store=None, success_return=1,
        replay_minibatches=8, replay_batch=32, total_timesteps=1024, checkpoint_every=1,
    )  # fmt: skip
    assert summary["teacher"]["labels"] == 1024
    assert summary["success_100"] == summary["mean_return_100"] > 0.9
    again = resume(a2c_replay, run_dir, total_timesteps=1088)  # with kept labels of floats
    assert again["global_step"] == 1088


def test_with_ask_every_only_every_so_many_frames_of_each_env_have_a_label(script):
    flags = {"env_id": "Corridor-v0", "model": f"python:{__name__}:to_the_right", "store": None, "num_steps": 32}
    labels = [train(script, lam=1, **flags, ask_every=every)[0]["teacher"]["labels"] for every in (1, 8)]
    # The wrapper of the paper's scripts counts from each episode's beginning, and an episode here is short.
    assert labels[0] == 128
    assert 128 / 8 <= labels[1] <= (128 / 8 if script.ALGO.endswith("replay") else 128 / 2)


def test_without_a_return_to_reach_no_success_is_reported_where_infos_say_none():
    summary, run_dir = train(ppo, env_id="Corridor-v0", lam=0, total_timesteps=1536, num_steps=128)
    assert summary["episodes"] >= 100
    assert (summary["success_100"], {row["success"] for row in episodes_of(run_dir)}) == (None, {""})


# Where the time limit is no end


def rewards_of(script, time_limit):
    """The rewards of eight steps at the left end of a corridor, and what the critic says of it."""
    torch.manual_seed(0)
    args = script.Args(env_id="Corridor-v0", lam=0, num_envs=2, num_steps=8, time_limit=time_limit, gamma=0.9)
    envs = script.make_envs(args, "run")
    agent = script.Agent(envs)
    agent.get_action_and_value = lambda _: (torch.zeros(2, dtype=int), *[torch.zeros(2)] * 3, None)
    run = SimpleNamespace(step=lambda *_: None, global_step=0)
    start, done = torch.as_tensor(envs.reset(seed=[1, 2])[0]), torch.zeros(2)
    rest = (8, args, run, lambda *_: None) if script.ALGO.endswith("replay") else (args, run)
    rollout, _, next_done = script.collect(agent, envs, start, done, *rest)
    assert next_done.tolist() == [1, 1]
    return rollout.rewards, agent(start)[1].detach()


def test_a_value_goes_on_behind_a_time_limit_unless_that_is_part_of_the_task(script):
    """CartPole's time limit counted as a fall: at each one the critic learnt that nothing comes any more."""
    rewards, value = rewards_of(script, "auto")
    assert not rewards[:-1].any()
    torch.testing.assert_close(rewards[-1], 0.9 * value)
    assert (value.abs() > 1e-3).all()
    assert not rewards_of(script, "terminal")[0].any()


# The network follows the shapes


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 255, (16, 16), np.uint8),
        Box(0, 255, (17, 90, 3), np.uint8),
        Box(0, 255, (210, 160, 3), np.uint8),
        Box(-np.inf, np.inf, (3,), np.float64),
        Dict(
            {"left": Box(0, 255, (64, 64, 3), np.uint8), "right": Box(0, 255, (40, 40, 1), np.uint8), "n": Discrete(5)}
        ),
    ],
    ids=str,
)
def test_the_network_takes_pictures_of_all_sizes_vectors_and_several_of_them(space, script):
    env = gym.make("Corridor-v0").unwrapped
    env.observation_space, env.seen = space, space.sample
    gym.register("Shapes-v0", lambda **_: env)
    envs = gym.vector.SyncVectorEnv([lambda: student_env("Shapes-v0")])
    del gym.registry["Shapes-v0"]
    agent = script.Agent(envs)
    obs = torch.as_tensor(np.stack([envs.reset()[0][0] for _ in range(3)]))
    logprobs, value = agent(obs)
    assert (logprobs.shape, value.shape) == ((3, 2), (3,))
    assert logprobs.isfinite().all()
    # Each part counts: no other observation has these values.
    for part in range(len(agent.sizes)):
        start = sum(agent.sizes[:part])
        changed = obs.clone()
        changed[:, start : start + agent.sizes[part]] = 1
        if agent.sizes[part]:
            assert (agent(changed)[1] - value).abs().max() > 0


# Label sets


LABEL_SET = Path(__file__).parents[2] / "benchmarks/label_sets/MiniGrid-LavaGapS7-v0"


def test_a_label_set_is_learnt_from_before_the_first_frame(replay):
    pytest.importorskip("pyarrow", reason="label sets need the extra `labels`")
    flags = {"env_id": "MiniGrid-LavaGapS7-v0", "store": None, "offline": True, "lam": 1, "replay_batch": 64}
    flags |= {"replay_minibatches": 16, "label_temperature": 0.5, "total_timesteps": 64}
    _, run_dir = train(replay, **flags, labels=str(LABEL_SET), checkpoint_every=1)
    kept = checkpoint_of(run_dir)["labels"][0]
    assert len(kept) == len(read_labels(LABEL_SET))
    (probs,) = read_labels(LABEL_SET).probs[:1] ** 2  # sharpened as the labels of a teacher are
    torch.testing.assert_close(next(iter(kept.values())), torch.as_tensor(probs / probs.sum()))
    _, without = train(replay, **flags)
    envs = replay.make_envs(replay.Args(lam=0), "run")
    obs, probs = map(torch.tensor, read_labels(LABEL_SET).for_student(envs))
    agreement = []
    for folder in (run_dir, without):
        agent = replay.Agent(envs)
        agent.load_state_dict(student_of(folder))
        agreement.append((agent(obs)[0].argmax(-1) == probs.argmax(-1)).float().mean().item())
    assert agreement[0] > 0.8 > 0.5 > agreement[1]


# Without a teacher


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [{"env_id": "Corridor-v0"}, {"env_id": "CartPole-v1"}, {"env_id": "MiniGrid-Empty-5x5-v0", "obs": "pixels"}],
    ids=lambda flags: flags["env_id"],
)
def test_any_student_is_evaluated_and_its_onnx_file_says_how_it_sees(flags):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, run_dir = train(ppo, lam=0, **flags)
    evaluate.main(evaluate.Args(run_dir, episodes=3))
    found = json.loads((run_dir / "student.json").read_text())
    assert (found["greedy"]["success"] is None) == (flags["env_id"] != "MiniGrid-Empty-5x5-v0")
    session = onnxruntime.InferenceSession(run_dir / "student.onnx", providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert about == {"frame_stack": "None", "obs": "auto", "time_limit": "auto"} | flags
    env = student_env(about["env_id"], about["obs"])
    obs, _ = env.reset(seed=5)
    (logits,) = session.run(None, {"obs": np.stack([obs] * 3)})
    _, _, agent = evaluate.load_student(run_dir, trust=False)
    with torch.no_grad():
        logprobs, _ = agent(torch.as_tensor(obs)[None].repeat(3, 1))
    np.testing.assert_allclose(torch.as_tensor(logits).log_softmax(-1), logprobs, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--obs", "grid"], "Corridor-v0 is not a MiniGrid env"),
        (["--frame-stack", 99], "frame_stack=99: give a number from 1 to 32"),
        (["--render", "no_such:picture", "--lam", 1], "no_such:picture"),
        (["--facts", "no_such:facts", "--lam", 1], "no_such:facts"),
        (["--model", "python:no_such:teacher", "--lam", 1], "no_such:teacher"),
    ],
)
def test_a_mistake_about_an_own_env_is_told_in_one_message(monkeypatch, capsys, flags, says):
    code, message = called(ppo, monkeypatch, capsys, "--env-id", "Corridor-v0", "--lam", 0, *flags)
    assert code == 2
    assert says in message
    assert "Traceback" not in message
