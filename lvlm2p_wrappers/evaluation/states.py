"""The states that a teacher labels: the same for every teacher, from rollouts of good, middling and bad policies."""

from __future__ import annotations

import copy
import zlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers.evaluation.ground_truth import best_actions, ground_truth, has_ground_truth
from lvlm2p_wrappers.records import GroundTruth, Source
from lvlm2p_wrappers.views import PLAIN, EpisodeMemory, OwnView, View, Viewer, viewer

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


def collect_states(
    env: gym.Env[Any, Any], count: int, *, seed: int, frames: int = 1, own: OwnView = PLAIN
) -> list[State]:
    """Sample distinct states, all at once; see :func:`sample_states`."""
    return [*sample_states(env, count, seed=seed, frames=frames, own=own)]


def sample_states(
    env: gym.Env[Any, Any],
    count: int,
    *,
    seed: int,
    sources: Sequence[Source] = get_args(Source),
    judged: bool = True,
    frames: int = 1,
    own: OwnView = PLAIN,
) -> Iterator[State]:
    """Sample distinct states from rollouts of a random, a student-like and an expert policy, in equal parts.

    They depend on the environment and the seed alone. The student-like policy acts at random half of the time, else as
    the expert. Without ground truth there is no expert, and all states come from the random policy.

    Args:
        env: the environment; it is reset and stepped.
        count: the number of states. Fewer are returned if the environment does not have so many.
        seed: of the episodes and of the policies.
        sources: the policies.
        judged: whether the ground truth is wanted.
        frames: how many of the last pictures each view has; they do not tell it from others.
        own: what the user has shown and told.
    """
    env.reset(seed=seed)  # some have no state before
    sampler = _Sampler(env, viewer(env, own), seed, judged=judged, frames=frames)
    if not has_ground_truth(env):
        sources = ("random",)
    sampled: dict[Source, int] = dict.fromkeys(sources, 0)
    without_new: Counter[Source] = Counter()
    while sampled and sampler.count < count:
        source = min(sampled, key=lambda name: sampled[name])
        new = sampler.sample_episode(source, min(count - sampler.count, _PER_EPISODE))
        yield from sampler.states
        sampler.states.clear()
        sampled[source] += new
        without_new[source] = 0 if new else without_new[source] + 1
        if without_new[source] == _PATIENCE:
            del sampled[source]  # the other policies make up for it


class _Sampler:
    """Samples states of one environment, none twice."""

    def __init__(self, env: gym.Env[Any, Any], look: Viewer, seed: int, *, judged: bool, frames: int) -> None:
        self._env, self._viewer = env, look
        self._start = int(env.action_space.start)  # type: ignore[attr-defined]
        self._actions = self._viewer.env_info.actions
        self._rng = np.random.default_rng([seed, zlib.crc32(self._viewer.env_info.env_id.encode())])
        self._keys: set[Hashable] = set()
        self._judged = judged and has_ground_truth(env)
        self._observation: Any = None
        self._memory = EpisodeMemory(frames=frames)
        self.states: list[State] = []
        self.count = 0

    def sample_episode(self, source: Source, most: int) -> int:
        """Roll out one episode, or its beginning; returns how many of its states were sampled, at most ``most``."""
        seed = int(self._rng.integers(2**31))
        self._observation, _ = self._env.reset(seed=seed)
        history: list[str] = []
        self._memory.begin()
        before = self.count
        wait = int(self._rng.geometric(1 / _MEAN_GAP)) - 1
        for step in range(_MAX_STEPS):
            shown = self._memory.look(self._viewer)
            if wait <= 0 and (view := self._new_view(shown, history)) is not None:
                truth = ground_truth(self._env, self._actions) if self._judged else None
                self.states.append(State(self.count, source, seed, step, view, truth))
                self.count += 1
                wait = int(self._rng.geometric(1 / _MEAN_GAP))
            wait -= 1
            action = self._action(source)
            if self.count - before == most or action is None:
                break
            self._observation, _, terminated, truncated, _ = self._env.step(self._start + action)
            history.append(self._actions[action])
            if terminated or truncated:
                break
        return self.count - before

    def _new_view(self, shown: Viewer, history: list[str]) -> View | None:
        """The current view, unless one with an equal last picture has been sampled."""
        key, view = self._viewer.key(), None
        if key is None:
            view = shown.view(tuple(history))
            key = replace(view, pictures=view.pictures[-1:]).key()
        if key in self._keys:
            return None
        self._keys.add(key)
        return replace(view or shown.view(tuple(history)), observation=copy.deepcopy(self._observation))

    def _action(self, source: Source) -> int | None:
        """The next action's number; None where the expert finds none."""
        if source == "random" or (source == "student" and self._rng.random() < EPSILON):
            return int(self._rng.integers(len(self._actions)))
        best = best_actions(self._env, self._actions)
        if not best:
            return int(self._rng.integers(len(self._actions))) if source == "student" else None
        return self._actions.index(best[self._rng.integers(len(best))])
