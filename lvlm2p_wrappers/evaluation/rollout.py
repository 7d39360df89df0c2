"""Rollouts in which the teacher acts: episodes side by side, with its most probable action or a sampled one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers.evaluation.labelling import collect
from lvlm2p_wrappers.records import Episode, Policy
from lvlm2p_wrappers.teacher import PendingAdvice, Teacher
from lvlm2p_wrappers.views import viewer

MAX_STEPS = 2_000
"""The length at which an episode is truncated where the environment has no time limit."""


class Job(NamedTuple):
    """An episode that is to be rolled out."""

    policy: Policy
    seed: int


def roll_out(
    teacher: Teacher, make: Callable[[], gym.Env[Any, Any]], jobs: Sequence[Job], *, width: int
) -> Iterator[Episode]:
    """Roll out episodes in which the teacher acts; each is yielded when it ends.

    An episode depends on its policy, its seed and the teacher's answers alone. Where a reply cannot be used, the
    action is drawn uniformly, and counted as a failure.

    Args:
        teacher: who acts.
        make: makes the environment.
        jobs: the episodes.
        width: how many of them run at a time.

    Raises:
        TeacherError: as :func:`collect` does; the episodes that have not ended are dropped.
    """
    waiting = deque(jobs)
    actors = [_Actor(make()) for _ in range(min(width, len(jobs)))]
    try:
        teacher.resume()
        history = teacher.prompts(actors[0].env_info).options.history if actors else 0
        for actor in actors:
            actor.begin(waiting.popleft(), history)
        while actors:
            pending = [actor.ask(teacher) for actor in actors]
            for actor, question in zip(list(actors), pending, strict=True):
                ended = actor.act(collect(teacher, question))
                if ended is not None:
                    yield ended
                    if waiting:
                        actor.begin(waiting.popleft(), history)
                    else:
                        actor.env.close()
                        actors.remove(actor)
    finally:
        for actor in actors:
            actor.env.close()


class _Actor:
    """One environment and its current episode."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = env
        self._viewer = viewer(env)
        self._start = int(env.action_space.start)  # type: ignore[attr-defined]
        self.env_info = self._viewer.env_info

    def begin(self, job: Job, history: int) -> None:
        self._job = job
        self._rng = np.random.default_rng([job.seed, job.policy == "sampled"])
        self._history: deque[str] = deque(maxlen=history)
        self._return, self._length, self._failures = 0.0, 0, 0
        self.env.reset(seed=job.seed)

    def ask(self, teacher: Teacher) -> PendingAdvice:
        return teacher.ask(self._viewer, tuple(self._history))

    def act(self, probs: Any) -> Episode | None:
        """Take one step; returns the episode if that was its last."""
        action = self._choose(probs)
        _, reward, terminated, truncated, _ = self.env.step(self._start + action)
        self._history.append(self.env_info.actions[action])
        self._return += float(reward)
        self._length += 1
        self._failures += probs is None
        if not (terminated or truncated or self._length >= MAX_STEPS):
            return None
        return Episode(
            policy=self._job.policy,
            seed=self._job.seed,
            episodic_return=self._return,
            length=self._length,
            success=float(reward) > 0,
            failures=self._failures,
        )

    def _choose(self, probs: Any) -> int:
        if probs is None:
            return int(self._rng.integers(len(self.env_info.actions)))
        if self._job.policy == "argmax":
            return int(np.argmax(probs))
        exact = np.asarray(probs, dtype=np.float64)
        return int(self._rng.choice(len(exact), p=exact / exact.sum()))
