"""What an environment says of itself: its id, and the names of its actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorActionWrapper, VectorEnv, VectorWrapper

from lvlm2p_wrappers.errors import UsageError


def action_names(env: gym.Env[Any, Any]) -> tuple[str, ...]:
    """The names an environment gives its actions, or ``action_0``, ``action_1``, ... where it gives none.

    >>> import gymnasium as gym
    >>> action_names(gym.make("MiniGrid-Dynamic-Obstacles-6x6-v0"))
    ('left', 'right', 'forward')

    Raises:
        UsageError: if a wrapper changes what the actions do.
    """
    refuse_action_wrappers(env)
    base = env.unwrapped
    if env.action_space != base.action_space:
        raise UsageError(
            f"{env_id_of(env)} is inside a wrapper that changes its actions to {env.action_space}: "
            "the teacher would not know what they do. Put the teacher's wrapper inside that one."
        )
    size = int(env.action_space.n)  # type: ignore[attr-defined]
    members = getattr(getattr(base, "actions", None), "__members__", {})
    by_value = {member.value: name for name, member in members.items()}
    meanings = base.get_action_meanings() if hasattr(base, "get_action_meanings") else _of_action_type(base)
    if set(range(size)) <= by_value.keys():
        return tuple(by_value[action] for action in range(size))
    if len(meanings) == size == len(set(meanings)):
        return tuple(str(name).lower().replace(" ", "_") for name in meanings)
    return tuple(f"action_{i}" for i in range(size))


def refuse_action_wrappers(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> None:
    """Raise if an action wrapper lies around an environment: what its actions do would not be what their names say.

    Raises:
        UsageError: naming the wrapper.
    """
    while isinstance(env, gym.Wrapper | VectorWrapper):
        if isinstance(env, gym.ActionWrapper | VectorActionWrapper):
            raise UsageError(
                f"{env_id_of(env)} is inside the action wrapper {type(env).__name__}: "
                "the teacher would not know what its actions do. Put the teacher's wrapper inside that one."
            )
        env = env.env


def env_id_of(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> str:
    """The id that an environment was made with, or its class's name where it has none."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _of_action_type(base: Any) -> tuple[Any, ...]:
    """The names that highway-env's discrete action types give: ``{0: "LANE_LEFT", ...}``."""
    names = getattr(getattr(base, "action_type", None), "actions", None)
    if not isinstance(names, dict) or names.keys() != set(range(len(names))):
        return ()
    return tuple(names[action] for action in range(len(names)))
