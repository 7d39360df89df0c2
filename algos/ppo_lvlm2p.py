"""PPO whose student also stays close to a vision-language teacher (LVLM2P); docs/ppo_lvlm2p.md explains it."""

import copy
import csv
import itertools
import json
import os
import signal
import sys
import time
from collections import defaultdict, deque, namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import tyro
from rich.progress import Progress
from torch.utils.tensorboard import SummaryWriter

from lvlm2p_wrappers import AgentCentredObservation, TeacherError, UsageError, VectorTeacherWrapper

ALGO = "ppo"
TELL_EVERY_S = 30  # where there is no terminal to draw a bar in


@dataclass
class Args:
    """Flags and defaults; those before `model` are CleanRL's."""

    exp_name: str = Path(__file__).stem  # the name of this experiment
    seed: int = 1  # seed of the experiment
    torch_deterministic: bool = True  # if toggled, `torch.backends.cudnn.deterministic=True`
    cuda: bool = True  # use the GPU where there is one
    track: bool = False  # if toggled, this experiment will be tracked with Weights and Biases
    wandb_project_name: str = "lvlm2p"  # the wandb's project name
    wandb_entity: str | None = None  # the entity (team) of wandb's project
    capture_video: bool = False  # whether to record the first env into videos/ (needs moviepy)

    env_id: str = "MiniGrid-LavaGapS7-v0"  # the id of a MiniGrid or BabyAI env
    total_timesteps: int = 30_000  # total timesteps of the experiment, all envs together
    learning_rate: float = 1e-3  # the learning rate of the optimizer
    num_envs: int = 4  # the number of parallel game environments
    num_steps: int = 64  # the number of steps to run in each environment per policy rollout
    num_steps_alone: int = 0  # the number of steps once lam is 0 (0: num-steps)
    anneal_lr: bool = False  # toggle learning rate annealing to zero over total-timesteps
    gamma: float = 0.99  # the discount factor gamma
    gae_lambda: float = 0.95  # the lambda for the general advantage estimation
    num_minibatches: int = 4  # the number of mini-batches
    update_epochs: int = 4  # the K epochs to update the policy
    norm_adv: bool = True  # toggles advantages normalization, per mini-batch
    clip_coef: float = 0.2  # the surrogate clipping coefficient
    clip_vloss: bool = True  # toggles whether or not to use a clipped loss for the value function, as per the paper
    ent_coef: float = 0.01  # coefficient of the entropy
    vf_coef: float = 0.5  # coefficient of the value function
    max_grad_norm: float = 0.5  # the maximum norm for the gradient clipping
    target_kl: float | None = None  # the target KL divergence threshold, at which an update stops
    model: str = "embedded/minigrid-planner"  # the teacher, as a LiteLLM model string: gemini/gemini-2.5-flash-lite
    prompts: str | None = None  # folder of your own prompt templates, over the built-in ones
    store: str | None = "default"  # file that keeps the teacher's answers (default: in the user's cache; None: no file)
    concurrency: int = 16  # the most calls to the teacher's provider in flight
    rpm: int | None = None  # the most calls a minute
    budget_usd: float | None = None  # the most US dollars to spend; then training goes on without new labels
    budget_calls: int | None = None  # the most calls
    offline: bool = False  # answer from the store alone
    lam: float = 1.0  # weight of KL(teacher || student) in the loss; 0: no teacher is asked
    lam_decay_steps: int = 0  # timesteps in which lam falls to 0, where questions end (0: lam is constant)
    lam_gate_return: float = 0.0  # the teacher's own mean return; lam falls as the student's comes near it (0: no gate)
    rl_coef: float = 1.0  # weight of the reinforcement part of the loss (0: distillation alone)
    labels: Literal["soft", "hard"] = "soft"  # learn from the teacher's distribution, or its most probable action alone
    label_temperature: float = 1.0  # soft labels are raised to the power of its inverse: below 1 they are sharpened
    ask_share: float = 1.0  # share of the frames to ask about: drawn from views not asked about yet
    replay_minibatches: int = 0  # minibatches of labels bought before, after each rollout (0: no label replay)
    replay_batch: int = 256  # labels in each of them
    replay_size: int = 20_000  # how many views' labels are kept for that, the last ones
    distrust_fatal: bool = False  # drop the advice for a view once following it ended an episode without reward
    samples_every: int = 50  # updates between pictures of what teacher and student make of some views (0: none)
    checkpoint_every: int = 0  # updates between checkpoints, from which a killed run can be resumed (0: none)
    resume: str | None = None  # folder of a run to go on with: its flags, its weights, its curve

    def __post_init__(self):
        at_least = dict.fromkeys(("num_envs", "num_steps", "num_minibatches", "update_epochs", "concurrency"), 1)
        at_least |= dict.fromkeys(("replay_batch", "replay_size"), 1) | {"total_timesteps": self.batch_size}
        at_least |= dict.fromkeys(("lam", "lam_decay_steps", "lam_gate_return", "rl_coef", "ask_share"), 0)
        at_least |= dict.fromkeys(("learning_rate", "replay_minibatches", "samples_every", "checkpoint_every"), 0)
        at_least |= dict.fromkeys(("seed", "gamma", "gae_lambda"), 0)
        at_least["label_temperature"] = 0.1  # at less, powers of probabilities are no floats any more
        at_least["num_steps_alone"] = self.num_steps if self.num_steps_alone else 0
        for name, least in at_least.items():
            if not (value := getattr(self, name)) >= least:  # "not >=", so that NaN fails too
                raise UsageError(f"--{name.replace('_', '-')} {value}: give {least} or more")
        for name in ("ask_share", "gamma", "gae_lambda"):
            if (value := getattr(self, name)) > 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: give at most 1")
        if self.lam == self.rl_coef == 0:
            raise UsageError("--lam 0 --rl-coef 0: nothing is left to learn from; give at least one of them")
        if (most := self.batch_size // 2) < (given := self.num_minibatches):  # one row alone cannot be normalized
            raise UsageError(f"--num-minibatches {given}: give at most {most}, half of a rollout's frames")

    @property
    def batch_size(self):
        """Frames of a rollout."""
        return self.num_envs * self.num_steps


# What may change when a run is resumed: how long it goes on and by what means, and not what it learns.
RENEWABLE = {"resume", "total_timesteps", "store", "concurrency", "rpm", "budget_usd", "budget_calls", "offline"}
RENEWABLE |= {"samples_every", "checkpoint_every", "cuda", "track", "wandb_project_name", "wandb_entity"}


def make_env(env_id, idx, capture_video, run_name):
    """Env number idx, as the student sees it."""
    env = gym.make(env_id, render_mode="rgb_array" if capture_video else None)
    if capture_video and idx == 0:
        env = gym.wrappers.RecordVideo(env, f"videos/{run_name}")
    env = gym.wrappers.RecordEpisodeStatistics(env)
    return AgentCentredObservation(env)


def make_envs(args, run_name):
    """The envs side by side, under the teacher's wrapper where there is one."""
    # SAME_STEP: under Gymnasium's default, every episode would add a transition whose action was ignored.
    envs = gym.vector.SyncVectorEnv(
        [lambda i=i: make_env(args.env_id, i, args.capture_video, run_name) for i in range(args.num_envs)],
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
    )
    if args.lam == 0:
        return envs
    # Questions go out while the envs run, where collect() asks; gather() waits for the answers after each rollout.
    names = "prompts", "store", "concurrency", "rpm", "budget_usd", "budget_calls", "offline"
    options = {name: getattr(args, name) for name in names}
    return VectorTeacherWrapper(envs, args.model, defer=True, ask="manual", on_error="skip", **options)


def layer_init(layer, std=2**0.5):
    """Orthogonal initialisation."""
    nn.init.orthogonal_(layer.weight, std)
    nn.init.zeros_(layer.bias)
    return layer


class Agent(nn.Module):
    """The student: two small convolutions over the agent-centred planes; an actor and a critic share them."""

    def __init__(self, envs):
        super().__init__()
        planes, height, width = envs.single_observation_space.shape
        conv1 = layer_init(nn.Conv2d(planes, 32, 3, padding=1))
        conv2 = layer_init(nn.Conv2d(32, 32, 3))
        dense = layer_init(nn.Linear(32 * (height - 2) * (width - 2), 128))
        self.network = nn.Sequential(conv1, nn.ReLU(), conv2, nn.ReLU(), nn.Flatten(), dense, nn.ReLU())
        self.actor = layer_init(nn.Linear(128, envs.single_action_space.n), std=0.01)
        self.critic = layer_init(nn.Linear(128, 1), std=1)

    def get_action_and_value(self, obs, action=None):
        """As in CleanRL; and the policy's log-probabilities of all actions."""
        hidden = self.network(obs.float())
        policy = torch.distributions.Categorical(logits=self.actor(hidden), validate_args=False)
        if action is None:
            action = policy.sample()
        return action, policy.log_prob(action), policy.entropy(), self.critic(hidden).squeeze(-1), policy.logits

    def get_logprobs_and_value(self, obs):
        """The policy's log-probabilities of all actions, of which none is drawn, and the value."""
        hidden = self.network(obs.float())
        return self.actor(hidden).log_softmax(-1), self.critic(hidden).squeeze(-1)


# Tensors of shape (num_steps, num_envs, ...); `dones` is 1 where `obs` begins a new episode.
Rollout = namedtuple("Rollout", "obs dones actions logprobs values rewards")
# What an update learns from; one row a frame.
Batch = namedtuple("Batch", "obs actions logprobs values advantages returns teacher_probs teacher_mask")


def collect(agent, envs, next_obs, next_done, num_steps, log, labels, ask_share):
    """Play num_steps steps in every env, asking about that share of the frames; below 1, about each view once.

    Returns the steps, and the observation and done that come after them.
    """
    steps, allowance, asked = [], 0, labels.kept.keys() | labels.fatal
    for _ in range(num_steps):
        with torch.no_grad():
            action, logprob, _, value, _ = agent.get_action_and_value(next_obs)
        if ask_share == 1:
            envs.ask(np.ones(len(next_obs), dtype=bool))
        elif ask_share > 0:
            allowance += ask_share * len(next_obs)
            views = [view.tobytes() for view in next_obs.cpu().numpy()]
            new = {view: row for row, view in enumerate(views) if view not in asked}
            drawn = [[*new][place] for place in torch.randperm(len(new))[: int(allowance)].tolist()]
            envs.ask(np.isin(np.arange(len(views)), [new[view] for view in drawn]))
            asked.update(drawn)
            allowance -= len(drawn)
        obs, reward, terminated, truncated, infos = envs.step(action.cpu().numpy())
        log.step(reward, infos)
        reward = torch.as_tensor(reward).to(value)
        steps.append((next_obs, next_done, action, logprob, value, reward))
        # MiniGrid's time limit is part of the task, nothing can be earned after it: both ends stop the value.
        next_obs, next_done = torch.as_tensor(obs).to(next_obs), torch.as_tensor(terminated | truncated).to(value)
    return Rollout(*map(torch.stack, zip(*steps, strict=True))), next_obs, next_done


def compute_gae(rewards, values, dones, next_value, next_done, gamma, gae_lambda):
    """Generalized advantage estimation (Schulman et al. 2016); advantages and returns, each (num_steps, num_envs)."""
    advantages, advantage = torch.zeros_like(rewards), 0
    for t in reversed(range(len(rewards))):
        goes_on = 1 - next_done
        delta = rewards[t] + gamma * next_value * goes_on - values[t]
        advantages[t] = advantage = delta + gamma * gae_lambda * goes_on * advantage
        next_value, next_done = values[t], dones[t]
    return advantages, advantages + values


def sharpened(probs, args):
    """What is learnt of the teacher's distributions; rows of zeros, without advice, stay what they are."""
    if args.labels == "hard":
        return nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).float()
    powers = probs ** (1 / args.label_temperature)
    return powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)


