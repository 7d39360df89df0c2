"""Atari's preprocessing, as the literature has it since DQN."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from PIL import Image

_REPEAT = 4
"""Frames for which an action is repeated."""

OPTIONS = {"frameskip": 1, "obs_type": "grayscale"}
"""What the environment has to be made with."""


class AtariFrames(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Repeats each action for four frames and shows the brighter of the last two, grey, in 84 x 84 pixels.

    As in DQN (Mnih et al. 2015) and with the sticky actions of Machado et al. (2018), which ``ALE/*-v5`` has by itself:
    they make no-ops at the start needless. The loss of a life ends nothing. ``render()`` goes on showing the game's own
    picture. Gymnasium's ``AtariPreprocessing`` does the same with OpenCV.

    Args:
        env: an Atari environment made with ``OPTIONS``.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.observation_space = Box(0, 255, (84, 84), np.uint8)

    def reset(self, **kwargs: Any) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin an episode."""
        frame, info = self.env.reset(**kwargs)
        return _resized(frame), info

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Act for four frames, or up to the end of the episode."""
        total, before = 0.0, 0
        for _ in range(_REPEAT):
            frame, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            # What a game draws in every other frame alone is seen, too.
            shown, before = np.maximum(frame, before), frame
            if terminated or truncated:
                break
        return _resized(shown), total, terminated, truncated, info


def _resized(frame: Any) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(frame).resize((84, 84), Image.Resampling.BOX))
