"""Viewers, which draw an environment's current state as a view: their interface, and the choice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

import gymnasium as gym
from minigrid.minigrid_env import MiniGridEnv

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.records import EnvInfo, View
from lvlm2p_wrappers.views.environment import env_id_of
from lvlm2p_wrappers.views.minigrid import MiniGridViewer
from lvlm2p_wrappers.views.own_view import PLAIN, OwnView, OwnViewer
from lvlm2p_wrappers.views.render import RenderViewer


class Viewer(Protocol):
    """Draws the views of one environment. A view that is already drawn is a viewer, too."""

    @property
    def env_info(self) -> EnvInfo:
        """What all its views have in common."""

    def key(self) -> Hashable | None:
        """The state as far as the view depends on it, without rendering; None where that is not known."""

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The view of the environment's current state, told these last actions."""


def viewer(env: gym.Env[Any, Any], own: OwnView = PLAIN) -> Viewer:
    """Choose the viewer of an environment.

    Args:
        env: the environment.
        own: what the user has it show and tell.

    Raises:
        UsageError: if its action space is not Discrete, a wrapper changes its actions, or it gives no picture.
    """
    if not isinstance(env.action_space, gym.spaces.Discrete):
        raise UsageError(
            f"{env_id_of(env)} has the action space {env.action_space}; "
            "a teacher gives one probability per action, so it needs a Discrete one."
        )
    is_grid = isinstance(env.unwrapped, MiniGridEnv)
    look = MiniGridViewer(env) if is_grid else RenderViewer(env, is_drawn=own.render is None)
    return look if own == PLAIN else OwnViewer(env, look, own)
