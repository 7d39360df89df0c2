"""How to look at an environment: the interface, and the choice of what fits."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import gymnasium as gym
from minigrid.minigrid_env import MiniGridEnv

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.views.environment import env_id_of
from lvlm2p_wrappers.views.minigrid import MiniGridViewer
from lvlm2p_wrappers.views.render import RenderViewer
from lvlm2p_wrappers.views.view import EnvInfo, View


class Viewer(Protocol):
    """Looks at one environment."""

    @property
    def env_info(self) -> EnvInfo:
        """What stays the same from view to view."""

    def key(self) -> Hashable | None:
        """Everything the view depends on now, cheaply; None where that is not known."""

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The view of the environment's current state."""


@dataclass(frozen=True)
class FrozenView:
    """A viewer of one view, taken earlier or in a worker process."""

    taken: View

    @property
    def env_info(self) -> EnvInfo:
        """Of the view's environment."""
        return self.taken.env_info

    def key(self) -> None:
        """None: there is no state any more, only its picture."""
        return None

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The view, with other last actions."""
        return replace(self.taken, history=history)


def viewer(env: gym.Env[Any, Any]) -> Viewer:
    """Choose how to look at an environment.

    Args:
        env: an environment with a Discrete action space.

    Raises:
        UsageError: if its action space is not Discrete, or it gives no picture.
    """
    _require_discrete(env.action_space, env_id_of(env))
    return MiniGridViewer(env) if isinstance(env.unwrapped, MiniGridEnv) else RenderViewer(env)


def _require_discrete(space: gym.Space[Any], env_id: str) -> None:
    if not isinstance(space, gym.spaces.Discrete):
        raise UsageError(
            f"{env_id} has the action space {space}; "
            "a teacher gives one probability per action, so it needs a Discrete one."
        )
