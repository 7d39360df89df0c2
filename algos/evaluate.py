"""Plays a trained student without its teacher, exports it and times it; docs/ppo_lvlm2p.md explains the numbers.

python algos/evaluate.py runs/MiniGrid-LavaGapS7-v0__ppo_lvlm2p__1__1790000000
"""

import json
import logging
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

from lvlm2p_wrappers import AgentCentredObservation, TeacherError, UsageError


@dataclass
class Args:
    """Which student, and how much it plays."""

    run_dir: tyro.conf.Positional[Path]  # folder that a run of either script has left in runs/
    episodes: int = 500  # played twice: once greedily, once with sampled actions
    seed: int = 1_000_000  # of the first episode; the next ones have the next seeds

    def __post_init__(self):
        for name, least in {"episodes": 1, "seed": 0}.items():
            if (value := getattr(self, name)) < least:
                raise UsageError(f"--{name} {value}: give {least} or more")


def make_env(env_id, idx, capture_video, run_name):
    """Env number idx, as the student sees it."""
    env = gym.make(env_id, render_mode="rgb_array" if capture_video else None)
    if capture_video and idx == 0:
        env = gym.wrappers.RecordVideo(env, f"videos/{run_name}")
    env = gym.wrappers.RecordEpisodeStatistics(env)
    return AgentCentredObservation(env)


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


class Policy(nn.Module):
    """What is left to be used after training: planes (batch, 58, S, S), uint8, to action logits (batch, n)."""

    def __init__(self, agent):
        super().__init__()
        self.network, self.actor = agent.network, agent.actor

    def forward(self, obs):
        """The logits; the greedy action is where they are highest."""
        return self.actor(self.network(obs.float()))


def load_student(run_dir):
    """The flags of a run, one env of its kind, and its student; a UsageError where there is none."""
    if not (file := run_dir / "student.pt").is_file():
        way_out = "give the folder of a run in runs/, which has one as soon as the run has ended"
        if (run_dir / "checkpoint.pt").is_file():
            way_out = f"the run was killed, and its script can go on with it: --resume {run_dir}"
        raise UsageError(f"{run_dir}: no student.pt in it; {way_out}")
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        flags, weights = saved["args"], saved["student"]
        envs = gym.vector.SyncVectorEnv([lambda: make_env(flags["env_id"], 0, False, run_dir.name)])
        agent = Agent(envs)
        agent.load_state_dict(weights)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        why = str(error).partition("\n")[0] or "it is empty"
        raise UsageError(f"{file} holds no student of these scripts: {why}") from error
    return flags, envs, agent.eval()


def play(agent, envs, seeds, greedy, each):
    """One episode from every seed; returns (return, length, success) of each, and calls `each` after it."""
    ends = []
    for seed in seeds:
        (obs, _), infos = envs.reset(seed=seed), {}
        while "episode" not in infos:
            with torch.no_grad():
                action, *_, logprobs = agent.get_action_and_value(torch.as_tensor(obs))
            obs, reward, _, _, infos = envs.step((logprobs.argmax(-1) if greedy else action).numpy())
        ends.append((infos["episode"]["r"][0], infos["episode"]["l"][0], reward[0] > 0))
        each()
    return np.array(ends, dtype=np.float64)


def share(hits):
    """A share of cases, with Wilson's 95% interval (Wilson 1927)."""
    n, p, z = len(hits), float(np.mean(hits)), 1.959964
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = ((centre + side * half) / (1 + z**2 / n) for side in (-1, 1))
    return {"value": p, "low": max(low, 0.0), "high": min(high, 1.0), "n": n}


def mean(values):
    """A mean, with the 95% interval of the percentile bootstrap (Efron 1979)."""
    rng, n = np.random.default_rng(0), len(values)
    means = [rng.choice(values, (500, n)).mean(axis=1) for _ in range(20)]  # in parts, to bound memory
    low, high = np.quantile(means, (0.025, 0.975))
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high), "n": n}


def scores(agent, envs, args):
    """How the student plays, by the way in which its actions are chosen; both ways begin from the same seeds."""
    torch.manual_seed(args.seed)
    seeds, found = range(args.seed, args.seed + args.episodes), {}
    with Progress(disable=not sys.stdout.isatty(), transient=True) as bar:
        for way in ("greedy", "sampled"):
            task = bar.add_task(way, total=args.episodes)
            ends = play(agent, envs, seeds, way == "greedy", lambda task=task: bar.advance(task))
            returns, lengths, successes = ends.T
            found[way] = {"success": share(successes), "return": mean(returns), "length": float(lengths.mean())}
    return found


def export(policy, obs, file):
    """Write the policy as an ONNX file with inputs `obs` and outputs `logits`; returns why not, or None."""
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError:
        return "the package onnxscript is missing; pip install onnxscript"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    obs = torch.as_tensor(obs).repeat(2, 1, 1, 1)  # from one row alone it would take the batch's size for a constant
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            policy,
            (obs,),
            file,
            dynamo=True,
            input_names=["obs"],
            output_names=["logits"],
            dynamic_shapes={"obs": {0: torch.export.Dim("batch")}},
            external_data=False,
            verbose=False,
        )
    return None


def onnx_actor(file):
    """What onnxruntime makes of the file, planes to an action's number; None without file or package."""
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
    """Microseconds from an observation (1, 58, S, S) to an action: the median, which a busy machine disturbs least."""
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
    if flags["lam"] == 0 or flags["store"] is None or lvlm2p is None:
        return None
    where = [] if flags["store"] == "default" else [f"--store={flags['store']}"]
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
    print(f"{found['env_id']}, {found['exp_name']}, seed {found['run_seed']}: {found['episodes']} episodes a line")
    for way in ("greedy", "sampled"):
        line = "  ".join(
            f"{name} {rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
            for name, rate in ((name, found[way][name]) for name in ("success", "return"))
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
    """Evaluate one student; returns what evaluation.json says."""
    torch.set_num_threads(1)
    flags, envs, agent = load_student(args.run_dir)
    played, policy = scores(agent, envs, args), Policy(agent).eval()
    obs, _ = envs.reset(seed=args.seed)
    envs.close()
    files = args.run_dir / "student.pt", args.run_dir / "student.onnx"
    files[1].unlink(missing_ok=True)  # an older one may be of other weights
    why_no_onnx = export(policy, obs, files[1])
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
    (args.run_dir / "evaluation.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found, why_no_onnx)
    return found


def cli():
    """Run the command line; every mistake of the user ends in one short message."""
    try:
        main(tyro.cli(Args))
    except KeyboardInterrupt:
        sys.exit(130)
    except (TeacherError, gym.error.Error) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError | gym.error.Error) else 1)


if __name__ == "__main__":
    cli()