def distillation_loss(teacher_probs, student_logprobs, mask):
    """Mean of KL(teacher || student) over the rows with advice (mask True); 0 where there are none."""
    teacher_probs, student_logprobs = teacher_probs[mask], student_logprobs[mask]
    kl = torch.special.xlogy(teacher_probs, teacher_probs) - teacher_probs * student_logprobs  # xlogy: 0 log 0 = 0
    return kl.sum() / max(len(kl), 1)


def make_batch(rollout, *columns):
    """The rows of a rollout, and their advantages, returns and advice, one a frame."""
    columns = (rollout.obs, rollout.actions, rollout.logprobs, rollout.values, *columns)
    return Batch(*(column.flatten(0, 1) for column in columns))


def make_optimizer(agent, learning_rate):
    """Adam, with CleanRL's epsilon."""
    return torch.optim.Adam(agent.parameters(), lr=learning_rate, eps=1e-5)


def ppo_loss(agent, batch, args, lam):
    """PPO's clipped loss plus lam times the distance to the teacher; and what is logged of it."""
    _, logprob, entropy, value, student = agent.get_action_and_value(batch.obs, batch.actions)
    logratio = logprob - batch.logprobs
    ratio = logratio.exp()
    advantages = batch.advantages
    if args.norm_adv:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    pg_loss = -torch.min(advantages * ratio, advantages * ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)).mean()
    v_loss = (value - batch.returns) ** 2
    if args.clip_vloss:
        v_clipped = batch.values + (value - batch.values).clamp(-args.clip_coef, args.clip_coef)
        v_loss = torch.max(v_loss, (v_clipped - batch.returns) ** 2)
    v_loss = 0.5 * v_loss.mean()
    loss = args.rl_coef * (pg_loss - args.ent_coef * entropy.mean() + args.vf_coef * v_loss)
    measured = {
        "losses/value_loss": v_loss.item(),
        "losses/policy_loss": pg_loss.item(),
        "losses/entropy": entropy.mean().item(),
        "losses/old_approx_kl": (-logratio).mean().item(),
        "losses/approx_kl": ((ratio - 1) - logratio).mean().item(),  # http://joschu.net/blog/kl-approx.html
        "losses/clipfrac": ((ratio - 1.0).abs() > args.clip_coef).float().mean().item(),
    }
    if lam > 0 and batch.teacher_mask.any():
        kl = distillation_loss(batch.teacher_probs, student, batch.teacher_mask)
        loss = loss + lam * kl
        favourite = batch.teacher_probs.gather(-1, student.argmax(-1, keepdim=True)).squeeze(-1)
        agree = favourite > batch.teacher_probs.amax(-1) - 1e-6  # with ties, any of the best will do
        measured |= {"teacher/kl": kl.item(), "teacher/agreement": agree[batch.teacher_mask].float().mean().item()}
    return loss, measured


