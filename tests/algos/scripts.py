"""The scripts in algos/ as modules, and small runs of them."""

import csv
import importlib.util
import sys
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ALGOS = Path(__file__).parents[2] / "algos"
SMALL = {
    "ppo": {"num_envs": 2, "num_steps": 32, "num_minibatches": 2, "update_epochs": 2},
    "a2c": {"num_envs": 2, "num_steps": 32},
}


def load(name):
    spec = importlib.util.spec_from_file_location(name, ALGOS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ppo, a2c, evaluate = map(load, ("ppo_lvlm2p", "a2c_lvlm2p", "evaluate"))


def train(script, **flags):
    """A run of a script in this process; returns its summary and its folder."""
    before = set(Path().glob("runs/*"))
    flags = SMALL[script.ALGO] | {"total_timesteps": 128, "env_id": "MiniGrid-Empty-5x5-v0"} | flags
    summary = script.main(script.Args(exp_name=f"run{len(before)}", **flags))
    (run_dir,) = set(Path().glob("runs/*")) - before
    return summary, run_dir


def resume(script, run_dir, **flags):
    flags = script.load_checkpoint(run_dir)["args"] | {"resume": str(run_dir)} | flags
    return script.main(script.Args(**flags))


def loss_of(script):
    return getattr(script, f"{script.ALGO}_loss")


def curve_of(run_dir):
    with (run_dir / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def scalars_of(run_dir):
    events = EventAccumulator(str(run_dir)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def checkpoint_of(run_dir):
    return torch.load(run_dir / "checkpoint.pt", weights_only=False)


def student_of(run_dir):
    return torch.load(run_dir / "student.pt", weights_only=True)["student"]


def command(script, *flags):
    return [sys.executable, script.__file__, *map(str, flags)]


def called(script, monkeypatch, capsys, *flags):
    """The command line, run in this process: exit code and what it wrote to standard error."""
    monkeypatch.setattr(sys, "argv", command(script, *flags)[1:])
    code = 0
    try:
        script.cli()
    except SystemExit as end:
        code = end.code
    return code, " ".join(capsys.readouterr().err.replace("│", " ").split())
