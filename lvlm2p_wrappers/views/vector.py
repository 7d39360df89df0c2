"""Viewers of the sub-environments of a vector environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import EnvInfo
from lvlm2p_wrappers.views.environment import refuse_action_wrappers
from lvlm2p_wrappers.views.minigrid import minigrid_view
from lvlm2p_wrappers.views.rulers import TILE, with_rulers
from lvlm2p_wrappers.views.viewer import Viewer, rendered_view, viewer


class VectorViewer(Protocol):
    """Draws the views of a vector environment's sub-environments."""

    @property
    def env_infos(self) -> Sequence[EnvInfo]:
        """Of each sub-environment: they may be different tasks."""

    def snapshots(self, indices: Sequence[int]) -> Sequence[Viewer]:
        """Viewers of these sub-environments' current states."""


class SyncViewer:
    """Draws the sub-environments of a ``SyncVectorEnv`` one by one."""

    def __init__(self, envs: SyncVectorEnv) -> None:
        self._viewers = [viewer(env) for env in envs.envs]
        self.env_infos = [one.env_info for one in self._viewers]

    def snapshots(self, indices: Sequence[int]) -> list[Viewer]:
        """The sub-environments' own viewers."""
        return [self._viewers[i] for i in indices]


class WorkerViewer:
    """Draws the sub-environments of an ``AsyncVectorEnv`` all at once, each in its own process."""

    def __init__(self, envs: AsyncVectorEnv) -> None:
        self._envs = envs
        # A function is called once, however many workers run it, as AsyncVectorEnv itself calls one for its spaces.
        tasks = {make: _task(make) for make in dict.fromkeys(envs.env_fns)}
        self.env_infos = [tasks[make].env_info for make in envs.env_fns]
        kinds = {(task.env_info.family, task.has_mission) for task in tasks.values()}
        if len(kinds) > 1:
            raise UsageError(
                "the workers' environments are not all drawn in the same way "
                f"({', '.join(sorted({info.env_id for info in self.env_infos}))}): put them into a SyncVectorEnv."
            )
        ((self._family, self._has_mission),) = kinds

    def snapshots(self, indices: Sequence[int]) -> list[Viewer]:
        """The views of these sub-environments, drawn now."""
        if not indices:
            return []
        missions = self._envs.get_attr("mission") if self._has_mission else ("",) * self._envs.num_envs
        if self._family == "default":
            frames = self._envs.call("render")
            return [rendered_view(self.env_infos[i], frames[i], missions[i]) for i in indices]
        frames, carried = self._envs.call("get_frame", False, TILE), self._envs.get_attr("carrying")
        pictures = {i: Picture(with_rulers(self.env_infos[i], frames[i])) for i in indices}
        return [minigrid_view(self.env_infos[i], pictures[i], missions[i], carried[i]) for i in indices]


class _Task(NamedTuple):
    env_info: EnvInfo
    has_mission: bool


def _task(make: Callable[[], gym.Env[Any, Any]]) -> _Task:
    env = make()
    try:
        return _Task(viewer(env).env_info, hasattr(env.unwrapped, "mission"))
    finally:
        env.close()


def vector_viewer(envs: gym.vector.VectorEnv[Any, Any, Any]) -> VectorViewer:
    """Choose the viewer of a vector environment.

    Args:
        envs: a ``SyncVectorEnv`` or ``AsyncVectorEnv``, wrapped or not.

    Raises:
        UsageError: if it is of another kind, its action space is not Discrete, a wrapper changes its actions, or it
            gives no picture.
    """
    refuse_action_wrappers(envs)
    base = envs.unwrapped
    if isinstance(base, SyncVectorEnv):
        return SyncViewer(base)
    if isinstance(base, AsyncVectorEnv):
        return WorkerViewer(base)
    raise UsageError(
        f"{type(base).__name__} gives no access to its sub-environments' pictures. "
        "Use gymnasium's SyncVectorEnv or AsyncVectorEnv."
    )
