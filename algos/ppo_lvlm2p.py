"""PPO whose loss also keeps the student close to a vision-language teacher (LVLM2P); see docs/ppo_lvlm2p.md."""

import itertools
import math
import os
from collections import defaultdict, namedtuple
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import tyro
from torch.utils.tensorboard import SummaryWriter

from lvlm2p_wrappers import AgentCentredObservation, TrainingRun, UsageError, VectorTeacherWrapper, command_line

ALGO = "ppo_lvlm2p"
REPLAY = "lam-decay-steps label-temperature ask-share replay-minibatches replay-batch replay-size num-steps-alone"
# Flags of version 0.1.0, and what has become of them.
GONE = dict.fromkeys(REPLAY.split(), f"is a flag of algos/{ALGO}_replay.py now")
GONE |= dict.fromkeys(("distrust-fatal", "lam-gate-return", "rl-coef"), "is gone: it did not help")
GONE |= {"labels": "is called --label-type now"}


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
    capture_video: bool = False  # whether to record the first environment into videos/ (needs moviepy)

    env_id: str = "MiniGrid-LavaGapS7-v0"  # the id of a MiniGrid or BabyAI environment
    total_timesteps: int = 30_000  # total timesteps of the experiment, all environments together
    learning_rate: float = 1e-3  # the learning rate of the optimizer
    num_envs: int = 4  # the number of parallel game environments
    num_steps: int = 64  # the number of steps to run in each environment per policy rollout
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
    rpm: int | None = None  # rate limit: the most calls a minute
    budget_usd: float | None = None  # the most US dollars to spend; then training goes on without new labels
    budget_calls: int | None = None  # the most calls; then training goes on without new labels
    offline: bool = False  # answer from the store alone
    lam: float = 1.0  # weight of KL(teacher || student) in the loss; 0: plain reinforcement learning without a teacher
    label_type: Literal["soft", "hard"] = "soft"  # the teacher's distribution, or its most probable action alone
    samples_every: int = 50  # updates between logged pictures of the distributions of teacher and student (0: none)
    checkpoint_every: int = 0  # updates between checkpoints, from which a killed run can be resumed (0: none)
    resume: str | None = None  # folder of a run to continue: its flags, its weights, its curve

    def check(self):
        """Raise a UsageError that names the first value that cannot work."""
        at_least = {name: 0 for name, value in vars(self).items() if isinstance(value, int | float)}
        at_least |= dict.fromkeys(("num_envs", "num_steps", "num_minibatches", "update_epochs", "concurrency"), 1)
        at_least["total_timesteps"] = self.batch_size
        for name, least in at_least.items():
            if not (value := getattr(self, name)) >= least:  # "not >=", so that NaN fails, too
                raise UsageError(f"--{name.replace('_', '-')} {value}: give {least} or more")
        for name in ("gamma", "gae_lambda"):
            if (value := getattr(self, name)) > 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: give at most 1")
        if (most := self.batch_size // 2) < (given := self.num_minibatches):  # one row alone cannot be normalized
            raise UsageError(f"--num-minibatches {given}: give at most {most}, half of a rollout's frames")

    @property
    def batch_size(self):
        """Frames of a rollout."""
        return self.num_envs * self.num_steps


def make_env(env_id, idx, capture_video, run_name):
    """Environment number idx, as the student sees it."""
    env = gym.make(env_id, render_mode="rgb_array" if capture_video else None)
    if capture_video and idx == 0:
        env = gym.wrappers.RecordVideo(env, f"videos/{run_name}")
    env = gym.wrappers.RecordEpisodeStatistics(env)
    return AgentCentredObservation(env)


def make_envs(args, run_name, **spent):
    """The vector environment; with lam above 0 under the teacher's wrapper."""
    # SAME_STEP: under Gymnasium's default, every episode would add a transition whose action was ignored.
    envs = gym.vector.SyncVectorEnv(
        [lambda i=i: make_env(args.env_id, i, args.capture_video, run_name) for i in range(args.num_envs)],
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
    )
    if args.lam == 0:
        return envs
    # Questions go out while the environments run; gather() waits for the answers after each rollout.
    names = "prompts", "store", "concurrency", "rpm", "budget_usd", "budget_calls", "offline"
    options = {name: getattr(args, name) for name in names} | spent
    return VectorTeacherWrapper(envs, args.model, defer=True, on_error="skip", **options)


def layer_init(layer, std=2**0.5):
    """Orthogonal initialisation."""
    nn.init.orthogonal_(layer.weight, std)
    nn.init.zeros_(layer.bias)
    return layer


class Agent(nn.Module):
    """The student: two small convolutions over the cells near the agent; an actor and a critic share them."""

    def __init__(self, envs):
        super().__init__()
        table = torch.tensor(AgentCentredObservation.TABLE, dtype=torch.float32)
        self.register_buffer("table", table, persistent=False)
        planes = table.shape[1]
        self.rest = len(AgentCentredObservation.PLANES) - planes  # elements that are no cells
        self.size = math.isqrt(envs.single_observation_space.shape[0] - self.rest)
        window = min(self.size, 15)  # farther cells are seen in a coarse picture alone, so that no layer grows
        self.near = slice((self.size - window) // 2, (self.size + window) // 2)
        self.far = nn.MaxPool2d(math.ceil(self.size / 5), ceil_mode=True)
        coarse = planes * math.ceil(self.size / self.far.kernel_size) ** 2
        self.conv1 = layer_init(nn.Conv2d(planes, 16, 3, padding=1))
        self.conv1_rest = layer_init(nn.Linear(self.rest, 16))  # the same at every cell
        self.conv2 = layer_init(nn.Conv2d(16, 16, 3))
        self.dense = layer_init(nn.Linear(16 * (window - 2) ** 2 + coarse, 128))
        self.actor = layer_init(nn.Linear(128, envs.single_action_space.n), std=0.01)
        self.critic = layer_init(nn.Linear(128, 1), std=1)
        self.to(memory_format=torch.channels_last)

    def forward(self, obs):
        """The log-probabilities of all actions, and the value."""
        cells, rest = obs[:, : -self.rest].int(), obs[:, -self.rest :].float()
        cells = cells.unflatten(1, (self.size, self.size))
        planes = nn.functional.embedding(cells, self.table).movedim(-1, 1)
        hidden = self.conv1(planes[:, :, self.near, self.near]) + self.conv1_rest(rest)[:, :, None, None]
        hidden = self.conv2(hidden.relu()).relu()
        hidden = self.dense(torch.cat([hidden.flatten(1), self.far(planes).flatten(1)], 1)).relu()
        return self.actor(hidden).log_softmax(-1), self.critic(hidden).squeeze(-1)

    def get_action_and_value(self, obs, action=None):
        """As in CleanRL; and the log-probabilities of all actions."""
        logprobs, value = self(obs)
        action = torch.multinomial(logprobs.exp(), 1).squeeze(-1) if action is None else action
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        return action, logprobs.gather(-1, action[:, None]).squeeze(-1), entropy, value, logprobs


# Tensors of shape (num_steps, num_envs, ...); `dones` is 1 where `obs` begins a new episode.
Rollout = namedtuple("Rollout", "obs dones actions logprobs values rewards")
# What an update learns from; one row a frame.
Batch = namedtuple("Batch", "obs actions logprobs values advantages returns teacher_probs teacher_mask")


def collect(agent, envs, next_obs, next_done, args, run):
    """Play num_steps steps in every environment; returns them, and the observation and done that come after."""
    steps = []
    for _ in range(args.num_steps):
        with torch.no_grad():
            action, logprob, _, value, _ = agent.get_action_and_value(next_obs)
        obs, reward, terminated, truncated, infos = envs.step(action.cpu().numpy())
        run.step(reward, infos)  # ends the run here if Ctrl-C or SIGTERM asks for it
        steps.append((next_obs, next_done, action, logprob, value, torch.as_tensor(reward).to(value)))
        # MiniGrid's time limit is part of the task, nothing can be earned after it: both ends stop the value.
        next_obs, next_done = torch.as_tensor(obs).to(next_obs), torch.as_tensor(terminated | truncated).to(value)
    return Rollout(*map(torch.stack, zip(*steps, strict=True))), next_obs, next_done


def gather_labels(envs, args, rollout, run):
    """The labels of a rollout, (num_steps, num_envs, n_actions), and the mask of the frames that have one."""
    if args.lam == 0:
        nothing = torch.zeros(*rollout.dones.shape, envs.single_action_space.n)
        return nothing, nothing.any(-1)
    with run.waiting():
        probs, mask = map(torch.as_tensor, envs.gather())
    if args.label_type == "hard":
        probs = nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).float()
    return probs, mask


def compute_gae(rollout, next_value, next_done, args):
    """Generalized advantage estimation (Schulman et al. 2016); advantages and returns, each (num_steps, num_envs)."""
    advantages, advantage = torch.zeros_like(rollout.rewards), 0
    for t in reversed(range(len(rollout.rewards))):
        goes_on = 1 - next_done
        delta = rollout.rewards[t] + args.gamma * next_value * goes_on - rollout.values[t]
        advantages[t] = advantage = delta + args.gamma * args.gae_lambda * goes_on * advantage
        next_value, next_done = rollout.values[t], rollout.dones[t]
    return advantages, advantages + rollout.values


def distillation_loss(teacher_probs, student_logprobs, mask):
    """Mean of KL(teacher || student) over the rows with a label (mask True); 0 where there are none."""
    teacher_probs, student_logprobs = teacher_probs[mask], student_logprobs[mask]
    kl = torch.special.xlogy(teacher_probs, teacher_probs) - teacher_probs * student_logprobs  # xlogy: 0 log 0 = 0
    return kl.sum() / max(len(kl), 1)


def make_batch(rollout, *columns):
    """A rollout with its advantages, returns and labels, one row a frame."""
    columns = (rollout.obs, rollout.actions, rollout.logprobs, rollout.values, *columns)
    return Batch(*(column.flatten(0, 1).to(rollout.obs.device) for column in columns))


def ppo_loss(agent, batch, args, lam):
    """PPO's clipped loss plus lam times the distillation loss; and what is logged of it."""
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
    loss = pg_loss - args.ent_coef * entropy.mean() + args.vf_coef * v_loss
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
    num_minibatches = args.num_minibatches * len(batch.obs) // args.batch_size
    for _ in range(args.update_epochs):
        for rows in torch.randperm(len(batch.obs), device=batch.obs.device).tensor_split(num_minibatches):
            loss, values = ppo_loss(agent, Batch(*(column[rows] for column in batch)), args, lam)
            descend(agent, optimizer, loss, args)
            for name, value in values.items():
                measured[name].append(value)
        if args.target_kl is not None and values["losses/approx_kl"] > args.target_kl:
            break
    return {name: float(np.mean(values)) for name, values in measured.items()}


def save_checkpoint(args, agent, optimizer, run):
    """Keep all that a killed run needs to be resumed."""
    learnt = {"student": agent.state_dict(), "optimizer": optimizer.state_dict()}
    learnt["rng"] = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    kept = {"algo": ALGO, "args": vars(args), **learnt, "run": run.state()}
    run.write("checkpoint.pt", lambda file: torch.save(kept, file))


def load_checkpoint(run_dir):
    """What `save_checkpoint` kept of a run. The file may be somebody else's: it is data, no code in it is run."""
    if not (file := Path(run_dir) / "checkpoint.pt").is_file():
        raise UsageError(f"--resume {run_dir}: no checkpoint.pt in it; --checkpoint-every writes one")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        if (algo := checkpoint["algo"]) == ALGO:
            Args(**checkpoint["args"]).check()
    except Exception as error:
        why = f"is damaged or of version 0.1.0; begin a new run with algos/{ALGO}.py"
        raise UsageError(f"--resume {run_dir}: its checkpoint.pt {why}") from error
    if algo != ALGO:
        raise UsageError(f"--resume {run_dir}: it is a run of algos/{algo}.py; resume it with that script")
    return checkpoint


def train(args, envs, agent, optimizer, run, device):
    """Collect, gather the teacher's labels, learn, log; until total_timesteps."""
    # Nobody else's layouts: not those of another seed, nor those that a resumed run has had before.
    seeds = np.random.SeedSequence([args.seed, run.global_step]).generate_state(args.num_envs).tolist()
    next_obs = torch.as_tensor(envs.reset(seed=seeds)[0], device=device)
    next_done = torch.zeros(args.num_envs, device=device)
    for iteration in itertools.count():
        if run.global_step + args.batch_size > args.total_timesteps:
            break
        if args.anneal_lr:
            optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - run.global_step / args.total_timesteps)
        rollout, next_obs, next_done = collect(agent, envs, next_obs, next_done, args, run)
        labels = gather_labels(envs, args, rollout, run)
        with torch.no_grad():
            _, next_value = agent(next_obs)
        advantages, returns = compute_gae(rollout, next_value, next_done, args)
        measured = update(agent, optimizer, make_batch(rollout, advantages, returns, *labels), args, args.lam)
        if (variance := returns.var(correction=0)) > 0:
            unexplained = (returns - rollout.values).var(correction=0) / variance
            measured["losses/explained_variance"] = 1 - unexplained.item()
        measured["charts/learning_rate"] = optimizer.param_groups[0]["lr"]
        run.log(measured, args.lam)
        if args.lam > 0 and args.samples_every and iteration % args.samples_every == 0:
            run.add_samples(envs, agent(next_obs)[0].exp().numpy(force=True))
        if args.checkpoint_every and (iteration + 1) % args.checkpoint_every == 0:
            save_checkpoint(args, agent, optimizer, run)


