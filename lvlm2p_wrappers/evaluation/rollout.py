"""Lets a teacher play: episodes side by side, its most probable action or one drawn from its distribution."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers.evaluation.folder import Episode, Way
from lvlm2p_wrappers.evaluation.labelling import settled
from lvlm2p_wrappers.teacher import PendingAdvice, Teacher
from lvlm2p_wrappers.views import viewer

MOST_STEPS = 2_000
"""Where an environment sets no time limit, an episode is broken off after so many steps."""


class Job(NamedTuple):
    """An episode to be played."""

    way: Way
    seed: int


def play(
    teacher: Teacher,
    make: Callable[[], gym.Env[Any, Any]],
    jobs: Sequence[Job],
    on_episode: Callable[[Episode], None],
    *,
    width: int,
) -> None:
    """Play episodes.

    An episode follows from its way and seed and the teacher's answers alone. Where a reply cannot be used, the action
    is drawn at random, and counted.

    Args:
        teacher: who says what to do.
        make: makes the environment.
        jobs: what is to be played.
        on_episode: called as an episode ends.
        width: how many are played at a time.

    Raises:
        TeacherError: as :func:`settled` does; the episodes under way are dropped.
    """
    waiting = deque(jobs)
    players = [_Player(make()) for _ in range(min(width, len(jobs)))]
    history = teacher.prepare(players[0].env_info) if players else 0
    for player in players:
        player.begin(waiting.popleft(), history)
    try:
        while players:
            tickets = [player.ask(teacher) for player in players]
            for player, ticket in zip(list(players), tickets, strict=True):
                ended = player.act(settled(teacher, ticket))
                if ended is not None:
                    on_episode(ended)
                    if waiting:
                        player.begin(waiting.popleft(), history)
                    else:
                        player.close()
                        players.remove(player)
    finally:
        for player in players:
            player.close()


class _Player:
    """One environment, and the episode that is played in it."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self._viewer = viewer(env)
        self._start = int(env.action_space.start)  # type: ignore[attr-defined]
        self.env_info = self._viewer.env_info

    def begin(self, job: Job, history: int) -> None:
        self._job = job
        self._rng = np.random.default_rng([job.seed, job.way == "sampled"])
        self._history: deque[str] = deque(maxlen=history)
        self._total, self._length, self._failures = 0.0, 0, 0
        self._env.reset(seed=job.seed)

    def ask(self, teacher: Teacher) -> PendingAdvice:
        return teacher.ask(self._viewer, tuple(self._history))

    def act(self, probs: Any) -> Episode | None:
        """Take one step; the episode, if that was its last."""
        action = self._choose(probs)
        _, reward, terminated, truncated, _ = self._env.step(self._start + action)
        self._history.append(self.env_info.actions[action])
        self._total += float(reward)
        self._length += 1
        if not (terminated or truncated or self._length >= MOST_STEPS):
            return None
        return Episode(
            way=self._job.way,
            seed=self._job.seed,
            total=self._total,
            length=self._length,
            success=float(reward) > 0,
            failures=self._failures,
        )

    def close(self) -> None:
        self._env.close()

    def _choose(self, probs: Any) -> int:
        if probs is None:
            self._failures += 1
            return int(self._rng.integers(len(self.env_info.actions)))
        if self._job.way == "argmax":
            return int(np.argmax(probs))
        exact = np.asarray(probs, dtype=np.float64)
        return int(self._rng.choice(len(exact), p=exact / exact.sum()))
