"""The states that teachers are compared on: the same for every teacher, from good, middling and bad ways to act."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers.evaluation.ground_truth import Truth, best_actions, has_truth, truth_of
from lvlm2p_wrappers.views import View, Viewer, viewer

Source = Literal["random", "student", "expert"]

STUDENT_RANDOM = 0.5
"""The share of random actions of the student-like policy; its other actions are the best ones."""

_MEAN_GAP = 8  # steps from one state that is taken to the next
_PER_EPISODE = 2  # states taken of an episode, so that many layouts are seen
_MOST_STEPS = 500  # of an episode
_FRUITLESS = 30  # episodes without a new state, after which a source counts as exhausted


class State(NamedTuple):
    """One moment of an environment.

    Attributes:
        id: its number.
        source: the policy that got there.
        seed: of the environment, for the episode.
        step: how many actions were taken before.
        view: what a teacher is shown; its history is the whole episode's.
        truth: what is really so; None where that cannot be known.
    """

    id: int
    source: Source
    seed: int
    step: int
    view: View
    truth: Truth | None


@dataclass
class _Collection:
    states: list[State]
    seen: set[Hashable]
    rng: np.random.Generator


def collect_states(env: gym.Env[Any, Any], count: int, *, seed: int) -> list[State]:
    """Take different states from episodes of a random, a student-like and an expert policy, in equal parts.

    They depend on the environment and the seed alone. The student-like policy acts at random half of the time, else as
    the expert. Where no expert is known, all states are random ones.

    Args:
        env: the environment; it is reset and stepped.
        count: how many states. Fewer are returned if the environment does not show so many.
        seed: of the episodes and of the policies.
    """
    look = viewer(env)
    rng = np.random.default_rng([seed, zlib.crc32(look.env_info.env_id.encode())])
    found = _Collection([], set(), rng)
    taken: dict[Source, int] = dict.fromkeys(("random", "student", "expert") if has_truth(env) else ("random",), 0)
    fruitless: Counter[Source] = Counter()
    while taken and len(found.states) < count:
        source = min(taken, key=lambda name: taken[name])
        most = min(count - len(found.states), _PER_EPISODE)
        got = _play(env, look, source, most, found)
        taken[source] += got
        fruitless[source] = 0 if got else fruitless[source] + 1
        if fruitless[source] == _FRUITLESS:
            del taken[source]  # what it cannot show, the others do
    return found.states


def _play(env: gym.Env[Any, Any], look: Viewer, source: Source, most: int, found: _Collection) -> int:
    """One episode, or its beginning; how many of its states were taken."""
    actions = look.env_info.actions
    start = int(env.action_space.start)  # type: ignore[attr-defined]
    seed = int(found.rng.integers(2**31))
    env.reset(seed=seed)
    history: list[str] = []
    before = len(found.states)
    wait = int(found.rng.geometric(1 / _MEAN_GAP)) - 1
    for step in range(_MOST_STEPS):
        if wait <= 0 and (view := _if_new(look, history, found)) is not None:
            truth = truth_of(env, actions) if has_truth(env) else None
            found.states.append(State(len(found.states), source, seed, step, view, truth))
            wait = int(found.rng.geometric(1 / _MEAN_GAP))
        wait -= 1
        action = _choose(env, actions, source, found.rng)
        if len(found.states) - before == most or action is None:
            break
        _, _, terminated, truncated, _ = env.step(start + action)
        history.append(actions[action])
        if terminated or truncated:
            break
    return len(found.states) - before


def _if_new(look: Viewer, history: list[str], found: _Collection) -> View | None:
    """The present view, unless one like it has been taken."""
    key = look.key()
    view = None
    if key is None:
        view = look.view(tuple(history))
        key = (view.picture.digest, view.mission, view.carrying)
    if key in found.seen:
        return None
    found.seen.add(key)
    return view or look.view(tuple(history))


def _choose(env: gym.Env[Any, Any], actions: tuple[str, ...], source: Source, rng: np.random.Generator) -> int | None:
    """The number of the next action; None where the expert knows none."""
    if source == "random" or (source == "student" and rng.random() < STUDENT_RANDOM):
        return int(rng.integers(len(actions)))
    best = best_actions(env, actions)
    if not best:
        return int(rng.integers(len(actions))) if source == "student" else None
    return actions.index(best[rng.integers(len(best))])
