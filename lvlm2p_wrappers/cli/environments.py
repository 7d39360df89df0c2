"""Environments from ids that a user typed: made, run in silence, walked through at random."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import gymnasium as gym

from lvlm2p_wrappers import environments
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.records import EnvInfo, View
from lvlm2p_wrappers.views import EpisodeMemory, OwnView, Viewer, viewer


def make(env_id: str) -> gym.Env[Any, Any]:
    """Make an environment that gives pictures, and reset it once.

    Raises:
        UsageError: if there is no such environment, or it cannot be made here.
    """
    env = environments.make(env_id, render_mode="rgb_array")
    try:
        env.reset(seed=0)
    except OSError as error:  # its files are missing, say
        raise UsageError(f"{env_id} cannot be reset: {error}") from None
    return env


def info_of(env_id: str, own: OwnView) -> EnvInfo:
    """What all views of an environment have in common.

    Args:
        env_id: its id.
        own: what the user has shown and told of it.

    Raises:
        UsageError: if it cannot be made, or no teacher can be asked about it.
    """
    with in_silence(), contextlib.closing(make(env_id)) as env:
        return viewer(env, own).env_info


def in_silence() -> contextlib.AbstractContextManager[Any]:
    """Keep what environments print (BabyAI tells of every layout it rejects) out of a command's output."""
    return contextlib.redirect_stdout(io.StringIO())


class Moment(NamedTuple):
    """An observation of a walk.

    Attributes:
        key: what tells its view from others.
        is_first: whether the view is new in its episode.
        steps: the number of actions that the episode has had.
        view: draws it.
    """

    key: Hashable
    is_first: bool
    steps: int
    view: Callable[[], View]


def walk(env: gym.Env[Any, Any], look: Viewer, seed: int, memory: EpisodeMemory) -> Iterator[Moment]:
    """The observations of a random policy, without an end: where an episode ends, the next one begins.

    Args:
        env: the environment.
        look: draws it.
        seed: of its first reset, and of the policy.
        memory: remembers the pictures and actions that belong to a view.
    """
    in_episode = set[Hashable]()
    env.action_space.seed(seed)
    obs, _ = env.reset(seed=seed)
    while True:
        shown, history = memory.look(look), memory.history
        view = functools.cache(functools.partial(_seen, shown, history, obs))
        state = shown.key()
        key = (view().key() if state is None else state, history)
        yield Moment(key, key not in in_episode, memory.steps, view)
        in_episode.add(key)
        action = env.action_space.sample()
        obs, _, terminated, truncated, _ = env.step(action)
        memory.act(look.env_info.actions[int(action) - int(env.action_space.start)])  # type: ignore[attr-defined]
        if terminated or truncated:
            obs, _ = env.reset()
            memory.begin()
            in_episode.clear()


def _seen(look: Viewer, history: tuple[str, ...], obs: Any) -> View:
    """The view with what a student would see, for teachers that are Python functions."""
    return dataclasses.replace(look.view(history), observation=obs)
