"""Views of the sub-environments of a vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.views.minigrid import TILE, minigrid_view, with_rulers
from lvlm2p_wrappers.views.render import rendered_view
from lvlm2p_wrappers.views.view import EnvInfo
from lvlm2p_wrappers.views.viewer import FrozenView, Viewer, viewer


class VectorViewer(Protocol):
    """Looks at the sub-environments of a vector environment."""

    @property
    def env_info(self) -> EnvInfo:
        """What stays the same from view to view, and from one sub-environment to the next."""

    def look(self, indices: Sequence[int]) -> Sequence[Viewer]:
        """Viewers of these sub-environments' current states."""


class SyncViewer:
    """Looks at the sub-environments of a ``SyncVectorEnv``, one by one."""

    def __init__(self, envs: SyncVectorEnv) -> None:
        self._viewers = [viewer(env) for env in envs.envs]
        self.env_info = self._viewers[0].env_info

    def look(self, indices: Sequence[int]) -> list[Viewer]:
        """The sub-environments' own viewers."""
        return [self._viewers[i] for i in indices]


class WorkerViewer:
    """Looks at the sub-environments of an ``AsyncVectorEnv``: all of them draw at once, each in its own process."""

    def __init__(self, envs: AsyncVectorEnv) -> None:
        self._envs = envs
        env = envs.env_fns[0]()  # one to look at, as AsyncVectorEnv itself makes one for its spaces
        self.env_info = viewer(env).env_info
        self._has_mission = hasattr(env.unwrapped, "mission")
        env.close()

    def look(self, indices: Sequence[int]) -> list[Viewer]:
        """The views of these sub-environments, taken now."""
        if not indices:
            return []
        missions = self._envs.get_attr("mission") if self._has_mission else ("",) * self._envs.num_envs
        if self.env_info.family == "minigrid":
            frames, carried = self._envs.call("get_frame", False, TILE), self._envs.get_attr("carrying")
            return [
                FrozenView(
                    minigrid_view(
                        self.env_info, Picture(with_rulers(self.env_info, frames[i])), missions[i], carried[i]
                    )
                )
                for i in indices
            ]
        frames = self._envs.call("render")
        return [FrozenView(rendered_view(self.env_info, frames[i], missions[i])) for i in indices]


def vector_viewer(envs: gym.vector.VectorEnv[Any, Any, Any]) -> VectorViewer:
    """Choose how to look at the sub-environments of a vector environment.

    Args:
        envs: a ``SyncVectorEnv`` or ``AsyncVectorEnv``, wrapped or not.

    Raises:
        UsageError: if it is of another kind, its action space is not Discrete, or it gives no picture.
    """
    base = envs.unwrapped
    if isinstance(base, SyncVectorEnv):
        return SyncViewer(base)
    if isinstance(base, AsyncVectorEnv):
        return WorkerViewer(base)
    raise UsageError(
        f"{type(base).__name__} gives no access to its sub-environments' pictures. "
        "Use gymnasium's SyncVectorEnv or AsyncVectorEnv."
    )
