"""The ground truth of environments with a table of transitions, as Gymnasium's toy text has: value iteration.

``P[state][action]`` lists the transitions ``(probability, next state, reward, whether the episode ends)``, and ``s`` is
the present state. Actions are optimal whose value, discounted, is the state's. A time limit is in no table: it does not
count. Nor is there a word for an end that is a failure, so that no action is called fatal: what it costs is its regret.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.records import GroundTruth

DISCOUNT = 0.99
"""That of the training scripts."""

_ROUNDING = 1e-6  # a smaller difference of two values is none
_MOST_SWEEPS = 100_000

_SOLVED: deque[tuple[Any, NDArray[np.float64]]] = deque(maxlen=8)  # tables, and the values of their actions


def has_table(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment has a table of transitions that can be read."""
    base = env.unwrapped
    if not isinstance(getattr(base, "P", None), Mapping) or not isinstance(getattr(base, "s", None), int | np.integer):
        return False
    try:
        action_values(base.P)  # type: ignore[attr-defined]
    except (TypeError, ValueError, LookupError):
        return False
    return True


def tabular_truth(env: gym.Env[Any, Any], actions: Sequence[str]) -> GroundTruth:
    """The ground truth of the present state.

    Args:
        env: an environment that :func:`has_table`.
        actions: the names of its actions, in the order of the action space.
    """
    base: Any = env.unwrapped
    values = action_values(base.P)[int(base.s)]
    regret = values.max() - values
    return GroundTruth(
        optimal=tuple(name for name, lost in zip(actions, regret, strict=True) if lost < _ROUNDING),
        regret=tuple(float(lost) for lost in regret),
    )


def action_values(table: Mapping[int, Mapping[int, Sequence[Any]]]) -> NDArray[np.float64]:
    """The value of every action in every state, under the best policy: (n_states, n_actions).

    Raises:
        ValueError: if a transition's probabilities do not add up to 1.
    """
    for known, values in _SOLVED:
        if known is table:
            return values
    states, actions = len(table), len(table[0])
    rows = [
        (state * actions + action, float(probability), int(following), float(reward), bool(is_over))
        for state in range(states)
        for action in range(actions)
        for probability, following, reward, is_over, *_ in table[state][action]
    ]
    row, probability, following, reward, is_over = (np.array(column) for column in zip(*rows, strict=True))
    if not np.allclose(np.bincount(row, probability, states * actions), 1):
        raise ValueError("the probabilities of an action's transitions do not add up to 1")
    rewards = np.bincount(row, probability * reward, states * actions)
    from scipy.sparse import csr_array  # takes its time, and no command but an evaluation needs it

    goes_on = csr_array((probability * ~is_over, (row, following)), shape=(states * actions, states))
    values = np.zeros(states)
    for _ in range(_MOST_SWEEPS):
        of_actions = (rewards + DISCOUNT * (goes_on @ values)).reshape(states, actions)
        change, values = float(np.abs(of_actions.max(1) - values).max()), of_actions.max(1)
        if change < _ROUNDING * (1 - DISCOUNT) / 2:
            break
    solved: NDArray[np.float64] = of_actions
    _SOLVED.append((table, solved))
    return solved
