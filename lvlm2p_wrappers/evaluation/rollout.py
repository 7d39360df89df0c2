"""Rollouts in which the teacher acts: episodes side by side, with its most probable action or a sampled one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.evaluation.labelling import collect
from lvlm2p_wrappers.records import Episode, Policy
from lvlm2p_wrappers.teacher import PendingAdvice, Teacher
from lvlm2p_wrappers.views import Viewer

MAX_STEPS = 2_000
"""The length at which an episode is truncated where the environment has no time limit."""

_Env: TypeAlias = gym.Env[Any, Any]
_Probs: TypeAlias = NDArray[np.float32] | None


class Job(NamedTuple):
    """An episode that is to be rolled out."""

    policy: Policy
    seed: int


def roll_out(teacher: Teacher, make: Callable[[], _Env], jobs: Sequence[Job], *, width: int) -> Iterator[Episode]:
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
    envs = [make() for _ in range(min(width, len(jobs)))]
    try:
        teacher.resume()
        running = [(env, episode := _episode(teacher, env, waiting.popleft()), next(episode)) for env in envs]
        while running:
            env, episode, pending = running.pop(0)
            probs = collect(teacher, pending)
            try:
                running.append((env, episode, episode.send(probs)))
            except StopIteration as end:
                yield end.value
                if waiting:
                    episode = _episode(teacher, env, waiting.popleft())
                    running.append((env, episode, next(episode)))
    finally:
        for env in envs:
            env.close()


def _episode(teacher: Teacher, env: _Env, job: Job) -> Generator[PendingAdvice, _Probs, Episode]:
    """One episode; it yields the question of each step, and is sent the answer."""
    look = teacher.viewer(env)
    actions, start = look.env_info.actions, int(env.action_space.start)  # type: ignore[attr-defined]
    memory = teacher.prompts(look.env_info).memory(look.env_info)
    rng = np.random.default_rng([job.seed, job.policy == "sampled"])
    episodic_return, length, failures = 0.0, 0, 0
    reward, is_over = 0.0, False
    info: dict[str, Any] = {}
    obs, _ = env.reset(seed=job.seed)
    while not is_over and length < MAX_STEPS:
        probs = yield teacher.ask(memory.look(look), memory.history, obs)
        action = choose(probs, job.policy, len(actions), rng)
        obs, reward, terminated, truncated, info = env.step(start + action)  # type: ignore[assignment]
        is_over = terminated or truncated
        memory.act(actions[action])
        episodic_return += float(reward)
        length += 1
        failures += probs is None
    return Episode(
        policy=job.policy,
        seed=job.seed,
        episodic_return=episodic_return,
        length=length,
        success=_is_success(look, info, float(reward)),
        failures=failures,
    )


def _is_success(look: Viewer, info: dict[str, Any], last_reward: float) -> bool | None:
    """Whether an episode was a success; None where the environment does not say, and its rules are not known."""
    if "is_success" in info:
        return bool(info["is_success"])
    return last_reward > 0 if look.env_info.family == "minigrid" else None


def choose(probs: _Probs, policy: Policy, actions: int, rng: np.random.Generator) -> int:
    """The number of an action; without probabilities one is drawn uniformly."""
    if probs is None:
        return int(rng.integers(actions))
    if policy == "argmax":
        return int(np.argmax(probs))
    exact = probs.astype(np.float64)
    return int(rng.choice(actions, p=exact / exact.sum()))