def descend(agent, optimizer, loss, args):
    """One step of the optimizer."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
    optimizer.step()


def update(agent, optimizer, batch, args, lam):
    """Some epochs of minibatches over one batch; returns the mean of each thing measured."""
    measured = defaultdict(list)
    for _ in range(args.update_epochs):
        for rows in torch.randperm(len(batch.obs), device=batch.obs.device).tensor_split(args.num_minibatches):
            loss, values = ppo_loss(agent, Batch(*(column[rows] for column in batch)), args, lam)
            descend(agent, optimizer, loss, args)
            for name, value in values.items():
                measured[name].append(value)
        if args.target_kl is not None and values["losses/approx_kl"] > args.target_kl:
            break
    return {name: float(np.mean(values)) for name, values in measured.items()}


class Labels:
    """The last labels bought, one for each view, to learn from again (DAgger's aggregation, Ross et al. 2011)."""

    def __init__(self, envs):
        self.shape = envs.single_observation_space.shape
        self.kept = {}  # the teacher's probabilities by view
        self.fatal = set()  # views where advice was followed and ended the episode without reward

    def add(self, rollout, next_done, probs, mask, args):
        """Keep a rollout's labels, but for fatal ones; returns the mask of those to learn from."""
        if not (args.replay_minibatches or args.distrust_fatal):
            return mask
        views = [view.tobytes() for view in rollout.obs.flatten(0, 1).cpu().numpy()]
        labelled = itertools.compress(zip(views, probs.flatten(0, 1).cpu(), strict=True), mask.flatten().tolist())
        known = self.kept | dict(labelled)
        if args.distrust_fatal:
            ended = torch.cat([rollout.dones[1:], next_done[None]]) > 0
            lost, actions = (ended & (rollout.rewards <= 0)).flatten(), rollout.actions.flatten()
            for row in lost.nonzero().flatten().tolist():
                if views[row] in known and known[views[row]].argmax() == actions[row]:
                    self.fatal.add(views[row])
            mask = mask & torch.tensor([view not in self.fatal for view in views], device=mask.device).view_as(mask)
        if args.replay_minibatches:
            kept = [(view, row) for view, row in known.items() if view not in self.fatal]
            self.kept = dict(kept[-args.replay_size :])
        return mask

    def learn(self, agent, optimizer, args, lam):
        """Some minibatches of the distillation loss; returns its mean."""
        if not (args.replay_minibatches and self.kept):
            return {}
        kept, losses, device = [*self.kept.items()], [], next(agent.parameters()).device
        # The critic shares most of its weights. If it is not held where it is, its values are worth nothing afterwards,
        # and reinforcement ruins the student once lam has fallen (as Phasic Policy Gradient, Cobbe et al. 2021, holds
        # the policy while it trains the value).
        before = copy.deepcopy(agent)
        for _ in range(args.replay_minibatches):
            rows = torch.randint(len(kept), (args.replay_batch,))
            views, probs = zip(*(kept[row] for row in rows.tolist()), strict=True)
            obs = torch.frombuffer(bytearray().join(views), dtype=torch.uint8).view(-1, *self.shape).to(device)
            student, value = agent.get_logprobs_and_value(obs)
            with torch.no_grad():
                _, value_before = before.get_logprobs_and_value(obs)
            kl = distillation_loss(torch.stack(probs).to(device), student, torch.ones_like(rows, dtype=torch.bool))
            v_loss = 0.5 * ((value - value_before) ** 2).mean()
            descend(agent, optimizer, lam * kl + args.vf_coef * v_loss, args)
            losses.append(kl.item())
        return {"teacher/replay_kl": float(np.mean(losses))}


def mean_of_last(n, ends, which):
    """Of the last n episodes' return (0) or success (1); None before there are n."""
    return float(np.mean([*ends][-n:], axis=0)[which]) if len(ends) >= n else None


class RunLog:
    """What a run leaves in its folder: TensorBoard's file and curve.csv; at its end summary.json and student.pt."""

    interrupted = False  # by Ctrl-C

    def __init__(self, args, teacher, run_dir, global_step=0, episodes=0, seconds=0, ends=(), counts=None):
        self.args, self.teacher, self.run_dir, self.told = args, teacher, run_dir, time.perf_counter()
        self.global_step, self.episodes, self.started = global_step, episodes, time.perf_counter() - seconds
        self.ends = deque(ends, maxlen=100)  # (return, success) of the last episodes
        # A teacher may have served an earlier run of this process, and a resumed run another process.
        self.counters_before = teacher and (teacher.counters - counts if counts else teacher.counters)
        self.writer = SummaryWriter(run_dir, purge_step=global_step + 1)
        self.writer.add_text("hyperparameters", "\n".join(f"    {name}: {value}" for name, value in vars(args).items()))
        file, aside = run_dir / "curve.csv", run_dir / "curve.tmp"
        rows = file.read_text().splitlines(keepends=True) if file.exists() else []
        aside.write_text("".join(rows[:1] + [row for row in rows[1:] if int(row.split(",")[0]) <= global_step]))
        aside.replace(file)  # a kill leaves a whole curve
        self.curve = file.open("a", newline="")
        self.bar = Progress(disable=not sys.stdout.isatty())
        self.task = self.bar.add_task("", total=args.total_timesteps)
        self.bar.start()

    @classmethod
    def interrupt(cls, *_):
        """End the run after its present update; at the second call at once."""
        if cls.interrupted:
            raise KeyboardInterrupt
        cls.interrupted = True

    def counts(self):
        """What the teacher did in this run."""
        return self.teacher and self.teacher.counters - self.counters_before

    def step(self, reward, infos):
        """Count a step of every env, and the episodes that it ended."""
        self.global_step += len(reward)
        for i in np.flatnonzero(infos.get("_final_info", [])):
            self.episodes += 1
            episode = infos["final_info"]["episode"]
            self.ends.append((float(episode["r"][i]), float(reward[i] > 0)))
            self.writer.add_scalar("charts/episodic_return", episode["r"][i], self.global_step)
            self.writer.add_scalar("charts/episodic_length", episode["l"][i], self.global_step)

    def figures(self):
        """The figures of summary.json so far."""
        names = ("labels", "distinct_views", "calls", "cached", "bad_replies", "cost_usd") if self.teacher else ()
        counts = {name: getattr(self.counts(), name) for name in names}
        return {
            "global_step": self.global_step,
            "episodes": self.episodes,
            "mean_return_100": mean_of_last(100, self.ends, 0),
            "success_100": mean_of_last(100, self.ends, 1),
            "steps_per_s": round(self.global_step / (time.perf_counter() - self.started), 1),
            "teacher": {"model": self.teacher.model, **counts} if self.teacher else None,
        }

    def update(self, measured, lam):
        """Write everything after an update: to TensorBoard, as a row of the curve, beside the bar."""
        figures = self.figures()
        measured["charts/SPS"] = int(figures["steps_per_s"])
        if teacher := figures.pop("teacher"):
            measured |= {f"teacher/{name}": teacher[name] for name in ("labels", "calls", "bad_replies", "cost_usd")}
            measured |= {"teacher/cached_share": teacher["cached"] / max(teacher["labels"], 1), "teacher/lam": lam}
        for name, value in measured.items():
            self.writer.add_scalar(name, value, self.global_step)
        row = figures | {"mean_return_50": mean_of_last(50, self.ends, 0)}
        row |= {n: measured.get(f"teacher/{n}") for n in ("lam", "kl", "agreement", "labels", "calls", "cost_usd")}
        csv.writer(self.curve).writerows([row.values()] if self.curve.tell() else [row, row.values()])  # header first
        self.curve.flush()
        names = "global_step", "mean_return_100", "success_100", "steps_per_s", "labels", "calls", "cost_usd"
        shown = "  ".join(f"{name} {round(row[name], 3):,}" for name in names if row[name] is not None)
        self.bar.update(self.task, completed=self.global_step, description=shown)
        if self.bar.disable and time.perf_counter() - self.told >= TELL_EVERY_S:
            self.told = time.perf_counter()
            print(shown, flush=True)

    def finish(self, agent):
        """Write summary.json and student.pt, whatever ended the run."""
        RunLog.interrupted = False
        self.bar.stop()
        self.writer.close()
        self.curve.close()
        args = self.args
        summary = {"env_id": args.env_id, "algo": ALGO, "seed": args.seed, "lam": args.lam, **self.figures()}
        (self.run_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        torch.save({"args": vars(args), "student": agent.state_dict()}, self.run_dir / "student.pt")
        print(f"{self.run_dir}: {json.dumps(summary)}")
        return summary


def weight_of_advice(args, global_step, student_return):
    """The lam in force: constant, falling with time, or with the student's distance to its teacher."""
    lam = args.lam
    if args.lam_decay_steps:
        lam *= max(1 - global_step / args.lam_decay_steps, 0)
    if args.lam_gate_return and student_return is not None:  # QDagger (Agarwal et al. 2022), eq. 3
        lam *= min(max(1 - student_return / args.lam_gate_return, 0), 1)
    return lam


def train(args, envs, agent, optimizer, log, labels, device):
    """Collect, gather the teacher's advice, learn, log; until total_timesteps."""
    # A resumed run begins new episodes, other ones than the run did at its start.
    next_obs = torch.as_tensor(envs.reset(seed=args.seed + log.global_step)[0], device=device)
    next_done = torch.zeros(args.num_envs, device=device)
    for iteration in itertools.count():
        lam = weight_of_advice(args, log.global_step, mean_of_last(50, log.ends, 0))
        num_steps = args.num_steps if lam > 0 else args.num_steps_alone or args.num_steps
        if log.interrupted or log.global_step + num_steps * args.num_envs > args.total_timesteps:
            break
        if args.anneal_lr:
            optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - log.global_step / args.total_timesteps)
        ask_share = args.ask_share if lam > 0 else 0  # advice that weighs nothing is not worth asking for
        rollout, next_obs, next_done = collect(agent, envs, next_obs, next_done, num_steps, log, labels, ask_share)
        nothing = np.zeros((num_steps, args.num_envs, envs.single_action_space.n), np.float32)
        advice, mask = envs.gather() if args.lam > 0 else (nothing, nothing.any(-1))
        advice, mask = sharpened(torch.as_tensor(advice, device=device), args), torch.as_tensor(mask, device=device)
        with torch.no_grad():
            _, next_value = agent.get_logprobs_and_value(next_obs)
        advantages, returns = compute_gae(
            rollout.rewards, rollout.values, rollout.dones, next_value, next_done, args.gamma, args.gae_lambda
        )
        if lam > 0:
            mask = labels.add(rollout, next_done, advice, mask, args)
        measured = update(agent, optimizer, make_batch(rollout, advantages, returns, advice, mask), args, lam)
        if lam > 0:
            measured |= labels.learn(agent, optimizer, args, lam)
            measured["teacher/fatal_views"] = len(labels.fatal)
        measured["losses/explained_variance"] = (1 - (returns - rollout.values).var() / returns.var()).item()
        measured["charts/learning_rate"] = optimizer.param_groups[0]["lr"]
        log.update(measured, lam)
        if lam > 0 and args.samples_every and iteration % args.samples_every == 0:
            picture = envs.samples(agent.get_logprobs_and_value(next_obs)[0].exp().numpy(force=True))
            log.writer.add_image("teacher/samples", picture, log.global_step, dataformats="HWC")
        if args.checkpoint_every and (iteration + 1) % args.checkpoint_every == 0:
            save_checkpoint(agent, optimizer, log, labels)
    if args.checkpoint_every:
        save_checkpoint(agent, optimizer, log, labels)
    if log.interrupted:
        raise KeyboardInterrupt


def save_checkpoint(agent, optimizer, log, labels):
    """Keep all that a killed run needs to go on; written aside first, so that a kill leaves a whole one."""
    learnt = {"student": agent.state_dict(), "optimizer": optimizer.state_dict()}
    learnt["rng"] = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    so_far = {"global_step": log.global_step, "episodes": log.episodes, "ends": log.ends, "counts": log.counts()}
    so_far["seconds"] = time.perf_counter() - log.started
    learnt["labels"] = labels.kept, labels.fatal
    torch.save({"algo": ALGO, "args": vars(log.args), **learnt, "log": so_far}, log.run_dir / "checkpoint.tmp")
    (log.run_dir / "checkpoint.tmp").replace(log.run_dir / "checkpoint.pt")


def load_checkpoint(run_dir):
    """What `save_checkpoint` kept of a run."""
    if not (checkpoint := Path(run_dir) / "checkpoint.pt").is_file():
        raise UsageError(f"--resume {run_dir}: no checkpoint.pt in it; --checkpoint-every writes one")
    checkpoint = torch.load(checkpoint, weights_only=False, map_location="cpu")  # the log's state is no tensor
    if checkpoint["algo"] != ALGO:
        raise UsageError(f"--resume {run_dir}: it is a run of {checkpoint['algo']}, this script is {ALGO}'s")
    return checkpoint


def main(args):
    """Train one student; returns the summary that it leaves in runs/."""
    resumed = load_checkpoint(args.resume) if args.resume else {"args": {}, "log": {}}
    for name, kept in resumed["args"].items():
        # An annealed learning rate depends on where the run ends.
        is_renewable = name in RENEWABLE and not (name == "total_timesteps" and args.anneal_lr)
        if not is_renewable and (given := getattr(args, name)) != kept:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"--resume {args.resume}: it is a run with {flag} {kept}, and {flag} {given} another one")
    run_name = f"{args.env_id}__{args.exp_name}__{args.seed}__{int(time.time())}"
    run_dir = Path(args.resume or f"runs/{run_name}")
    if args.track:
        try:
            import wandb
        except ImportError:
            raise UsageError("--track needs Weights and Biases: pip install wandb") from None
        where = {"project": args.wandb_project_name, "entity": args.wandb_entity, "name": run_name}
        wandb.init(**where, sync_tensorboard=True, config=vars(args), monitor_gym=True, save_code=True)

    torch.manual_seed(args.seed)  # nothing else draws: the envs are seeded when they are reset
    torch.backends.cudnn.deterministic = args.torch_deterministic
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))  # so small a network is slower on several
    device = torch.device("cuda" if torch.cuda.is_available() and args.cuda else "cpu")

    envs = make_envs(args, run_name)
    agent = Agent(envs).to(device)
    optimizer = make_optimizer(agent, args.learning_rate)
    labels = Labels(envs)
    run_dir.mkdir(parents=True, exist_ok=True)
    log = RunLog(args, envs.teacher if args.lam > 0 else None, run_dir, **resumed["log"])
    if args.resume:
        agent.load_state_dict(resumed["student"])
        optimizer.load_state_dict(resumed["optimizer"])
        torch.set_rng_state(resumed["rng"][0])
        torch.cuda.set_rng_state_all(resumed["rng"][1][: torch.cuda.device_count()])
        labels.kept, labels.fatal = resumed["labels"]
        print(f"Resumed at step {log.global_step}; the episodes that were under way begin anew.")
    if log.teacher:
        print(f"Teacher: {log.teacher.model}. Store: {log.teacher.store_path}.")
    try:
        train(args, envs, agent, optimizer, log, labels, device)
    finally:  # after Ctrl-C and errors too: what was learnt and paid for is not lost
        envs.close()
        summary = log.finish(agent)
    return summary


def cli():
    """Run the command line; every mistake of the user ends in one short message."""
    try:
        args = tyro.cli(Args)
        if args.resume:  # whatever is not given is as it was
            args = tyro.cli(Args, default=Args(**load_checkpoint(args.resume)["args"] | {"resume": args.resume}))
        main(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except (TeacherError, gym.error.Error) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError | gym.error.Error) else 1)


if __name__ == "__main__":
    # An exception at any line could be swallowed there (by the enum of MiniGrid's actions) or leave a lock taken.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, RunLog.interrupt)
    cli()