def main(args):
    """Train one student; returns the summary that it leaves in runs/."""
    args.check()
    name = f"{args.env_id}__{args.exp_name}__{args.seed}"
    with TrainingRun(name, resume=args.resume) as run, ExitStack() as at_end:
        resumed = load_checkpoint(args.resume) if args.resume else {"args": {}, "run": {}}
        run.refuse_changes(vars(args), resumed["args"])
        if args.track:
            run.track(args.wandb_project_name, args.wandb_entity, vars(args))
        torch.manual_seed(args.seed)  # nothing else draws: the environments are seeded when they are reset
        torch.backends.cudnn.deterministic = args.torch_deterministic
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))  # so small a network is slower on several
        device = torch.device("cuda" if torch.cuda.is_available() and args.cuda else "cpu")
        envs = make_envs(args, run.folder.name, **run.spent(resumed["run"]))
        agent = Agent(envs).to(device)
        optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
        if args.resume:
            agent.load_state_dict(resumed["student"])
            optimizer.load_state_dict(resumed["optimizer"])
            torch.set_rng_state(resumed["rng"][0])
            torch.cuda.set_rng_state_all(resumed["rng"][1][: torch.cuda.device_count()])
        writer = SummaryWriter(run.folder, purge_step=resumed["run"].get("global_step", 0) + 1)
        teacher = envs.teacher if args.lam > 0 else None
        run.begin(ALGO, vars(args), teacher=teacher, writer=writer, state=resumed["run"])
        # In reverse order, and after Ctrl-C and errors, too: what was learnt and paid for is not lost.
        student = {"args": vars(args), "student": agent.state_dict()}  # its tensors are the ones that learn
        at_end.callback(run.write, "student.pt", lambda file: torch.save(student, file))
        if args.checkpoint_every:
            at_end.callback(save_checkpoint, args, agent, optimizer, run)
        at_end.callback(envs.close)
        train(args, envs, agent, optimizer, run, device)
    return run.summary


def cli():
    """Run the command line."""
    args = tyro.cli(Args)
    if args.resume:  # whatever is not given is as it was
        kept = load_checkpoint(args.resume)["args"]
        if ":" in (env_id := kept["env_id"]) and env_id != args.env_id:
            raise UsageError(f"--resume {args.resume}: {env_id} names a module; if you trust it, add --env-id {env_id}")
        args = tyro.cli(Args, default=Args(**kept | {"resume": args.resume}))
    main(args)


if __name__ == "__main__":
    with command_line(GONE):
        cli()
