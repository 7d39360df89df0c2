"""Environments of the families that the package knows, made by their ids alone."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lvlm2p_wrappers import TeacherWrapper, UsageError
from lvlm2p_wrappers.environments import make


def test_crafter_keeps_to_gymnasiums_rules_and_draws_a_large_picture():
    pytest.importorskip("crafter")
    env = gym.make("CrafterReward-v1", render_mode="rgb_array")  # no import of crafter before
    check_env(env.unwrapped, skip_render_check=True)
    first, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    other, _ = env.reset()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    large = env.render().reshape(9, 64, 9, 64, 3).astype(float).mean((1, 3))
    small = other[:63, :63].reshape(9, 7, 9, 7, 3).astype(float).mean((1, 3))
    assert np.abs(large - small).mean() < 8  # the same picture, but for its edges and the noise of the night


def test_crafters_episode_ends_by_death_or_by_its_length():
    pytest.importorskip("crafter")
    env = gym.make("CrafterReward-v1", length=3)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    env = gym.make("CrafterReward-v1")
    env.reset(seed=0)
    env.unwrapped._env._player.health = 0
    assert env.step(0)[2:4] == (True, False)


def test_a_teacher_of_crafter_knows_what_its_actions_are_called():
    pytest.importorskip("crafter")
    env = TeacherWrapper(gym.make("CrafterReward-v1", render_mode="rgb_array"), model="embedded/minigrid-planner")
    assert env.unwrapped.get_action_meanings()[:2] == ["noop", "move_left"]
    env.close()


def test_atari_is_made_without_importing_its_package_before():
    pytest.importorskip("ale_py")
    env = make("ALE/Freeway-v5", render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (210, 160, 3)


@pytest.mark.parametrize(("env_id", "package"), [("ALE/Freeway-v5", "ale_py"), ("CrafterReward-v1", "crafter")])
def test_where_an_extra_is_missing_the_message_names_it(env_id, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "lvlm2p_wrappers.crafter_env", raising=False)
    with pytest.raises(UsageError, match=r"cannot be made: .*pip install 'lvlm2p\[envs\]'"):
        make(env_id)


@pytest.mark.parametrize("env_id", ["Nope-v0", "no_such_module:Nope-v0", ":Nope-v0", "a:b:c"])
def test_an_id_of_no_environment_is_named(env_id):
    with pytest.raises(UsageError, match=env_id):
        make(env_id)
