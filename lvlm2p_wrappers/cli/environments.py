"""Making an environment from the id that a user typed, and running it in silence."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import gymnasium as gym

from lvlm2p_wrappers.errors import UsageError


def make(env_id: str) -> gym.Env[Any, Any]:
    """Make an environment that gives pictures.

    Args:
        env_id: what the user typed: an id, with the module that registers it in front where needed,
            ``"my_envs:Maze-v0"``. The module is imported: what somebody types himself is his word.

    Raises:
        UsageError: if there is no such environment, or it cannot be made here.
    """
    module, colon, name = env_id.partition(":")
    if colon and not (module and name and ":" not in name):
        raise UsageError(f"{env_id!r} names no environment: write ENV_ID, or MODULE:ENV_ID")
    try:
        # Whether an environment keeps to Gymnasium's rules is not what the user asks here.
        return gym.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    except (gym.error.Error, ImportError, ValueError) as error:
        raise UsageError(f"{env_id} cannot be made: {error}") from None
    except TypeError as error:
        raise UsageError(f"{env_id} cannot be made with render_mode='rgb_array': {error}") from None


def in_silence() -> contextlib.AbstractContextManager[Any]:
    """Keep what environments print (BabyAI tells of every layout it rejects) out of a command's output."""
    return contextlib.redirect_stdout(io.StringIO())
