"""The rendered picture as observation."""

from __future__ import annotations

import string
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Text
from minigrid.core.mission import MissionSpace
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray
from PIL import Image

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.observations.grid import without_partial_view

Pixels = NDArray[np.uint8]


class PixelObservation(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Shows the rendered picture, in one small size, and the texts that no picture shows.

    The observation is a Dict: ``picture``, and each text of the environment's own observation under its name. MiniGrid
    and BabyAI are drawn cell by cell, in tiles as large as the size allows, and what the agent carries is a text.

    Args:
        env: an environment made with ``render_mode="rgb_array"``; MiniGrid's need none.
        size: of the picture's sides, in pixels.

    Raises:
        UsageError: if the environment gives no picture.

    Example:
        >>> import gymnasium as gym, minigrid
        >>> env = PixelObservation(gym.make("MiniGrid-Fetch-6x6-N2-v0"))
        >>> obs, info = env.reset(seed=0)
        >>> obs["picture"].shape, obs["carrying"]
        ((64, 64, 3), 'nothing')
        >>> "mission" in obs
        True
    """

    def __init__(self, env: gym.Env[Any, Any], size: int = 64) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, size=size)
        gym.ObservationWrapper.__init__(self, env)
        self._size, self._base = size, env.unwrapped
        self._drawn: tuple[int, ...] = ()
        space = env.observation_space
        own = space.spaces if isinstance(space, Dict) else {"text": space}
        self._texts = {name: inner for name, inner in own.items() if isinstance(inner, Text | MissionSpace)}
        self._has_tiles = isinstance(self._base, MiniGridEnv) and all(
            getattr(type(self._base), method) is getattr(MiniGridEnv, method)
            for method in ("render", "get_frame", "get_full_render")
        )
        if isinstance(self._base, MiniGridEnv):
            without_partial_view(self._base)
            self._texts["carrying"] = Text(32, charset=f"{string.ascii_lowercase} ")
        if not self._has_tiles and env.render_mode != "rgb_array":
            raise UsageError(
                f"{_name(env)} gives no picture: it was made with render_mode={env.render_mode!r}. "
                "Make it with render_mode='rgb_array'."
            )
        self.observation_space = Dict({"picture": Box(0, 255, (size, size, 3), np.uint8), **self._texts})

    def observation(self, observation: Any) -> dict[str, Any]:
        """Draw the environment's present state."""
        own = observation if isinstance(observation, dict) else {"text": observation}
        shown = {name: own[name] for name in self._texts if name in own}
        if isinstance(self._base, MiniGridEnv):
            held = self._base.carrying
            shown["carrying"] = f"{held.color} {held.type}" if held else "nothing"
        picture = self._tiles(self._base) if self._has_tiles else self._resized(self.env.render())
        return {"picture": picture, **shown}

    def _tiles(self, grid_env: Any) -> Pixels:
        """The grid in whole tiles, with a black margin below and on the right."""
        tile = max(self._size // max(grid_env.width, grid_env.height), 1)
        frame = grid_env.grid.render(tile, grid_env.agent_pos, grid_env.agent_dir)[: self._size, : self._size]
        picture = np.zeros((self._size, self._size, 3), np.uint8)
        picture[: frame.shape[0], : frame.shape[1]] = frame
        return picture

    def _resized(self, frame: Any) -> Pixels:
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
            kind = f"{frame.dtype} of shape {frame.shape}" if frame.ndim else f"{frame[()]!r}"
            raise UsageError(f"{_name(self)} draws {kind}: a picture is uint8 of shape (height, width, 3)")
        self._drawn = self._drawn or frame.shape
        if self._drawn != frame.shape:
            (height, width, _), (was_height, was_width, _) = frame.shape, self._drawn
            message = f"{_name(self)} draws {width}x{height} pixels, and drew {was_width}x{was_height} before"
            raise UsageError(f"{message}: a student needs pictures of one size")
        size = (self._size, self._size)
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))  # each pixel counts once


def _name(env: gym.Env[Any, Any]) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__
