"""The pictures that show what teacher and student make of a view."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from lvlm2p_wrappers import VectorTeacherWrapper
from lvlm2p_wrappers.advice_panel import draw_sample

TEACHER, STUDENT = (0x2A, 0x7F, 0x62), (0x3B, 0x6E, 0xA5)
BLACK = np.zeros((64, 64, 3), np.uint8)


def bars(sample, colour):
    """The length of each bar of a colour, from the top to the bottom."""
    lengths = (np.all(sample[20:] == colour, axis=-1)).sum(axis=1)
    starts = np.flatnonzero((lengths > 0) & (np.r_[0, lengths[:-1]] == 0))
    return [int(lengths[start]) for start in starts]


def test_bars_are_as_long_as_the_probabilities():
    sample = draw_sample(BLACK, ["left", "right"], np.float32([0.8, 0.2]), np.float32([0.5, 0.5]))
    long, short = bars(sample, TEACHER)
    assert long / short == pytest.approx(4, rel=0.1)
    left, right = bars(sample, STUDENT)
    assert left == right


def test_without_advice_there_are_no_bars_of_the_teacher():
    sample = draw_sample(BLACK, ["left", "right"], None, np.float32([0.5, 0.5]))
    assert bars(sample, TEACHER) == []
    assert len(bars(sample, STUDENT)) == 2


def test_pictures_of_any_shape_and_many_actions_fit():
    names = [f"action {i} with a long name" for i in range(18)]
    for shape in ((400, 600, 3), (210, 160, 3), (40, 300, 3)):
        sample = draw_sample(np.zeros(shape, np.uint8), names, None, np.full(18, 1 / 18, np.float32))
        assert sample.shape[0] == 224
        assert sample.dtype == np.uint8


def taught(**arguments):
    makers = [lambda: gym.make("MiniGrid-Empty-5x5-v0")] * 3
    envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    return VectorTeacherWrapper(envs, "embedded/minigrid-planner", defer=True, store=None, **arguments)


def test_a_vector_env_draws_its_first_views():
    envs = taught()
    envs.reset(seed=0)
    before = envs.teacher.counters
    picture = envs.samples(np.full((3, 7), 1 / 7), most=2)
    one = envs.samples(np.full((3, 7), 1 / 7), most=1)
    assert picture.shape == (2 * one.shape[0], *one.shape[1:])
    assert np.array_equal(picture[: len(one)], one)
    assert bars(one, TEACHER)
    assert (envs.teacher.counters - before).labels == 0, "a picture is no label"
    envs.close()


def test_nothing_is_asked_for_a_picture():
    """Pictures bought labels that the share of views to be asked about did not allow."""
    envs = taught(ask="manual")
    envs.reset(seed=0)
    student = np.full((3, 7), 1 / 7)
    assert not bars(envs.samples(student, most=1), TEACHER)
    envs.ask(np.array([False, False, True]))
    assert bars(envs.samples(student, most=1), TEACHER), "views that were asked about come first"
    assert envs.teacher.counters.distinct_views == 1
    envs.close()
