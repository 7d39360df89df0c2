"""An environment whose picture tells its episode and its step, to see which pictures a teacher is shown."""

import gymnasium as gym
import numpy as np


class Counting(gym.Env):
    """Episodes of a few steps; the observation, and the picture's first pixel, are (episode, step, which one)."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 -- Gymnasium's name for it
    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(0, 255, (3,), np.uint8)

    def __init__(self, number=0, length=4, render_mode="rgb_array"):
        self.render_mode = render_mode
        self.seen = np.array([0, 0, number], np.uint8)
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.seen = self.seen + np.uint8([1, 0, 0])
        self.seen[1] = 0
        return self.seen, {}

    def step(self, action):  # noqa: ARG002
        self.seen = self.seen + np.uint8([0, 1, 0])
        return self.seen, 0.0, int(self.seen[1]) == self.length + int(self.seen[2]), False, {}

    def render(self):
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[0, 0] = self.seen
        return picture


def pictured(view):
    """What the pictures of a view tell, as (episode, step, which one)."""
    return [tuple(int(x) for x in picture.pixels[0, 0]) for picture in view.pictures]


def expected(seen, frames):
    """What they have to tell at an observation: the last steps of its own episode, oldest first."""
    episode, step, number = (int(x) for x in seen)
    return [(episode, one, number) for one in range(max(0, step - frames + 1), step + 1)]
