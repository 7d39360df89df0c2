"""The teacher's advice in the ``info`` of one environment."""

from __future__ import annotations

from typing import Any, Unpack

import gymnasium as gym
import numpy as np
from gymnasium.core import ActType, ObsType

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.records import Advice
from lvlm2p_wrappers.teacher import OnError, Teacher, TeacherOptions, require_known

INFO_KEY, MASK_KEY = "teacher_probs", "_teacher_probs"


class TeacherWrapper(gym.Wrapper[ObsType, ActType, ObsType, ActType], gym.utils.RecordConstructorArgs):
    """Puts the teacher's action distribution for the observation just returned into ``info["teacher_probs"]``.

    The array has shape (n_actions,), dtype float32, is non-negative and sums to 1. It is absent where there is no
    advice: when the episode is over, when the budget is spent, or, with ``on_error="skip"``, when no usable reply
    came. Observations, rewards and actions pass unchanged.

    With ``always_in_info=True``, for recorders that need infos of one structure, it is always there: a row of zeros
    where there is no advice, beside the mask ``info["_teacher_probs"]``, a bool.

    Args:
        env: an environment with Discrete actions: any MiniGrid or BabyAI one, with or without a render mode, or another
            one made with ``render_mode="rgb_array"``.
        model: a LiteLLM model string, or ``"embedded/minigrid-planner"``, which needs neither key nor network.
        on_error: whether a question without an answer raises, or is skipped and counted in ``teacher.counters``.
        always_in_info: whether the array is there without advice, too.
        ask_every: asks about the first observation of an episode and every ``ask_every``-th after it, for views that
            never repeat.
        **options: the keyword arguments of :class:`Teacher`: ``prompts``, ``store``, ``concurrency``, ``budget_usd``,
            ...

    Attributes:
        teacher: the :class:`Teacher`, shared by all wrappers of this process with the same arguments.

    Raises:
        UsageError: if the environment gives no picture or has no Discrete actions, or an argument cannot work.

    Example:
        >>> import gymnasium as gym
        >>> from lvlm2p_wrappers import TeacherWrapper
        >>> env = TeacherWrapper(gym.make("MiniGrid-LavaGapS7-v0"), model="embedded/minigrid-planner", store=None)
        >>> obs, info = env.reset(seed=0)
        >>> info["teacher_probs"].shape
        (7,)

    Change logs:
     * v0.1.0 - Initially added
     * v0.2.0 - ``always_in_info``, ``ask_every``
    """

    def __init__(
        self,
        env: gym.Env[ObsType, ActType],
        model: str,
        *,
        on_error: OnError = "raise",
        always_in_info: bool = False,
        ask_every: int = 1,
        **options: Unpack[TeacherOptions],
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, model=model, on_error=on_error, always_in_info=always_in_info, ask_every=ask_every, **options
        )
        gym.Wrapper.__init__(self, env)
        require_known(on_error, ask_every)
        self.teacher = Teacher.shared(model, options)
        self._viewer = self.teacher.viewer(env)
        self._on_error, self._always_in_info, self._ask_every = on_error, always_in_info, ask_every
        self.teacher.resume()
        self._memory = self.teacher.read_prompts(self._viewer.env_info).memory(self._viewer.env_info)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Reset the environment and ask about its first observation.

        Raises:
            TeacherError: if no advice came, unless ``on_error="skip"``.
        """
        obs, info = self.env.reset(seed=seed, options=options)
        self._memory.begin()
        return obs, self._with_advice(obs, info, is_over=False)

    def step(self, action: ActType) -> tuple[ObsType, Any, bool, bool, dict[str, Any]]:
        """Step the environment and, unless the episode is over, ask about the observation it returns.

        Raises:
            TeacherError: if no advice came, unless ``on_error="skip"``.
        """
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._memory.act(self._viewer.env_info.actions[int(action) - int(self.action_space.start)])  # type: ignore[call-overload, attr-defined]
        return obs, reward, terminated, truncated, self._with_advice(obs, info, is_over=terminated or truncated)

    def close(self) -> None:
        """Close the environment, and the store's files unless another wrapper's question is open."""
        self.teacher.free_store()
        super().close()

    def _with_advice(self, obs: ObsType, info: dict[str, Any], *, is_over: bool) -> dict[str, Any]:
        refuse_taken_key(info)
        row = None
        if not is_over:
            shown = self._memory.look(self._viewer)
            if self._memory.steps % self._ask_every == 0:
                row = self.teacher.ask(shown, self._memory.history, obs)
        (advice,) = self.teacher.collect([row], on_error=self._on_error)
        # A copy: a state seen before shares its advice, and whoever gets an info may change it.
        probs = advice.probs.copy() if isinstance(advice, Advice) else None
        if self._always_in_info:
            none = np.zeros(len(self._viewer.env_info.actions), np.float32)
            return {**info, INFO_KEY: none if probs is None else probs, MASK_KEY: probs is not None}
        return info if probs is None else {**info, INFO_KEY: probs}


def refuse_taken_key(info: dict[str, Any]) -> None:
    """Raise if another wrapper has already put advice into an info.

    Raises:
        UsageError: if it has.
    """
    if INFO_KEY in info:
        raise UsageError(f"info already has {INFO_KEY!r}: wrap the environment in one teacher only")
