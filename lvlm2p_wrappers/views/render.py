"""Views of any environment that draws itself."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.picture import Picture, Pixels
from lvlm2p_wrappers.views.environment import action_names, env_id_of
from lvlm2p_wrappers.views.view import EnvInfo, View

SMALLEST = 32
"""Pixels along a side of the smallest picture that a teacher is shown."""


class RenderViewer:
    """Looks at any environment through its own ``render()``."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env_info = EnvInfo(env_id_of(env), "default", action_names(env))
        self._env = env
        _require_rgb(env.render_mode, self.env_info.env_id)

    def key(self) -> None:
        """Nothing is known of the state; the picture has to be drawn to know whether it is new."""
        return None

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The rendered frame, and the mission where the environment has one."""
        return rendered_view(self.env_info, self._env.render(), getattr(self._env.unwrapped, "mission", ""), history)


def rendered_view(env_info: EnvInfo, frame: Any, mission: Any, history: tuple[str, ...] = ()) -> View:
    """The view of an environment that has drawn this frame."""
    return View(env_info, Picture(rgb(env_info, frame)), str(mission), history=history)


def rgb(env_info: EnvInfo, frame: Any) -> Pixels:
    """A frame as a uint8 RGB array of its own.

    Raises:
        UsageError: if it is no picture.
    """
    pixels = np.array(frame)  # a copy: the next frame may be drawn into the same array, before this one is sent
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape[:2]) < SMALLEST:
        raise UsageError(
            f"{env_info.env_id} draws an array of shape {pixels.shape} and dtype {pixels.dtype}; a teacher needs a "
            f"uint8 RGB picture of at least {SMALLEST}x{SMALLEST} pixels, as render_mode='rgb_array' promises."
        )
    return pixels


def _require_rgb(render_mode: str | None, env_id: str) -> None:
    if render_mode != "rgb_array":
        raise UsageError(
            f"{env_id} gives no picture: it was made with render_mode={render_mode!r}. "
            f"Make it with gym.make({env_id!r}, render_mode='rgb_array')."
        )
