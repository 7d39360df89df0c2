"""Viewers of the sub-environments of a vector environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.records import EnvInfo, View
from lvlm2p_wrappers.views.environment import refuse_action_wrappers
from lvlm2p_wrappers.views.own_view import PLAIN, OwnView
from lvlm2p_wrappers.views.viewer import Viewer, viewer


class VectorViewer(Protocol):
    """Draws the views of a vector environment's sub-environments."""

    @property
    def env_infos(self) -> Sequence[EnvInfo]:
        """Of each sub-environment: they may be different tasks."""

    def snapshots(self, indices: Sequence[int]) -> Sequence[Viewer]:
        """Viewers of these sub-environments' current states."""


class SyncViewer:
    """Draws the sub-environments of a ``SyncVectorEnv`` one by one."""

    def __init__(self, envs: SyncVectorEnv, own: OwnView) -> None:
        self._viewers = [viewer(env, own) for env in envs.envs]
        self.env_infos = [one.env_info for one in self._viewers]

    def snapshots(self, indices: Sequence[int]) -> list[Viewer]:
        """The sub-environments' own viewers."""
        return [self._viewers[i] for i in indices]


class WorkerViewer:
    """Draws the sub-environments of an ``AsyncVectorEnv`` all at once, each in its own process."""

    def __init__(self, envs: AsyncVectorEnv, own: OwnView) -> None:
        self._envs = envs
        # A function is called once, however many workers run it, as AsyncVectorEnv itself calls one for its spaces.
        infos = {make: _info(make, own) for make in dict.fromkeys(envs.env_fns)}
        self.env_infos = [infos[make] for make in envs.env_fns]
        envs.set_attr("_lvlm2p", _Installed(own))

    def snapshots(self, indices: Sequence[int]) -> list[View]:
        """The views of these sub-environments, drawn now."""
        views = self._envs.call(_DRAW) if indices else ()
        for drawn in views:
            if isinstance(drawn, TeacherError):
                raise drawn
        return [views[i] for i in indices]


_DRAW = "_lvlm2p_view"


class _Installed:
    """Gives the environments of a process a method that draws their view, wherever it is unpickled."""

    def __init__(self, own: OwnView) -> None:
        self._own = own

    def __reduce__(self) -> Any:
        return _install, (self._own,)


def _install(own: OwnView) -> None:
    """A worker calls nothing but methods of its environment."""

    def draw(env: gym.Env[Any, Any]) -> View | TeacherError:
        try:
            return viewer(env, own).view()
        except TeacherError as error:  # raised, it would end the worker
            return error

    setattr(gym.Env, _DRAW, draw)


def _info(make: Callable[[], gym.Env[Any, Any]], own: OwnView) -> EnvInfo:
    env = make()
    try:
        return viewer(env, own).env_info
    finally:
        env.close()


def vector_viewer(envs: gym.vector.VectorEnv[Any, Any, Any], own: OwnView = PLAIN) -> VectorViewer:
    """Choose the viewer of a vector environment.

    Args:
        envs: a ``SyncVectorEnv`` or ``AsyncVectorEnv``, wrapped or not.
        own: what the user has it show and tell.

    Raises:
        UsageError: if it is of another kind, its action space is not Discrete, a wrapper changes its actions, or it
            gives no picture.
    """
    refuse_action_wrappers(envs)
    base = envs.unwrapped
    if isinstance(base, SyncVectorEnv):
        return SyncViewer(base, own)
    if isinstance(base, AsyncVectorEnv):
        return WorkerViewer(base, own)
    raise UsageError(
        f"{type(base).__name__} gives no access to its sub-environments' pictures. "
        "Use gymnasium's SyncVectorEnv or AsyncVectorEnv."
    )
