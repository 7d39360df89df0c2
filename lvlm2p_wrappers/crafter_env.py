"""Crafter (Hafner 2021) as a Gymnasium environment; the package ``crafter`` has the interface of the old Gym."""

from __future__ import annotations

from typing import Any

import crafter
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class CrafterEnv(gym.Env[Pixels, Any]):
    """An open world of survival: 22 achievements, each worth 1 the first time, and 0.1 for each point of health.

    The observation is Crafter's picture of 64 x 64 pixels. :meth:`render` draws the same, larger: a teacher reads it.

    Args:
        render_mode: ``"rgb_array"``, or None.
        reward: False for an environment without any, as for unsupervised learning.
        length: after so many steps an episode is truncated.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, render_mode: str | None = None, reward: bool = True, length: int = 10_000) -> None:
        self.render_mode, self._options = render_mode, {"reward": reward, "length": length}
        self._env = crafter.Env(**self._options, seed=0)
        self.observation_space = Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = Discrete(len(self._env.action_names))

    def get_action_meanings(self) -> list[str]:
        """The names of the actions."""
        return list(self._env.action_names)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Pixels, dict[str, Any]]:
        """Begin an episode in a new world."""
        super().reset(seed=seed, options=options)
        self._env = crafter.Env(**self._options, seed=int(self.np_random.integers(2**31)))
        return self._env.reset(), {}

    def step(self, action: Any) -> tuple[Pixels, float, bool, bool, dict[str, Any]]:
        """Act; the info has the inventory and the achievements, each with its count."""
        obs, reward, is_over, info = self._env.step(int(action))
        has_died = info["discount"] == 0
        counts = {name: info[name] for name in ("inventory", "achievements")}
        return obs, float(reward), has_died, is_over and not has_died, counts

    def render(self) -> Any:
        """The picture, 576 x 576 pixels: 64 for each of the 9 x 9 fields."""
        return self._env.render((576, 576)) if self.render_mode == "rgb_array" else None
