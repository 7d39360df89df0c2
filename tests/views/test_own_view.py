"""Pictures and facts of a user's own, in place of what the environment draws and besides what its viewer tells."""

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import Teacher, TeacherWrapper, UsageError, VectorTeacherWrapper
from tests.teacher import experts

LARGE, FACTS = "tests.teacher.experts:large", "tests.teacher.experts:steps_left"
RECORDED = "python:tests.teacher.experts:recorded"
MODEL = "openai/gpt-4o-mini"


def cart():
    return gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=3)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MiniGrid-Empty-5x5-v0"])
def test_a_model_is_shown_and_told_what_the_functions_give_in_both_stages(provider, env_id):
    env = TeacherWrapper(gym.make(env_id), MODEL, store=None, render=LARGE, facts=FACTS)
    env.reset(seed=0)
    assert [len(exchange.seen.pictures) for exchange in provider.log] == [1, 1]
    for exchange in provider.log:
        text = exchange.seen.turns[-1].text
        assert "\nWind: none\n" in "\n" + text
        assert "Pole's length: 0.5\n" in text
    picture = provider.log[0].seen.pictures[0]
    assert int.from_bytes(picture[16:20]) == 640, "the width in the PNG's header"


def test_an_environment_needs_no_picture_where_the_user_draws_one(provider):  # noqa: ARG001
    with pytest.raises(UsageError, match="gives no picture"):
        TeacherWrapper(gym.make("CartPole-v1"), MODEL, store=None)
    TeacherWrapper(gym.make("CartPole-v1"), MODEL, store=None, render=LARGE).reset(seed=0)


def test_other_facts_are_another_question(provider, monkeypatch):
    monkeypatch.setattr(experts, "wind", lambda _: {}, raising=False)
    env = TeacherWrapper(gym.make("MiniGrid-Empty-5x5-v0"), MODEL, facts="tests.teacher.experts:wind")
    for wind in ("weak", "weak", "strong"):
        monkeypatch.setattr(experts, "wind", lambda _, wind=wind: {"Wind": wind}, raising=False)
        env.reset(seed=0)
    assert len(provider.log) == 4


@pytest.mark.parametrize("mode", [gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("vector", [gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv])
def test_every_row_of_a_vector_has_the_picture_and_the_facts_of_its_own_state(mode, vector):
    experts.CALLS.clear()
    envs = VectorTeacherWrapper(vector([cart] * 2, autoreset_mode=mode), RECORDED, render=LARGE, facts=FACTS)
    envs.reset(seed=1)
    for _ in range(6):
        envs.step(envs.action_space.sample())
    envs.close()
    assert len(experts.CALLS) >= 12
    for view in experts.CALLS:
        assert view.facts == {"Pole's length": "0.5", "Wind": "none", "State": "True"}
        assert view.picture.pixels.shape == (320, 640, 3)
        assert view.picture.pixels[0, 0, 0] == int(abs(view.observation[0]) * 1e4) % 256


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"render": "tests.teacher.experts:small"}, r"shape \(8, 8, 3\).*at least 32x32 pixels"),
        ({"render": "tests.teacher.experts:raising"}, r"render .* raised AttributeError.*\(experts.py, line \d+\)"),
        ({"facts": "tests.teacher.experts:a_list"}, r"returned \['windy'\]; return named strings"),
        ({"facts": "tests.teacher.experts:raising"}, "facts .* raised AttributeError"),
    ],
)
@pytest.mark.parametrize("vector", [None, gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv])
def test_a_function_with_a_defect_ends_in_one_message(option, problem, vector):
    if vector is None:
        env = TeacherWrapper(cart(), RECORDED, **option)
    else:
        mode = gym.vector.AutoresetMode.SAME_STEP
        env = VectorTeacherWrapper(vector([cart], autoreset_mode=mode), RECORDED, **option)
    with pytest.raises(UsageError, match=problem):
        env.reset(seed=0)
    env.close()


@pytest.mark.parametrize("option", ["render", "facts"])
def test_a_function_that_is_not_there_is_told_by_its_option(option):
    with pytest.raises(UsageError, match=f"{option} 'nowhere:draw' cannot be imported"):
        Teacher(RECORDED, **{option: "nowhere:draw"})


def test_an_environment_with_them_is_made_again_from_its_spec():
    env = TeacherWrapper(cart(), RECORDED, render=LARGE, facts=FACTS)
    again = gym.make(env.spec)
    assert again.teacher is env.teacher
    assert np.array_equal(again.reset(seed=4)[1]["teacher_probs"], env.reset(seed=4)[1]["teacher_probs"])
