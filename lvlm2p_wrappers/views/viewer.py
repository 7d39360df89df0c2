"""Viewers, which draw an environment's current state as a view: their interface, the plain one, and the choice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

import gymnasium as gym
from minigrid.minigrid_env import MiniGridEnv

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import EnvInfo, View, rgb
from lvlm2p_wrappers.views.environment import action_names, env_id_of
from lvlm2p_wrappers.views.minigrid import MiniGridViewer


class Viewer(Protocol):
    """Draws the views of one environment. A view that is already drawn is a viewer, too."""

    @property
    def env_info(self) -> EnvInfo:
        """What all its views have in common."""

    def key(self) -> Hashable | None:
        """The state as far as the view depends on it, without rendering; None where that is not known."""

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The view of the environment's current state, told these last actions."""


class RenderViewer:
    """Shows an environment as its own ``render()`` draws it."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env_info = EnvInfo(env_id_of(env), "default", action_names(env))
        self._env = env
        if env.render_mode != "rgb_array":
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
        return rendered_view(self.env_info, self._env.render(), getattr(self._env.unwrapped, "mission", ""), history)


def rendered_view(env_info: EnvInfo, frame: Any, mission: Any, history: tuple[str, ...] = ()) -> View:
    """The view of an environment that has drawn this frame."""
    env_id, family, actions = env_info
    picture = Picture(rgb(env_id, frame))
    return View((picture,), actions, str(mission), history=history, env_id=env_id, family=family)


def viewer(env: gym.Env[Any, Any]) -> Viewer:
    """Choose the viewer of an environment.

    Raises:
        UsageError: if its action space is not Discrete, a wrapper changes its actions, or it gives no picture.
    """
    if not isinstance(env.action_space, gym.spaces.Discrete):
        raise UsageError(
            f"{env_id_of(env)} has the action space {env.action_space}; "
            "a teacher gives one probability per action, so it needs a Discrete one."
        )
    return MiniGridViewer(env) if isinstance(env.unwrapped, MiniGridEnv) else RenderViewer(env)
