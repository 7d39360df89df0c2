"""Plays a trained student without its teacher, exports it to ONNX and times it; docs/student.md explains the numbers.

python algos/evaluate.py runs/MiniGrid-LavaGapS7-v0__ppo_lvlm2p__1__1790000000
"""

import argparse
import json
import logging
import math
import pickle
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import tyro
from rich.progress import Progress
from scipy.stats import binomtest, bootstrap

from lvlm2p_wrappers import UsageError, command_line, episode_success, student_env


@dataclass
class Args:
    """Which student, and how much it plays."""

    run_dir: tyro.conf.Positional[Path]  # folder that a training script has left in runs/
    episodes: int = 500  # played twice: once greedily, once with sampled actions
    seed: int = 1_000_000  # of the first episode; the next ones have the next seeds
    trust: bool = False  # import the Python module that the run's environment is in

    def check(self):
        """Raise a UsageError that names the first value that cannot work."""
        for name, least in {"episodes": 2, "seed": 0}.items():  # an interval needs two values
            if (value := getattr(self, name)) < least:
                raise UsageError(f"--{name} {value}: give {least} or more")


def make_env(args, idx, run_name):
    """Environment number idx, as the student sees it."""
    render_mode = "rgb_array" if args.capture_video or (args.lam > 0 and not args.render) else None
    env = student_env(args.env_id, args.obs, args.frame_stack, args.time_limit, render_mode)
    return gym.wrappers.RecordVideo(env, f"videos/{run_name}") if args.capture_video and idx == 0 else env


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


class Policy(nn.Module):
    """What is used after training: observations (batch, length) to log-probabilities (batch, n)."""

    def __init__(self, agent):
        super().__init__()
        self.agent = agent

    def forward(self, obs):
        """The logits; the greedy action is where they are highest."""
        return self.agent(obs)[0]


def load_student(run_dir, trust):
    """The flags of a run, one environment of its kind, and its student. The file may be somebody else's: it is data.

    Raises:
        UsageError: if there is no student, or its environment is in a module that the user does not trust.
    """
    if not (file := run_dir / "student.pt").is_file():
        way_out = "give the folder of a run in runs/, which has one as soon as the run has ended"
        if (run_dir / "checkpoint.pt").is_file():
            way_out = f"the run was killed, and its script can go on with it: --resume {run_dir}"
        raise UsageError(f"{run_dir}: no student.pt in it; {way_out}")
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        flags, weights = saved["args"], saved["student"]
        texts = [flags[name] for name in ("env_id", "exp_name", "model", "store")]
        if not (all(isinstance(text, str | None) for text in texts) and flags["lam"] + flags["seed"] >= 0):
            raise TypeError("its flags are none of a run")
        if ":" in (env_id := flags["env_id"]) and not trust:
            raise UsageError(f"{file}: its environment {env_id} is in a Python module; add --trust to import it")
        envs = gym.vector.SyncVectorEnv(
            [lambda: make_env(argparse.Namespace(**flags | {"lam": 0, "capture_video": False}), 0, "")]
        )
        agent = Agent(envs)
        agent.load_state_dict(weights)
    except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError) as error:
        why = str(error).partition("\n")[0] or "it is empty"
        raise UsageError(f"{file} holds no student of these scripts: {why}") from error
    return flags, envs, agent.eval()


def play(agent, envs, seeds, greedy, success_return, each):
    """One episode from every seed; returns (return, length, success) of each, and calls `each` after it."""
    ends = []
    for seed in seeds:
        (obs, _), infos = envs.reset(seed=seed), {}
        while "episode" not in infos:
            with torch.no_grad():
                action, *_, logprobs = agent.get_action_and_value(torch.as_tensor(obs))
            action = (logprobs.argmax(-1) if greedy else action).numpy()
            obs, *_, infos = envs.step(action + envs.single_action_space.start)
        success = episode_success(infos, 0, success_return)
        ends.append((infos["episode"]["r"][0], infos["episode"]["l"][0], math.nan if success is None else success))
        each()
    return np.array(ends, dtype=np.float64)


def share(hits):
    """A share of episodes, with Wilson's 95% interval (Wilson 1927)."""
    low, high = binomtest(int(np.sum(hits)), len(hits)).proportion_ci(method="wilson")
    return {"value": float(np.mean(hits)), "low": float(low), "high": float(high), "n": len(hits)}


def mean(values):
    """A mean, with the 95% interval of the percentile bootstrap (Efron 1979)."""
    drawn = bootstrap((values,), np.mean, n_resamples=10_000, batch=500, method="percentile", rng=0)
    low, high = drawn.confidence_interval
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high), "n": len(values)}


def scores(agent, envs, args, success_return):
    """How the student plays, by the way in which its actions are chosen; both ways begin from the same seeds."""
    torch.manual_seed(args.seed)
    seeds, found = range(args.seed, args.seed + args.episodes), {}
    with Progress(disable=not sys.stdout.isatty(), transient=True) as bar:
        for way in ("greedy", "sampled"):
            task = bar.add_task(way, total=args.episodes)
            ends = play(agent, envs, seeds, way == "greedy", success_return, lambda task=task: bar.advance(task))
            returns, lengths, successes = ends.T
            success = None if np.isnan(successes).any() else share(successes)
            found[way] = {"success": success, "return": mean(returns), "length": float(lengths.mean())}
    return found


