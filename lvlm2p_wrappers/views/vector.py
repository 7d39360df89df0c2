"""Viewers of the sub-environments of a vector environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class HasViewer(Protocol):
    """A vector environment of another kind, which knows how it is drawn."""

    def viewer(self, own: OwnView) -> VectorViewer:
        """What draws its sub-environments."""


class SyncViewer:
    """Draws sub-environments of this process one by one."""

    def __init__(self, envs: Sequence[gym.Env[Any, Any]], own: OwnView) -> None:
        self._viewers = [viewer(env, own) for env in envs]
        self.env_infos = [one.env_info for one in self._viewers]

    def snapshots(self, indices: Sequence[int]) -> list[Viewer]:
        """The sub-environments' own viewers."""
        return [self._viewers[i] for i in indices]


class WorkerViewer:
    """Draws sub-environments all at once, each in its own process.

    Args:
        call: calls a method of every sub-environment by its name.
        set_attr: sets an attribute of every sub-environment.
        own: what the user has it show and tell.
        env_infos: of each sub-environment; by default they say so themselves.
    """

    def __init__(
        self,
        call: Callable[[str], Sequence[Any]],
        set_attr: Callable[[str, Any], None],
        own: OwnView,
        env_infos: Sequence[EnvInfo] | None = None,
    ) -> None:
        self._call = call
        set_attr("_lvlm2p", _Installed(own))
        self.env_infos = env_infos or self._of_all(_INFO)

    def snapshots(self, indices: Sequence[int]) -> list[View]:
        """The views of these sub-environments, drawn now."""
        views = self._of_all(_DRAW) if indices else ()
        return [views[i] for i in indices]

    def _of_all(self, method: str) -> Sequence[Any]:
        found = self._call(method)
        for each in found:
            if isinstance(each, TeacherError):
                raise each
        return found


_DRAW, _INFO = "_lvlm2p_view", "_lvlm2p_info"


class _Installed:
    """Gives the environments of a process a method that draws their view, wherever it is unpickled."""

    def __init__(self, own: OwnView) -> None:
        self._own = own

    def __reduce__(self) -> Any:
        return _install, (self._own,)


def _install(own: OwnView) -> None:
    """A worker calls nothing but methods of its environment."""

    def told(method: Callable[[Viewer], Any]) -> Callable[[gym.Env[Any, Any]], Any]:
        def call(env: gym.Env[Any, Any]) -> Any:
            try:
                return method(viewer(env, own))
            except TeacherError as error:  # raised, it would end the worker
                return error

        return call

    setattr(gym.Env, _DRAW, told(lambda look: look.view()))
    setattr(gym.Env, _INFO, told(lambda look: look.env_info))


def _env_infos(envs: AsyncVectorEnv, own: OwnView) -> list[EnvInfo]:
    """A function is called once, however many workers run it, as AsyncVectorEnv itself calls one for its spaces."""
    infos = {make: _info(make, own) for make in dict.fromkeys(envs.env_fns)}
    return [infos[make] for make in envs.env_fns]


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
        return SyncViewer(base.envs, own)
    if isinstance(base, AsyncVectorEnv):
        return WorkerViewer(base.call, base.set_attr, own, _env_infos(base, own))
    if isinstance(base, HasViewer):
        return base.viewer(own)
    raise UsageError(
        f"{type(base).__name__} gives no access to its sub-environments' pictures. "
        "Use gymnasium's SyncVectorEnv or AsyncVectorEnv."
    )
