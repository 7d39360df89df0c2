"""Frames per second of plain PPO: the scripts' student beside the one of version 0.1.0, in turns in one process.

python benchmarks/student_speed.py

Version 0.1.0's student had 58 planes of zeros and ones over the whole window, and a dense layer that grew with it; its
environments drew MiniGrid's partial view, which no student used, at every step.
"""

import importlib.util
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import tyro

from lvlm2p_wrappers import AgentCentredObservation

SCRIPT = Path(__file__).resolve().parents[1] / "algos" / "ppo_lvlm2p.py"
spec = importlib.util.spec_from_file_location("ppo_lvlm2p", SCRIPT)
ppo = sys.modules["ppo_lvlm2p"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ppo)


@dataclass
class Args:
    """What is measured."""

    envs: tuple[str, ...] = ("MiniGrid-KeyCorridorS3R3-v0", "MiniGrid-UnlockPickup-v0", "MiniGrid-MultiRoom-N2-S4-v0")
    updates: int = 3  # rollouts with their updates for each student, after one that is not counted
    num_envs: int = 8  # environments side by side
    num_steps: int = 128  # steps of a rollout


class Planes(gym.ObservationWrapper):
    """What version 0.1.0's student saw, at what it cost."""

    def __init__(self, env):
        super().__init__(env)
        size = 2 * max(self.unwrapped.width, self.unwrapped.height) - 3
        self.observation_space = gym.spaces.Box(0, 1, (len(AgentCentredObservation.PLANES), size, size), np.uint8)
        del self.unwrapped.gen_obs  # the partial view is drawn again

    def observation(self, observation):
        """Lay the cells out as planes."""
        return AgentCentredObservation.planes(observation)


class PlanesAgent(ppo.Agent):
    """Version 0.1.0's network."""

    def __init__(self, envs):
        nn.Module.__init__(self)
        planes, height, width = envs.single_observation_space.shape
        conv1 = ppo.layer_init(nn.Conv2d(planes, 32, 3, padding=1))
        conv2 = ppo.layer_init(nn.Conv2d(32, 32, 3))
        dense = ppo.layer_init(nn.Linear(32 * (height - 2) * (width - 2), 128))
        self.network = nn.Sequential(conv1, nn.ReLU(), conv2, nn.ReLU(), nn.Flatten(), dense, nn.ReLU())
        self.actor = ppo.layer_init(nn.Linear(128, envs.single_action_space.n), std=0.01)
        self.critic = ppo.layer_init(nn.Linear(128, 1), std=1)

    def forward(self, obs):
        """The log-probabilities of all actions, and the value."""
        hidden = self.network(obs.float())
        return self.actor(hidden).log_softmax(-1), self.critic(hidden).squeeze(-1)


class Student:
    """One student in training; `update` collects a rollout and learns from it."""

    def __init__(self, args, env_id, wrapper, agent):
        self.args = ppo.Args(env_id=env_id, lam=0, num_envs=args.num_envs, num_steps=args.num_steps)

        def make_env():
            env = AgentCentredObservation(gym.wrappers.RecordEpisodeStatistics(gym.make(env_id)))
            return wrapper(env) if wrapper else env

        same_step = gym.vector.AutoresetMode.SAME_STEP
        self.envs = gym.vector.SyncVectorEnv([make_env] * args.num_envs, autoreset_mode=same_step)
        self.agent = agent(self.envs)
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=1e-3, eps=1e-5)
        self.next_obs, self.next_done = torch.as_tensor(self.envs.reset(seed=1)[0]), torch.zeros(args.num_envs)
        self.parameters = sum(weights.numel() for weights in self.agent.parameters())
        self.bytes = self.next_obs[0].numel()

    def update(self):
        """A rollout and its update; returns CPU seconds, which other processes disturb least."""
        args, run, started = self.args, SimpleNamespace(step=lambda *_: None), time.process_time()
        rollout, self.next_obs, self.next_done = ppo.collect(
            self.agent, self.envs, self.next_obs, self.next_done, args, run
        )
        with torch.no_grad():
            _, next_value = self.agent(self.next_obs)
        advantages, returns = ppo.compute_gae(rollout, next_value, self.next_done, args)
        labels = ppo.gather_labels(self.envs, args, rollout, run)
        ppo.update(self.agent, self.optimizer, ppo.make_batch(rollout, advantages, returns, *labels), args, 0)
        return time.process_time() - started


def main(args):
    """Measure all in turns, and print the table."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    frames = args.num_envs * args.num_steps
    print("| environment | student | frames per second of CPU | ratio | parameters | bytes an observation |")
    print("|---|---|---|---|---|---|")
    for env_id in args.envs:
        students = {
            "version 0.1.0": Student(args, env_id, Planes, PlanesAgent),
            "now": Student(args, env_id, None, ppo.Agent),
        }
        seconds = {name: [] for name in students}
        for turn in range(args.updates + 1):
            for name, student in students.items():
                took = student.update()
                if turn:
                    seconds[name].append(took)
        speeds = {name: frames / statistics.median(took) for name, took in seconds.items()}
        for name, student in students.items():
            ratio = f"{speeds[name] / speeds['version 0.1.0']:.1f}x"
            figures = f"{speeds[name]:,.0f} | {ratio} | {student.parameters:,} | {student.bytes:,}"
            print(f"| {env_id} | {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args))
