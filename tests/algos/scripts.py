"""The scripts in algos/ as modules, and small runs of them; with these flags a replay script is its paper script."""

import csv
import importlib.util
import sys
from pathlib import Path

import torch
import tyro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lvlm2p_wrappers import command_line

ALGOS = Path(__file__).parents[2] / "algos"
PPO = {"num_envs": 2, "num_steps": 32, "num_minibatches": 2, "update_epochs": 2}
A2C = {"num_envs": 2, "num_steps": 32}
REPLAY = {"num_steps_alone": 32, "lam_patience": 0, "label_temperature": 1, "replay_minibatches": 0}
SMALL = {"ppo_lvlm2p": PPO, "a2c_lvlm2p": A2C, "ppo_lvlm2p_replay": PPO | REPLAY, "a2c_lvlm2p_replay": A2C | REPLAY}


def load(name):
    spec = importlib.util.spec_from_file_location(name, ALGOS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ppo, a2c, ppo_replay, a2c_replay = map(load, SMALL)
evaluate = load("evaluate")


def train(script, **flags):
    """A run of a script in this process; returns its summary and its folder."""
    before = set(Path().glob("runs/*"))
    flags = SMALL[script.ALGO] | {"total_timesteps": 128, "env_id": "MiniGrid-Empty-5x5-v0"} | flags
    summary = script.main(script.Args(exp_name=f"run{len(before)}", **flags))
    (run_dir,) = set(Path().glob("runs/*")) - before
    return summary, run_dir


def resume(script, run_dir, **flags):
    flags = script.SCRIPT.load_checkpoint(run_dir)["args"] | {"resume": str(run_dir)} | flags
    return script.main(script.Args(**flags))


def loss_of(script):
    return getattr(script, f"{script.ALGO[:3]}_loss")


def curve_of(run_dir, table="curve"):
    with (run_dir / f"{table}.csv").open() as file:
        return list(csv.DictReader(file))


def episodes_of(run_dir):
    return curve_of(run_dir, "episodes")


def scalars_of(run_dir):
    events = EventAccumulator(str(run_dir)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def checkpoint_of(run_dir):
    return torch.load(run_dir / "checkpoint.pt", weights_only=True)


def student_of(run_dir):
    return torch.load(run_dir / "student.pt", weights_only=True)["student"]


def command(script, *flags):
    return [sys.executable, script.__file__, *map(str, flags)]


def called(script, monkeypatch, capsys, *flags):
    """The command line, run in this process: exit code and what it wrote to standard error."""
    monkeypatch.setattr(sys, "argv", command(script, *flags)[1:])
    code = 0
    try:
        if hasattr(script, "SCRIPT"):
            script.SCRIPT.run(script.main)
        else:
            with command_line():
                script.main(tyro.cli(script.Args))
    except SystemExit as end:
        code = end.code
    return code, " ".join(capsys.readouterr().err.replace("│", " ").split())
