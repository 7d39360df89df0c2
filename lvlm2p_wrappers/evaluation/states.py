"""The states that a teacher labels: from rollouts of good, middling and bad policies, a student or the teacher."""

from __future__ import annotations

import copy
import zlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.evaluation.ground_truth import best_actions, ground_truth, has_ground_truth
from lvlm2p_wrappers.evaluation.players import MIXED, Players
from lvlm2p_wrappers.records import GroundTruth, Source
from lvlm2p_wrappers.views import PLAIN, EpisodeMemory, OwnView, View, Viewer, viewer
from lvlm2p_wrappers.views.environment import env_id_of

EPSILON = 0.5
"""The share of random actions of the noisy expert; its other actions are the expert's."""

_EXPERTS = ("noisy_expert", "expert")

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
    env: gym.Env[Any, Any],
    count: int,
    *,
    seed: int,
    frames: int = 1,
    own: OwnView = PLAIN,
    players: Players | None = None,
) -> list[State]:
    """Sample distinct states, all at once; see :func:`sample_states`."""
    players = players or Players()
    return [*sample_states(env, count, seed=seed, sources=players.sources, frames=frames, own=own, players=players)]


def sample_states(
    env: gym.Env[Any, Any],
    count: int,
    *,
    seed: int,
    sources: Sequence[Source] = MIXED,
    judged: bool = True,
    frames: int = 1,
    own: OwnView = PLAIN,
    players: Players | None = None,
) -> Iterator[State]:
    """Sample distinct states from rollouts of several policies, in equal parts.

    They depend on the environment, the seed and the policies alone. The noisy expert acts at random half of the time,
    else as the expert; the teacher and a saved student act with actions sampled from their distributions. Without
    ground truth there is no expert: if no other policy is left, all states come from the random one.

    Args:
        env: the environment; it is reset and stepped.
        count: the number of states. Fewer are returned if the environment does not have so many.
        seed: of the episodes and of the policies.
        sources: the policies.
        judged: whether the ground truth is wanted.
        frames: how many of the last pictures each view has; they do not tell it from others.
        own: what the user has shown and told.
        players: the teacher and the saved student, where they are among the policies.

    Raises:
        UsageError: if the saved student plays another environment.
        UnfinishedError: if the teacher gave no answer for a reason that may pass.
    """
    env.reset(seed=seed)  # some have no state before
    sampler = _Sampler(env, seed, judged=judged, frames=frames, own=own, players=players or Players())
    if not has_ground_truth(env):
        sources = [source for source in sources if source not in _EXPERTS] or ["random"]
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

    def __init__(
        self, env: gym.Env[Any, Any], seed: int, *, judged: bool, frames: int, own: OwnView, players: Players
    ) -> None:
        self._own, self._players = own, players
        self._use(env)
        self._plain_env = env
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
        self._use(self._students_env() if source == "saved_student" else self._plain_env)
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
            action = self._action(source, shown, history)
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

    def _use(self, env: gym.Env[Any, Any]) -> None:
        self._env, self._viewer = env, viewer(env, self._own)

    def _students_env(self) -> gym.Env[Any, Any]:
        env = self._players.students_env()
        if viewer(env, self._own).env_info != viewer(self._plain_env, self._own).env_info:
            raise UsageError(f"the saved student plays {env_id_of(env)}, not {env_id_of(self._plain_env)}")
        return env

    def _action(self, source: Source, shown: Viewer, history: list[str]) -> int | None:
        """The next action's number; None where the expert finds none."""
        if source == "random" or (source == "noisy_expert" and self._rng.random() < EPSILON):
            return int(self._rng.integers(len(self._actions)))
        if source in ("teacher", "saved_student"):
            view = replace(shown.view(tuple(history)), observation=self._observation)
            return self._players.action(source, view, self._rng)
        best = best_actions(self._env, self._actions)
        if not best:
            return int(self._rng.integers(len(self._actions))) if source == "noisy_expert" else None
        return self._actions.index(best[self._rng.integers(len(best))])
