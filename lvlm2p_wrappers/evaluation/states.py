"""The states that a teacher labels: the same for every teacher, from rollouts of good, middling and bad policies."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers.evaluation.ground_truth import best_actions, ground_truth, has_ground_truth
from lvlm2p_wrappers.records import GroundTruth, Source
from lvlm2p_wrappers.views import View, Viewer, viewer

EPSILON = 0.5
"""The share of random actions of the student-like policy; its other actions are the expert's."""

_MEAN_GAP = 8  # mean steps between two sampled states
_PER_EPISODE = 2  # states of an episode at most, so that there are many layouts
_MAX_STEPS = 500  # of an episode
_PATIENCE = 30  # episodes without a new state, after which a policy is dropped


class State(NamedTuple):
    """A state of an environment.

    Attributes:
        id: its number.
        source: the policy that reached it.
        seed: the environment's seed for the episode.
        step: the number of actions taken before.
        view: what a teacher is shown; its history is the whole episode's.
        truth: the ground truth; None where it is not known.
    """

    id: int
    source: Source
    seed: int
    step: int
    view: View
    truth: GroundTruth | None


@dataclass
class _Collection:
    states: list[State]
    seen: set[Hashable]
    rng: np.random.Generator


def collect_states(env: gym.Env[Any, Any], count: int, *, seed: int) -> list[State]:
    """Sample distinct states from rollouts of a random, a student-like and an expert policy, in equal parts.

    They depend on the environment and the seed alone. The student-like policy acts at random half of the time, else as
    the expert. Without ground truth there is no expert, and all states come from the random policy.

    Args:
        env: the environment; it is reset and stepped.
        count: the number of states. Fewer are returned if the environment does not have so many.
        seed: of the episodes and of the policies.
    """
    look = viewer(env)
    rng = np.random.default_rng([seed, zlib.crc32(look.env_info.env_id.encode())])
    found = _Collection([], set(), rng)
    sampled: dict[Source, int] = dict.fromkeys(
        ("random", "student", "expert") if has_ground_truth(env) else ("random",), 0
    )
    unchanged: Counter[Source] = Counter()
    while sampled and len(found.states) < count:
        source = min(sampled, key=lambda name: sampled[name])
        most = min(count - len(found.states), _PER_EPISODE)
        got = _roll_out(env, look, source, most, found)
        sampled[source] += got
        unchanged[source] = 0 if got else unchanged[source] + 1
        if unchanged[source] == _PATIENCE:
            del sampled[source]  # the others make up for it
    return found.states


def _roll_out(env: gym.Env[Any, Any], look: Viewer, source: Source, most: int, found: _Collection) -> int:
    """Roll out one episode, or its beginning; returns how many of its states were new and sampled."""
    actions = look.env_info.actions
    start = int(env.action_space.start)  # type: ignore[attr-defined]
    seed = int(found.rng.integers(2**31))
    env.reset(seed=seed)
    history: list[str] = []
    before = len(found.states)
    wait = int(found.rng.geometric(1 / _MEAN_GAP)) - 1
    for step in range(_MAX_STEPS):
        if wait <= 0 and (view := _if_new(look, history, found)) is not None:
            truth = ground_truth(env, actions) if has_ground_truth(env) else None
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
    """The current view, unless an equal one has been sampled."""
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
    """The next action's number; None where the expert finds none."""
    if source == "random" or (source == "student" and rng.random() < EPSILON):
        return int(rng.integers(len(actions)))
    best = best_actions(env, actions)
    if not best:
        return int(rng.integers(len(actions))) if source == "student" else None
    return actions.index(best[rng.integers(len(best))])
