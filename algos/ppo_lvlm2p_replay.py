"""PPO that keeps a vision-language teacher's labels and replays them (LVLM2P); docs/ppo_lvlm2p_replay.md."""

import itertools
import math
import os
from collections import defaultdict, namedtuple
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.utils.tensorboard import SummaryWriter

from lvlm2p_wrappers import Lambda, Script, ScriptFlags, TrainingRun, VectorTeacherWrapper, read_labels, student_env

ALGO = "ppo_lvlm2p_replay"


@dataclass
class Args(ScriptFlags):
    """Flags and defaults, beside those of all scripts; before `lam` CleanRL's, and what the student sees."""

    exp_name: str = Path(__file__).stem  # the name of this experiment
    seed: int = 1  # seed of the experiment
    torch_deterministic: bool = True  # if toggled, `torch.backends.cudnn.deterministic=True`
    cuda: bool = True  # use the GPU where there is one
    capture_video: bool = False  # whether to record the first environment into videos/ (needs moviepy)

    env_id: str = "MiniGrid-LavaGapS7-v0"  # the id of an environment with Discrete actions; my_module:My-v0 for yours
    obs: Literal["auto", "grid", "pixels", "env"] = "auto"  # MiniGrid's symbols, the picture, or the env's observation
    frame_stack: int | None = None  # observations that the student sees at once (default: 4 of Atari's, else 1)
    time_limit: Literal["auto", "bootstrap", "terminal"] = "auto"  # it cuts episodes off, or (MiniGrid) ends the task
    success_return: float | None = None  # the return from which on an episode is a success, where no info says so
    total_timesteps: int = 30_000  # total timesteps of the experiment, all environments together
    learning_rate: float = 1e-3  # the learning rate of the optimizer
    learning_rate_alone: float = 3e-4  # the learning rate once lam is 0
    num_envs: int = 8  # the number of parallel game environments
    num_steps: int = 16  # the number of steps to run in each environment per policy rollout
    num_steps_alone: int = 128  # the number of steps once lam is 0
    gamma: float = 0.99  # the discount factor gamma
    gae_lambda: float = 0.95  # the lambda for the general advantage estimation
    num_minibatches: int = 1  # the number of mini-batches
    num_minibatches_alone: int = 4  # the number of mini-batches once lam is 0
    update_epochs: int = 4  # the K epochs to update the policy
    norm_adv: bool = True  # toggles advantages normalization, per mini-batch
    clip_coef: float = 0.2  # the surrogate clipping coefficient
    clip_vloss: bool = True  # toggles whether or not to use a clipped loss for the value function, as per the paper
    ent_coef: float = 0.01  # coefficient of the entropy
    vf_coef: float = 0.5  # coefficient of the value function
    max_grad_norm: float = 0.5  # the maximum norm for the gradient clipping
    target_kl: float | None = None  # the target KL divergence threshold, at which an update stops

    lam: float = 1.0  # weight of KL(teacher || student) in the loss; 0: plain reinforcement learning without a teacher
    lam_patience: float = 0.5  # lam falls to 0 in this times the frames of the student's progress (0: constant)
    label_temperature: float = 0.5  # labels are raised to the power of its inverse: below 1 they are sharpened
    ask_share: float = 1.0  # share of the frames to ask about; below 1 those with new views, each asked about once
    replay_minibatches: int = 16  # minibatches of earlier labels after each rollout, fewer as lam falls (0: no replay)
    replay_batch: int = 256  # labels in each of them
    labels: str | None = None  # folder of a label set (lvlm2p label) to learn from before the first frame, and on

    def check(self):
        """Raise a UsageError that names the first value that cannot work."""
        half = {"num_minibatches": self.batch_size // 2, "num_minibatches_alone": self.alone.batch_size // 2}
        self.hold(at_least={"total_timesteps": self.batch_size}, at_most=half)  # one row alone cannot be normalized

    @property
    def batch_size(self):
        """Frames of a rollout."""
        return self.num_envs * self.num_steps

    @property
    def alone(self):
        """The flags once lam is 0."""
        rollout = {"num_steps": self.num_steps_alone, "num_minibatches": self.num_minibatches_alone}
        return replace(self, learning_rate=self.learning_rate_alone, **rollout)


def make_env(args, idx, run_name):
    """Environment number idx, as the student sees it."""
    render_mode = "rgb_array" if args.capture_video or (args.lam > 0 and not args.render) else None
    env = student_env(args.env_id, args.obs, args.frame_stack, args.time_limit, render_mode)
    return gym.wrappers.RecordVideo(env, f"videos/{run_name}") if args.capture_video and idx == 0 else env


def make_envs(args, run_name, **spent):
    """The vector environment; with lam above 0 under the teacher's wrapper."""
    # SAME_STEP: under Gymnasium's default, every episode would add a transition whose action was ignored.
    makers = [partial(make_env, args, i, run_name) for i in range(args.num_envs)]
    envs = gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    if args.lam == 0:
        return envs
    # Questions go out while the environments run; gather() waits for the answers after each rollout.
    options = {**args.teacher_options(), **spent}
    return VectorTeacherWrapper(envs, args.model, defer=True, ask="manual", on_error="skip", **options)


def layer_init(layer, std=2**0.5):
    """Orthogonal initialisation."""
    nn.init.orthogonal_(layer.weight, std)
    nn.init.zeros_(layer.bias)
    return layer


class Grid(nn.Module):
    """Symbols: two small convolutions over the cells near the agent, and a coarse picture of all."""

    def __init__(self, shape, space):
        super().__init__()
        self.register_buffer("table", torch.tensor(space.table, dtype=torch.float32), persistent=False)
        self.shape, planes, size = shape, space.table.shape[1], shape[0]
        window = min(size, 15)  # farther cells are seen in a coarse picture alone, so that no layer grows
        self.near = slice((size - window) // 2, (size + window) // 2)
        self.far = nn.MaxPool2d(math.ceil(size / 5), ceil_mode=True)
        self.features = 16 * (window - 2) ** 2 + planes * math.ceil(size / self.far.kernel_size) ** 2
        self.conv1 = layer_init(nn.Conv2d(planes, 16, 3, padding=1))
        self.conv1_rest = layer_init(nn.Linear(space.rest, 16))  # the same at every cell
        self.conv2 = layer_init(nn.Conv2d(16, 16, 3))

    def forward(self, cells, rest):
        """Cells (batch, size * size) and the rest of the observation to features."""
        planes = nn.functional.embedding(cells.int().unflatten(1, self.shape), self.table).movedim(-1, 1)
        hidden = self.conv1(planes[:, :, self.near, self.near]) + self.conv1_rest(rest)[:, :, None, None]
        hidden = self.conv2(hidden.relu()).relu()
        return torch.cat([hidden.flatten(1), self.far(planes).flatten(1)], 1)


class Picture(nn.Module):
    """Pixels: convolutions that halve the picture until 8 x 8 are left."""

    def __init__(self, shape, space):
        super().__init__()
        self.shape, sides = shape, [side // 4 for side in shape[:2]]
        self.conv1 = layer_init(nn.Conv2d(shape[2], 32, 8, stride=4, padding=2))
        self.conv1_rest = layer_init(nn.Linear(space.rest, 32)) if space.rest else None  # the same at every pixel
        self.convs = nn.Sequential()
        while max(sides) > 8:
            self.convs.extend([layer_init(nn.Conv2d(32, 32, 3, stride=2, padding=1)), nn.ReLU()])
            sides = [math.ceil(side / 2) for side in sides]
        self.features = 32 * math.prod(sides)

    def forward(self, pixels, rest):
        """Pixels (batch, height * width * channels) and the rest of the observation to features."""
        hidden = self.conv1(pixels.unflatten(1, self.shape).movedim(-1, 1).float() / 255)
        known = self.conv1_rest(rest)[:, :, None, None] if self.conv1_rest else 0
        return self.convs((hidden + known).relu()).flatten(1)


class Agent(nn.Module):
    """The student: its network follows the shapes in the observation; an actor and a critic share it."""

    def __init__(self, envs):
        super().__init__()
        space = envs.single_observation_space
        self.sizes = [*map(math.prod, space.parts), space.rest]
        self.register_buffer("scale", torch.tensor(space.scale), persistent=False)
        self.encoders = nn.ModuleList((Grid if len(shape) == 2 else Picture)(shape, space) for shape in space.parts)
        features = sum(encoder.features for encoder in self.encoders)
        if not self.encoders:  # nothing has neighbours
            self.vector, features = layer_init(nn.Linear(space.rest, 128)), 128
        self.dense = layer_init(nn.Linear(features, 128))
        self.actor = layer_init(nn.Linear(128, envs.single_action_space.n), std=0.01)
        self.critic = layer_init(nn.Linear(128, 1), std=1)
        self.to(memory_format=torch.channels_last)

    def forward(self, obs):
        """The log-probabilities of all actions, and the value."""
        *parts, rest = obs.split(self.sizes, 1)
        rest = rest.float() / self.scale
        features = [encode(part, rest) for encode, part in zip(self.encoders, parts, strict=True)]
        hidden = self.dense(torch.cat(features or [self.vector(rest).tanh()], 1)).relu()
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


@torch.no_grad()
def collect(agent, envs, next_obs, next_done, num_steps, args, run, ask):
    """Play num_steps steps in every environment, after `ask`; returns them, and what comes after."""
    steps = []
    for _ in range(num_steps):
        ask(envs, next_obs, run.global_step)
        action, logprob, _, value, _ = agent.get_action_and_value(next_obs)
        obs, reward, terminated, truncated, infos = envs.step(action.cpu().numpy() + envs.single_action_space.start)
        run.step(reward, infos)  # ends the run here if Ctrl-C or SIGTERM asks for it
        reward = torch.as_tensor(reward).to(value)
        if (cut_off := truncated & ~terminated).any():  # the critic says what the rest of the episode is worth
            final_obs = torch.as_tensor(np.stack(infos["final_obs"][cut_off])).to(next_obs)
            reward[torch.as_tensor(cut_off)] += args.gamma * agent(final_obs)[1]
        steps.append((next_obs, next_done, action, logprob, value, reward))
        next_obs, next_done = torch.as_tensor(obs).to(next_obs), torch.as_tensor(terminated | truncated).to(value)
    return Rollout(*map(torch.stack, zip(*steps, strict=True))), next_obs, next_done


def gather_labels(envs, args, rollout, run):
    """The labels of a rollout, (num_steps, num_envs, n_actions), and the mask of the frames that have one."""
    if args.lam == 0:
        nothing = torch.zeros(*rollout.dones.shape, envs.single_action_space.n)
        return nothing, nothing.any(-1)
    with run.waiting():
        probs, mask = map(torch.as_tensor, envs.gather())
    return sharpened(probs, args), mask


def sharpened(probs, args):
    """The teacher's distributions, (..., n_actions), as they are learnt from."""
    probs = probs ** (1 / args.label_temperature)
    return probs / probs.sum(-1, keepdim=True).clamp(min=1e-30)


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
    """The last labels, one for each view, to learn from again (DAgger's aggregation, Ross et al. 2011)."""

    def __init__(self, envs, args):
        self.space, self.args = envs.single_observation_space, args
        self.most = 2**30 // np.zeros(self.space.shape, self.space.dtype).nbytes  # views in a gigabyte
        self.kept = {}  # the label of each view: (n_actions,) by the bytes of the observation
        self.asked_now = set()  # views asked about in the present rollout
        self.distances = []  # KL(teacher || student) of each new label, before the student learnt from it
        self.asked = 0  # frames asked about so far

    def ask(self, envs, obs, global_step):
        """Ask about the current observations; with --ask-share below 1 only about views without a label, each once."""
        is_turn = global_step // len(obs) % self.args.ask_every == 0
        if self.args.ask_share == 1 or not is_turn:
            envs.ask(np.full(len(obs), is_turn))
            return
        views = [view.tobytes() for view in obs.cpu().numpy()]
        new = {view: row for row, view in enumerate(views) if view not in self.kept and view not in self.asked_now}
        # The share is of all frames so far: what one rollout leaves is there for the next one.
        allowance = int(self.args.ask_share * (global_step + len(views))) - self.asked
        drawn = [[*new][place] for place in torch.randperm(len(new))[: max(allowance, 0)].tolist()]
        envs.ask(np.isin(np.arange(len(views)), [new[view] for view in drawn]))
        self.asked_now.update(drawn)
        self.asked += len(drawn)

    def keep(self, agent, batch):
        """Keep a batch's labels; returns the student's mean distance to the last new ones, None if there are none."""
        self.asked_now.clear()
        student = agent(batch.obs)[0].detach()
        for row in batch.teacher_mask.nonzero().flatten().tolist():
            view, label = batch.obs[row].cpu().numpy().tobytes(), batch.teacher_probs[row]
            if view not in self.kept:
                self.distances.append(distillation_loss(label, student[row], torch.tensor(True)).item())
            self.kept[view] = label.cpu()
        self.kept = dict([*self.kept.items()][-self.most :])
        return float(np.mean(self.distances[-256:])) if self.distances else None

    def begin(self, agent, optimizer, obs, probs):
        """Keep a label set and learn from it, twenty times as long as after a rollout."""
        self.kept = dict(zip(map(bytes, obs), sharpened(torch.tensor(probs), self.args), strict=True))
        for _ in range(20):
            self.learn(agent, optimizer, lam=1)

    def learn(self, agent, optimizer, lam):
        """Some minibatches of the distillation loss over labels drawn from those kept; returns its mean."""
        if not (self.args.replay_minibatches and self.kept):
            return {}
        kept, batches, losses, device = [*self.kept.items()], [], [], next(agent.parameters()).device
        # Fewer minibatches as lam falls: Adam's steps would stay as long if the loss alone became smaller.
        drawn = torch.randint(len(kept), (math.ceil(lam * self.args.replay_minibatches), self.args.replay_batch))
        for rows in drawn.tolist():
            views, probs = zip(*(kept[row] for row in rows), strict=True)
            views = np.frombuffer(bytearray().join(views), self.space.dtype).reshape(-1, *self.space.shape)
            batches.append((torch.as_tensor(views).to(device), torch.stack(probs).to(device)))
        # The critic shares most of the weights. It is held at its values, as Phasic Policy Gradient (Cobbe et al. 2021)
        # holds the policy: with a critic that is worth nothing, reinforcement ruins the student once lam has fallen.
        values = [agent(views)[1].detach() for views, _ in batches]
        for (views, probs), value_before in zip(batches, values, strict=True):
            student, value = agent(views)
            kl = distillation_loss(probs, student, torch.ones_like(value, dtype=torch.bool))
            v_loss = 0.5 * ((value - value_before) ** 2).mean()
            descend(agent, optimizer, kl + self.args.vf_coef * v_loss, self.args)
            losses.append(kl.item())
        return {"teacher/replay_kl": float(np.mean(losses))}


def save_checkpoint(args, agent, optimizer, run, labels, weight):
    """Keep all that a killed run needs to be resumed."""
    learnt = {"student": agent.state_dict(), "optimizer": optimizer.state_dict(), "weight": weight.state()}
    learnt["labels"] = labels.kept, labels.asked, labels.distances
    learnt["rng"] = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    kept = {"algo": ALGO, "args": vars(args), **learnt, "run": run.state()}
    run.write("checkpoint.pt", lambda file: torch.save(kept, file))


# The checkpoint of a run that is resumed may be somebody else's: it is data, no code in it is run.
SCRIPT = Script(ALGO, Args, partial(torch.load, map_location="cpu", weights_only=True))


def train(args, envs, agent, optimizer, run, labels, weight, device):
    """Collect, gather the teacher's labels, learn, log; until total_timesteps."""
    # Nobody else's layouts: not those of another seed, nor those that a resumed run has had before.
    seeds = np.random.SeedSequence([args.seed, run.global_step]).generate_state(args.num_envs).tolist()
    next_obs = torch.as_tensor(envs.reset(seed=seeds)[0], device=device)
    next_done = torch.zeros(args.num_envs, device=device)
    if args.labels and not run.global_step:
        labels.begin(agent, optimizer, *read_labels(args.labels).for_student(envs))
    for iteration in itertools.count():
        lam, now = weight.lam, args if weight.lam > 0 else args.alone
        optimizer.param_groups[0]["lr"] = now.learning_rate
        if run.global_step + now.batch_size > args.total_timesteps:
            break
        if lam > 0 and args.samples_every and iteration % args.samples_every == 0:
            labels.ask(envs, next_obs, run.global_step)
            run.add_samples(envs, agent(next_obs)[0].exp().numpy(force=True))
        ask = labels.ask if lam > 0 else lambda *_: None
        rollout, next_obs, next_done = collect(agent, envs, next_obs, next_done, now.num_steps, args, run, ask)
        next_value = agent(next_obs)[1].detach()
        advantages, returns = compute_gae(rollout, next_value, next_done, args)
        batch = make_batch(rollout, advantages, returns, *gather_labels(envs, args, rollout, run))
        distance = labels.keep(agent, batch) if lam > 0 else None
        measured = update(agent, optimizer, batch, now, lam)
        if lam > 0:
            measured |= labels.learn(agent, optimizer, lam)
            weight.update(run.global_step, distance, run.mean_return(50))
        run.log(measured | {"charts/learning_rate": now.learning_rate}, lam, returns, rollout.values)
        if args.checkpoint_every and (iteration + 1) % args.checkpoint_every == 0:
            save_checkpoint(args, agent, optimizer, run, labels, weight)


def main(args):
    """Train one student; returns the summary that it leaves in runs/."""
    args.check()
    with TrainingRun(f"{args.env_id}__{args.exp_name}__{args.seed}", resume=args.resume) as run, ExitStack() as at_end:
        resumed = SCRIPT.resumed(args)
        run.refuse_changes(vars(args), resumed["args"])
        run.track(vars(args))
        torch.manual_seed(args.seed)  # nothing else draws: the environments are seeded when they are reset
        torch.backends.cudnn.deterministic = args.torch_deterministic
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))  # so small a network is slower on several
        device = torch.device("cuda" if torch.cuda.is_available() and args.cuda else "cpu")
        envs = make_envs(args, run.folder.name, **run.spent(resumed["run"]))
        agent = Agent(envs).to(device)
        optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
        labels, weight = Labels(envs, args), Lambda(args.lam, args.lam_patience, agent, optimizer)
        if args.resume:
            labels.kept, labels.asked, labels.distances = resumed["labels"]
            weight.load_state(resumed["weight"])
            agent.load_state_dict(resumed["student"])
            optimizer.load_state_dict(resumed["optimizer"])
            torch.set_rng_state(resumed["rng"][0])
            torch.cuda.set_rng_state_all(resumed["rng"][1][: torch.cuda.device_count()])
        run.begin(ALGO, vars(args), envs.teacher if args.lam > 0 else None, SummaryWriter, resumed["run"])
        # In reverse order, and after Ctrl-C and errors, too: what was learnt and paid for is not lost.
        student = {"args": vars(args), "student": agent.state_dict()}  # its tensors are the ones that learn
        at_end.callback(run.write, "student.pt", lambda file: torch.save(student, file))
        if args.checkpoint_every:
            at_end.callback(save_checkpoint, args, agent, optimizer, run, labels, weight)
        at_end.callback(envs.close)
        train(args, envs, agent, optimizer, run, labels, weight, device)
    return run.summary


if __name__ == "__main__":
    SCRIPT.run(main)
