"""Teachers that are Python functions: experts that users have, asked without any model."""

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import Teacher, TeacherWrapper, TransportError, UsageError, VectorTeacherWrapper, View
from lvlm2p_wrappers.store import Store, calls
from tests.teacher import experts

HERE = "python:tests.teacher.experts:"


@pytest.fixture(autouse=True)
def _no_calls():
    experts.CALLS.clear()


def cart(**kwargs):
    return gym.make("CartPole-v1", render_mode="rgb_array", **kwargs)


def test_an_expert_that_reads_the_observation_balances_the_pole():
    env = TeacherWrapper(cart(max_episode_steps=150), HERE + "upright")
    (_, info), length, over = env.reset(seed=3), 0, False
    while not over:
        _, _, terminated, over, info = env.step(int(info.get("teacher_probs", np.zeros(2)).argmax()))
        assert not terminated
        length += 1
    assert length == 150
    counted = env.teacher.counters
    assert (counted.labels, counted.calls, counted.cached, counted.cost_usd) == (150, 0, 0, 0.0)


def test_it_is_given_pictures_observation_and_the_names_that_the_prompts_give():
    env = TeacherWrapper(cart(), HERE + "recorded")
    obs, info = env.reset(seed=0)
    assert info["teacher_probs"].tolist() == [1.0, 0.0]
    (view,) = experts.CALLS
    assert view.actions == ("push_left", "push_right")
    assert np.array_equal(view.observation, obs)
    assert np.array_equal(view.picture.pixels, env.render())


def test_it_is_given_a_grids_mission_and_what_the_agent_carries():
    env = TeacherWrapper(gym.make("MiniGrid-Fetch-5x5-N2-v0"), HERE + "recorded")
    obs, _ = env.reset(seed=0)
    (view,) = experts.CALLS
    assert (view.mission, view.carrying, view.actions[2]) == (obs["mission"], "nothing", "forward")
    assert view.observation["image"].shape == (7, 7, 3)


def test_it_may_be_a_method_of_an_object_and_return_an_array():
    env = TeacherWrapper(cart(), HERE + "rules.teach")
    assert env.reset(seed=0)[1]["teacher_probs"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("mode", [gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("is_async", [False, True])
def test_in_a_vector_each_row_is_about_the_observation_that_the_student_acts_on(mode, is_async):
    """A row that is off by one step, or of another environment, is advice for another observation."""
    vector = gym.vector.AsyncVectorEnv if is_async else gym.vector.SyncVectorEnv
    envs = vector([lambda: cart(max_episode_steps=3)] * 2, autoreset_mode=mode)
    envs = VectorTeacherWrapper(envs, HERE + "upright", store=None)
    obs, infos = envs.reset(seed=1)
    rows = 0
    for _ in range(10):
        for one, probs, has in zip(obs, infos["teacher_probs"], infos["_teacher_probs"], strict=True):
            assert not has or probs.argmax() == int(one[2] + one[3] > 0)
            rows += has
        obs, *_, infos = envs.step(envs.action_space.sample())
    envs.close()
    assert rows == (20 if mode is gym.vector.AutoresetMode.SAME_STEP else 16)


def test_deferred_advice_is_of_the_observations_of_the_rollout():
    envs = gym.vector.SyncVectorEnv([cart] * 2, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    envs = VectorTeacherWrapper(envs, HERE + "upright", defer=True)
    obs, seen = envs.reset(seed=1)[0], []
    for _ in range(4):
        seen.append(obs)
        obs, *_ = envs.step(envs.action_space.sample())
    probs, mask = envs.gather()
    assert mask.all()
    assert np.array_equal(probs.argmax(-1), (np.array(seen)[..., 2] + np.array(seen)[..., 3] > 0).astype(int))


def test_what_it_says_is_kept_only_if_it_declares_a_version(tmp_path):
    for name, kept in (("recorded", False), ("versioned", True)):
        experts.CALLS.clear()
        file = tmp_path / f"{name}.sqlite"
        for _ in range(2):
            teacher = Teacher(HERE + name, store=file)
            env = TeacherWrapper(cart(), HERE + name, store=file)
            env.teacher = teacher
            env.reset(seed=0)
        assert len(experts.CALLS) == (1 if kept else 2)
        assert teacher.counters.cached == kept
        assert file.exists() == kept
    assert [row.call.requested_model for row in calls(Store(file))] == [HERE + "versioned"]


def test_another_observation_and_another_version_are_other_questions(tmp_path, monkeypatch):
    def ask(*observations):
        views = [View([np.zeros((64, 64, 3), np.uint8)], ("a", "b"), observation=one) for one in observations]
        Teacher(HERE + "versioned", store=tmp_path / "s.sqlite").label(views)
        return len(experts.CALLS)

    assert ask(0, 0, {"speed": np.zeros(3)}, {"speed": np.zeros(3)}) == 2
    assert ask(0, {"speed": np.ones(3)}) == 3
    monkeypatch.setattr(experts.versioned, "version", "2")
    assert ask(0, 0) == 4


def test_offline_it_is_not_called(tmp_path):
    file = tmp_path / "s.sqlite"
    TeacherWrapper(cart(), HERE + "versioned", store=file).reset(seed=0)
    env = TeacherWrapper(cart(), HERE + "versioned", store=file, offline=True)
    assert env.reset(seed=0)[1]["teacher_probs"].tolist() == [1.0, 0.0]
    with pytest.raises(TransportError, match="offline, and the store has no answer of python:tests"):
        env.reset(seed=1)
    assert len(experts.CALLS) == 1
    with pytest.raises(UsageError, match="offline.*it declares no version"):
        Teacher(HERE + "recorded", store=file, offline=True)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("raising", r"raised KeyError: '' \(experts.py, line \d+\)"),
        ("nan", "push_left is nan, which is not a probability"),
        ("infinite", "push_left is inf, which is not a probability"),
        ("negative", "push_right is -0.5, which is not a probability"),
        ("no_sum", "sum to 0, not to 1"),
        ("too_many", r"returned \[0.2, 0.3, 0.5\]; return a mapping .*, or 2 numbers"),
        ("unknown", "there is no action jump; the actions are push_left, push_right"),
        ("words", 'push_left is "much", not a number'),
        ("nothing", "returned None; return a mapping"),
        ("advice", "returned .*; return a mapping"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_expert_with_a_defect_ends_the_run_in_one_message(name, problem, on_error):
    env = TeacherWrapper(cart(), HERE + name, on_error=on_error)
    with pytest.raises(UsageError, match=problem) as caught:
        env.reset(seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("python:", "names no function: write module:function"),
        ("python:tests.teacher.experts", "names no function: write module:function"),
        ("python:no_such_module:teach", "cannot be imported .ModuleNotFoundError.*PYTHONPATH"),
        ("python:tests.teacher.experts:no_such_expert", "cannot be imported .AttributeError"),
        ("python:tests.teacher.experts:CALLS", "is a list, which cannot be called"),
    ],
)
def test_a_function_that_is_not_there_is_told_before_anything_runs(model, problem):
    with pytest.raises(UsageError, match=problem):
        TeacherWrapper(cart(), model)


def test_no_model_is_asked_in_its_place():
    with pytest.raises(UsageError, match="is a Python function: fallback_models would never be asked"):
        Teacher(HERE + "recorded", fallback_models=["openai/gpt-4o"])