def export(policy, obs, file, about):
    """Write the policy as an ONNX file with inputs `obs` and outputs `logits`; returns why not, or None.

    The file's metadata say which environment the student has learnt in, and how it sees it: `student_env` makes it.
    """
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError:
        return "the package onnxscript is missing; pip install onnxscript"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    obs = torch.as_tensor(obs).repeat(2, 1)  # from one row alone it would take the batch's size for a constant
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            policy,
            (obs,),
            dynamo=True,
            input_names=["obs"],
            output_names=["logits"],
            dynamic_shapes={"obs": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    program.model.metadata_props.update(about)
    program.save(file)
    return None


def onnx_actor(file):
    """The file's student by onnxruntime, from observations to an action's number; None without file or package."""
    try:
        import onnxruntime
    except ImportError:
        return None
    if not file.exists():
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda obs: session.run(["logits"], {"obs": obs})[0].argmax(-1)


def us_per_action(act, obs, repeats=1000):
    """Microseconds from an observation (1, length) to an action: the median, which a busy machine disturbs least."""
    took = []
    with torch.inference_mode():
        for _ in range(repeats + 50):
            started = time.perf_counter()
            act(obs)
            took.append(time.perf_counter() - started)
    return round(1e6 * float(np.median(took[50:])), 1)


def teacher_of(flags):
    """The run's teacher, and its seconds for a label by the calls in its store; None where none are known.

    A label takes a call of each stage, one after another: the mean latencies of the stages are added.
    """
    lvlm2p = shutil.which("lvlm2p", path=Path(sys.executable).parent)
    store = flags["store"]
    if flags["lam"] == 0 or lvlm2p is None or not (store == "default" or (store and Path(store).is_file())):
        return None
    where = [] if store == "default" else [f"--store={store}"]
    command = [lvlm2p, "store", "list", "--json", "--outcome=ok", f"--model={flags['model']}", "--limit=2000", *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    calls = json.loads(done.stdout) if done.returncode == 0 else []
    if not calls:
        return None
    latencies = {}
    for call in calls:
        latencies.setdefault(call["stage"], []).append(call["latency_s"])
    seconds = sum(float(np.mean(stage)) for stage in latencies.values())
    return {"model": flags["model"], "s_per_label": seconds, "calls": len(calls)}


def show(found, why_no_onnx):
    """Print the evaluation for people."""
    print(f"{found['env_id']}, {found['exp_name']!r}, seed {found['run_seed']}: {found['episodes']} episodes a line")
    for way in ("greedy", "sampled"):
        line = "  ".join(
            f"{name} {rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
            for name, rate in ((name, found[way][name]) for name in ("success", "return"))
            if rate is not None
        )
        print(f"  {way:8}  {line}  {found[way]['length']:.1f} steps")
    sizes = [f"{name} {size / 1e6:.2f} MB" for name, size in found["bytes"].items() if size is not None]
    print(f"  size      {found['parameters']:,} parameters, {', '.join(sizes)}")
    times = [f"{name} {us:,.0f} us" for name, us in found["us_per_action"].items() if us is not None]
    print(f"  action    {', '.join(times)} (one CPU thread, batch of 1)")
    if teacher := found["teacher"]:
        spent = f"{teacher['s_per_label']:.3g} s a label (mean of {teacher['calls']:,} calls in the store)"
        print(f"  teacher   {spent}: {teacher['model']}")
    if why_no_onnx:
        print(f"  no student.onnx: {why_no_onnx}")


def main(args):
    """Evaluate one student; returns what student.json says."""
    args.check()
    torch.set_num_threads(1)
    flags, envs, agent = load_student(args.run_dir, args.trust)
    played, policy = scores(agent, envs, args, flags["success_return"]), Policy(agent).eval()
    obs, _ = envs.reset(seed=args.seed)
    envs.close()
    files = args.run_dir / "student.pt", args.run_dir / "student.onnx"
    for file in (files[1], args.run_dir / "student.json"):
        file.unlink(missing_ok=True)  # an older one may be of other weights
    about = {name: str(flags[name]) for name in ("env_id", "obs", "frame_stack", "time_limit")}
    why_no_onnx = export(policy, obs, files[1], about)
    actors = {"torch": lambda obs: policy(torch.as_tensor(obs)).argmax(-1), "onnxruntime": onnx_actor(files[1])}
    found = {
        "env_id": flags["env_id"],
        "exp_name": flags["exp_name"],
        "run_seed": flags["seed"],
        "episodes": args.episodes,
        "seed": args.seed,
        **played,
        "parameters": sum(weights.numel() for weights in agent.parameters()),
        "bytes": {file.name: file.stat().st_size if file.exists() else None for file in files},
        "us_per_action": {name: act and us_per_action(act, obs) for name, act in actors.items()},
        "teacher": teacher_of(flags),
    }
    (args.run_dir / "student.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found, why_no_onnx)
    return found


if __name__ == "__main__":
    with command_line():
        main(tyro.cli(Args))
