"""What an environment says of itself: its id, and the names of its actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from lvlm2p_wrappers.errors import UsageError


def action_names(env: gym.Env[Any, Any]) -> tuple[str, ...]:
    """The names an environment gives its actions, or ``action_0``, ``action_1``, ... where it gives none.

    >>> import gymnasium as gym
    >>> action_names(gym.make("MiniGrid-Dynamic-Obstacles-6x6-v0"))
    ('left', 'right', 'forward')
    """
    base = env.unwrapped
    if env.action_space != base.action_space:
        raise UsageError(
            f"{env_id_of(env)} is inside a wrapper that changes its actions to {env.action_space}: "
            "the teacher would not know what they do. Put the teacher's wrapper inside that one."
        )
    size = int(env.action_space.n)  # type: ignore[attr-defined]
    members = getattr(getattr(base, "actions", None), "__members__", {})
    by_value = {member.value: name for name, member in members.items()}
    meanings = base.get_action_meanings() if hasattr(base, "get_action_meanings") else ()
    if set(range(size)) <= by_value.keys():
        return tuple(by_value[action] for action in range(size))
    if len(meanings) == size == len(set(meanings)):
        return tuple(str(name).lower().replace(" ", "_") for name in meanings)
    return tuple(f"action_{i}" for i in range(size))


def env_id_of(env: gym.Env[Any, Any]) -> str:
    """The id that an environment was made with, or its class's name where it has none."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
