"""Tests that take `script` hold for every script, those that take `replay` for those with label replay."""

import gymnasium as gym
import pytest
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball
from minigrid.minigrid_env import MiniGridEnv

from tests.algos.scripts import a2c, a2c_replay, ppo, ppo_replay


@pytest.fixture(params=[ppo, a2c, ppo_replay, a2c_replay], ids=lambda script: script.ALGO)
def script(request):
    return request.param


@pytest.fixture(params=[ppo_replay, a2c_replay], ids=lambda script: script.ALGO)
def replay(request):
    return request.param


class TurnToTheBallEnv(MiniGridEnv):
    """One step an episode: a ball lies to the left or to the right, and turning to it is worth 1."""

    def __init__(self, **kwargs):
        super().__init__(mission_space=MissionSpace(lambda: "turn to the ball"), grid_size=5, max_steps=8, **kwargs)

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        self.agent_pos, self.agent_dir = (2, 2), self._rand_int(0, 4)
        self.side = self._rand_elem([-1, 1])
        self.grid.set(*(self.agent_pos + self.side * self.right_vec), Ball("blue"))
        self.mission = "turn to the ball"

    def step(self, action):
        right = self.actions.left if self.side < 0 else self.actions.right
        obs, _, _, truncated, info = super().step(action)
        return obs, float(action == right), True, truncated, info


@pytest.fixture
def turn_to_the_ball():
    gym.register("MiniGrid-TurnToTheBall-v0", TurnToTheBallEnv)
    yield "MiniGrid-TurnToTheBall-v0"
    del gym.registry["MiniGrid-TurnToTheBall-v0"]
