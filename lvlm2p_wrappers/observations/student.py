"""An environment as a student of the training scripts sees it."""

from __future__ import annotations

from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.minigrid_env import MiniGridEnv

from lvlm2p_wrappers.environments import make
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.observations import atari
from lvlm2p_wrappers.observations.grid import AgentCentredObservation
from lvlm2p_wrappers.observations.packed import Packed, PackedObservation
from lvlm2p_wrappers.observations.pixels import PixelObservation

Obs = Literal["auto", "grid", "pixels", "env"]
TimeLimit = Literal["auto", "bootstrap", "terminal"]

_MOST_FRAMES = 32


def student_env(
    env_id: str,
    obs: Obs = "auto",
    frame_stack: int | None = None,
    time_limit: TimeLimit = "auto",
    render_mode: str | None = None,
) -> gym.Env[Packed, Any]:
    """Make an environment whose observation is one vector of a :class:`StudentSpace`.

    Its infos have the ``episode`` of ``RecordEpisodeStatistics``; in MiniGrid and BabyAI also ``is_success``, which is
    whether the episode's last reward is above 0. Atari's student sees what :class:`AtariFrames` shows, and the sign of
    each reward; the episode's return stays the game's. ``render()`` gives the picture as it is: it is the teacher's.

    Args:
        env_id: the environment's id.
        obs: ``"grid"`` for MiniGrid's symbols, ``"pixels"`` for the rendered picture, ``"env"`` for the environment's
            own observation; ``"auto"`` is the first in MiniGrid and BabyAI, the second in Atari, else the third.
        frame_stack: how many observations to show at once; None for 4 of Atari's pixels, else 1.
        time_limit: ``"bootstrap"`` if a time limit only cuts an episode off, so that the value goes on behind it;
            ``"terminal"`` if it is part of the task, and so ends an episode as any other end: it is ``terminated``, not
            ``truncated``. ``"auto"`` is the second in MiniGrid and BabyAI, where nothing can be earned after it.
        render_mode: as for ``gym.make``; pixels are always drawn.

    Raises:
        UsageError: if the environment cannot be made, has no Discrete actions, or cannot be shown in this way.

    Example:
        >>> student_env("CartPole-v1").observation_space.shape
        (4,)
        >>> student_env("MiniGrid-Fetch-6x6-N2-v0", obs="pixels").observation_space.parts
        ((64, 64, 3),)
    """
    for name, value, kind in (("obs", obs, Obs), ("time_limit", time_limit, TimeLimit)):
        if value not in get_args(kind):
            raise UsageError(f"{name}={value!r}: give one of {', '.join(get_args(kind))}")
    is_atari = env_id.startswith("ALE/") and obs in {"auto", "pixels"}
    options: dict[str, Any] = dict(atari.OPTIONS) if is_atari else {}
    if obs == "pixels" or render_mode:
        options["render_mode"] = render_mode or "rgb_array"
    env = make(env_id, **options)
    if not isinstance(env.action_space, Discrete):
        raise UsageError(f"{env_id} has the action space {env.action_space}; a student chooses among Discrete actions.")
    if is_atari:
        env = atari.AtariFrames(env)
    env = gym.wrappers.RecordEpisodeStatistics(EpisodeEnds(env, time_limit))
    if is_atari:
        env = gym.wrappers.TransformReward(env, lambda reward: float(np.sign(float(reward))))
        obs = "env"  # these are the picture
    return _observed(env, obs, (4 if is_atari else 1) if frame_stack is None else frame_stack)


def _observed(env: gym.Env[Any, Any], obs: Obs, frames: int) -> gym.Env[Any, Any]:
    """An environment as it is observed in this way."""
    if not 1 <= frames <= _MOST_FRAMES:
        raise UsageError(f"frame_stack={frames}: give a number from 1 to {_MOST_FRAMES}")
    is_grid = isinstance(env.unwrapped, MiniGridEnv)
    if obs == "grid" or (obs == "auto" and is_grid):
        if frames > 1:
            raise UsageError(f"frame_stack={frames}: the symbols of a grid are not stacked; give 1")
        return AgentCentredObservation(env)
    if obs == "pixels":
        env = PixelObservation(env)
    elif is_grid:
        env = OneHotView(env)
    return PackedObservation(env, frames)


class EpisodeEnds(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Says what the end of an episode means: whether a time limit ends it, and in MiniGrid whether it was a success.

    Args:
        env: the environment.
        time_limit: as for :func:`student_env`.
    """

    def __init__(self, env: gym.Env[Any, Any], time_limit: TimeLimit = "auto") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, time_limit=time_limit)
        gym.Wrapper.__init__(self, env)
        self._is_grid = isinstance(env.unwrapped, MiniGridEnv)
        self._is_limit_terminal = time_limit == "terminal" or (time_limit == "auto" and self._is_grid)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self._is_grid and (terminated or truncated):
            info = {"is_success": float(reward) > 0, **info}
        if self._is_limit_terminal:
            terminated, truncated = terminated or truncated, False
        return obs, reward, terminated, truncated, info


class OneHotView(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Shows MiniGrid's own partial view with each number as one-hot: as numbers, types and colours mean nothing.

    Args:
        env: a MiniGrid env.
    """

    _NUMBERS = (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        own: Any = env.observation_space
        view = Box(0, 1, (*own["image"].shape[:2], sum(map(len, self._NUMBERS))), np.uint8)
        self.observation_space = Dict({**own.spaces, "image": view})

    def observation(self, observation: Any) -> Any:
        """Encode the partial view."""
        view = observation["image"]
        encoded = [np.eye(len(numbers), dtype=np.uint8)[view[..., i]] for i, numbers in enumerate(self._NUMBERS)]
        return {**observation, "image": np.concatenate(encoded, -1)}
