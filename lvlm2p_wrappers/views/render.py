"""Draws any other environment, by its own ``render()``."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import EnvInfo, View, rgb
from lvlm2p_wrappers.views.environment import action_names, env_id_of


class RenderViewer:
    """Shows an environment as its own ``render()`` draws it.

    Args:
        env: the environment.
        is_drawn: whether it will be asked for its picture.
    """

    def __init__(self, env: gym.Env[Any, Any], *, is_drawn: bool = True) -> None:
        self.env_info = EnvInfo(env_id_of(env), "default", action_names(env))
        self._env = env
        if is_drawn and env.render_mode != "rgb_array":
            env_id = self.env_info.env_id
            raise UsageError(
                f"{env_id} gives no picture: it was made with render_mode={env.render_mode!r}. "
                f"Make it with gym.make({env_id!r}, render_mode='rgb_array')."
            )

    def key(self) -> None:
        """None: the picture has to be drawn to know whether the state is new."""
        return None

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The rendered frame, and the mission where the environment has one."""
        return self.view_of(Picture(rgb(self.env_info.env_id, self._env.render())), history)

    def view_of(self, picture: Picture, history: tuple[str, ...] = ()) -> View:
        """The same with another picture."""
        return rendered_view(self.env_info, picture, getattr(self._env.unwrapped, "mission", ""), history)


def rendered_view(env_info: EnvInfo, picture: Picture, mission: Any, history: tuple[str, ...] = ()) -> View:
    """The view of an environment that has drawn this picture."""
    env_id, family, actions = env_info
    return View((picture,), actions, str(mission), history=history, env_id=env_id, family=family)
