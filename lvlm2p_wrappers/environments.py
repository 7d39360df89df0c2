"""Environments from their ids: those of Gymnasium, MiniGrid, Atari, Crafter, and of a module that a user names."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium as gym

from lvlm2p_wrappers.errors import UsageError

# "crafter" itself registers them with the old Gym alone.
for _name in ("CrafterReward-v1", "CrafterNoReward-v1"):
    if _name not in gym.registry:
        _kwargs = {"reward": _name == "CrafterReward-v1"}
        gym.register(_name, entry_point="lvlm2p_wrappers.crafter_env:CrafterEnv", kwargs=_kwargs)


def make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make an environment.

    Args:
        env_id: an id, with the module that registers it in front where needed, ``"my_envs:Maze-v0"``. The module is
            imported: what somebody types himself is his word.
        **kwargs: for the environment, such as ``render_mode``.

    Raises:
        UsageError: if there is no such environment, or it cannot be made here.

    Example:
        >>> make("CartPole-v1").action_space
        Discrete(2)
    """
    module, colon, name = env_id.partition(":")
    if colon and not (module and name and ":" not in name):
        raise UsageError(f"{env_id!r} names no environment: write ENV_ID, or MODULE:ENV_ID")
    try:
        if env_id.startswith("ALE/"):  # importing it registers them
            importlib.import_module("ale_py")
        # Whether an environment keeps to Gymnasium's rules is not what the user asks here.
        return gym.make(env_id, disable_env_checker=True, **kwargs)
    except (gym.error.Error, ImportError, ValueError) as error:
        is_extra = isinstance(error, ImportError) and error.name in {"ale_py", "crafter"}
        way_out = "; pip install 'lvlm2p[envs]' installs it" if is_extra else ""
        raise UsageError(f"{env_id} cannot be made: {error}{way_out}") from None
    except TypeError as error:
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        raise UsageError(f"{env_id} cannot be made with {given}: {error}") from None
