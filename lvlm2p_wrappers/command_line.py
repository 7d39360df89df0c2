"""What the command lines of the training scripts share: flags checked, runs resumed, errors in one message."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import gymnasium as gym
from pydantic import TypeAdapter

from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.records import Scope
from lvlm2p_wrappers.redaction import printable

Flags = TypeVar("Flags")

_GONE = {
    **dict.fromkeys(("distrust-fatal", "lam-gate-return", "rl-coef", "replay-size"), "is gone: it did not help"),
    "lam-decay-steps": "is gone: lam falls by itself, as --lam-patience says",
    "labels": "is called --label-type now",
}
"""What has become of flags of version 0.1.0, by their names without dashes."""

_OF_REPLAY = {"lam-decay-steps", "label-temperature", "ask-share", "num-steps-alone"}
_OF_REPLAY |= {"replay-minibatches", "replay-batch", "replay-size"}

_COUNTS = {"num_envs", "num_steps", "num_steps_alone", "num_minibatches", "num_minibatches_alone", "update_epochs"}
_COUNTS |= {"replay_batch", "concurrency", "frame_stack", "ask_every"}
_AT_LEAST: dict[str, float] = dict.fromkeys(_COUNTS, 1)
_AT_LEAST["success_return"] = -math.inf
_AT_LEAST["label_temperature"] = 0.1  # with less, powers of probabilities are no floats any more
"""The least values of the flags that scripts share; of those that are not named it is 0."""

_AT_MOST = dict.fromkeys(("ask_share", "gamma", "gae_lambda"), 1)


@dataclass
class ScriptFlags:
    """The flags of every training script: those of its teacher, then those of the run."""

    model: str = "embedded/minigrid-planner"  # the teacher, as a LiteLLM model string: gemini/gemini-2.5-flash-lite
    ask_every: int = 1  # ask about every so many frames of an environment: for views that never repeat
    prompts: str | None = None  # folder of your own prompt templates, over the built-in ones
    store: str | None = "default"  # file that keeps the teacher's answers (default: in the user's cache; None: no file)
    concurrency: int = 16  # the most calls to the teacher's provider in flight
    rpm: int | None = None  # rate limit: the most calls a minute
    rpm_scope: Scope = "process"  # whose calls count: this process's, or those of all that share the store so
    budget_usd: float | None = None  # the most US dollars to spend; then training goes on without new labels
    budget_calls: int | None = None  # the most calls; then training goes on without new labels
    budget_scope: Scope = "process"  # whose spending counts: this process's, or that of all that share the store so
    offline: bool = False  # answer from the store alone
    render: str | None = None  # "module:function" that draws another picture for the teacher, called with the env
    facts: str | None = None  # "module:function" that tells it what no picture shows: named strings

    samples_every: int = 50  # updates between logged pictures of the distributions of teacher and student (0: none)
    checkpoint_every: int = 0  # updates between checkpoints, from which a killed run can be resumed (0: none)
    resume: str | None = None  # folder of a run to continue: its flags, its weights, its curve
    track: bool = False  # if toggled, this experiment will be tracked with Weights and Biases
    wandb_project_name: str = "lvlm2p"  # the wandb's project name
    wandb_entity: str | None = None  # the entity (team) of wandb's project

    def teacher_options(self) -> dict[str, Any]:
        """The options of the teacher, but for its model."""
        names = [field.name for field in fields(ScriptFlags)]
        return {name: getattr(self, name) for name in names[names.index("prompts") : names.index("samples_every")]}

    def hold(self, *, at_least: Mapping[str, float], at_most: Mapping[str, float]) -> None:
        """Hold the numbers against their bounds.

        Args:
            at_least: the least value of a flag by its name, where that depends on other flags.
            at_most: the greatest one, likewise.

        Raises:
            UsageError: naming the first flag that cannot work.

        Example:
            >>> ScriptFlags(rpm=-1).hold(at_least={}, at_most={})
            Traceback (most recent call last):
            lvlm2p_wrappers.errors.UsageError: --rpm -1: give 0 or more
        """
        for name, value in vars(self).items():
            least, most = {**_AT_LEAST, **at_least}.get(name, 0), {**_AT_MOST, **at_most}.get(name, math.inf)
            if isinstance(value, int | float) and not least <= value <= most:  # NaN is not, either
                bound = f"{least} or more" if not value >= least else f"at most {most}"
                raise UsageError(f"--{name.replace('_', '-')} {value}: give {bound}")


class Script:
    """A training script as a command: its flags, the runs that it resumes, its errors in one message.

    Args:
        algo: the script's name.
        flags: the dataclass of its flags; ``resume`` and ``env_id`` are among them, and a method ``check``.
        load: reads a checkpoint's file, and runs no code in it.
    """

    def __init__(self, algo: str, flags: type[Any], load: Callable[[Path], Any]) -> None:
        self._algo, self._flags, self._load = algo, flags, load

    def run(self, main: Callable[[Any], object]) -> None:
        """Parse the flags and call ``main`` with them; see :func:`command_line` for how errors end it.

        With ``--resume``, whatever is not given is as it was in that run.
        """
        with command_line():
            self._refuse_gone()
            args = parsed(self._flags)
            if args.resume:
                kept = self.load_checkpoint(args.resume)["args"]
                for name in ("env_id", "model", "render", "facts"):
                    value = kept.get(name) or ""
                    if (value.startswith("python:") if name == "model" else ":" in value) and value != getattr(
                        args, name
                    ):
                        flag = f"--{name.replace('_', '-')} {value}"
                        raise UsageError(f"--resume {args.resume}: {value} names a module; if you trust it, add {flag}")
                kept |= {"resume": args.resume, "track": False}  # whether to tell others of a run is no file's to say
                args = parsed(self._flags, default=self._flags(**kept))
            main(args)

    def _refuse_gone(self) -> None:
        """Name the first flag of version 0.1.0 that is given, and what has become of it."""
        known = {field.name.replace("_", "-") for field in fields(self._flags)}
        of_replay = dict.fromkeys(_OF_REPLAY, f"is a flag of algos/{self._algo}_replay.py now")
        gone = _GONE if self._algo.endswith("_replay") else {**_GONE, **of_replay}
        for word in sys.argv[1:]:
            flag = word.removeprefix("--").removeprefix("no-").partition("=")[0].replace("_", "-")
            if word.startswith("--") and flag in gone.keys() - known:
                raise UsageError(f"--{flag} {gone[flag]}")

    def resumed(self, args: Any) -> dict[str, Any]:
        """The checkpoint that ``--resume`` names; without it empty ``args`` and ``run``."""
        return self.load_checkpoint(args.resume) if args.resume else {"args": {}, "run": {}}

    def load_checkpoint(self, run_dir: str | Path) -> dict[str, Any]:
        """Read the checkpoint of a run, which may be somebody else's.

        Raises:
            UsageError: if there is none, it is damaged, or it is of another script.
        """
        if not (file := Path(run_dir) / "checkpoint.pt").is_file():
            raise UsageError(f"--resume {run_dir}: no checkpoint.pt in it; --checkpoint-every writes one")
        try:
            checkpoint: dict[str, Any] = self._load(file)
            if (algo := checkpoint["algo"]) == self._algo:
                hints = get_type_hints(self._flags)
                for name, value in checkpoint["args"].items():
                    TypeAdapter(hints[name]).validate_python(value, strict=True)
                self._flags(**checkpoint["args"]).check()
        except Exception as error:
            why = f"is damaged or of version 0.1.0; begin a new run with algos/{self._algo}.py"
            raise UsageError(f"--resume {run_dir}: its checkpoint.pt {why}") from error
        if algo != self._algo:
            other = str(algo)[:80]
            raise UsageError(f"--resume {run_dir}: it is a run of algos/{other}.py; resume it with that script")
        return checkpoint


def parsed(flags: type[Flags], **options: Any) -> Flags:
    """Read a command line with tyro.

    Args:
        flags: the dataclass of its flags.
        options: tyro's.

    Raises:
        UsageError: in one line, if a flag is missing, unknown, or has a value that it does not take.
        SystemExit: after ``--help``.
    """
    import tyro  # takes its time, and only a command line needs it

    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            read: Flags = tyro.cli(flags, **options)
            return read
    except SystemExit as end:
        if not end.code:
            raise
        prog = options.get("prog") or Path(sys.argv[0]).name
        raise UsageError(f"{_unboxed(told.getvalue())}. {prog} --help explains all flags.") from None


def _unboxed(box: str) -> str:
    """The problem that tyro has drawn a box around, in one line, without the manual that follows it."""
    lines = [line.strip("│╭╮╰╯| ") for line in box.splitlines()[1:]]
    parts = [" ".join(part.split()) for part in re.split(r"^[─-]*$", "\n".join(lines), flags=re.MULTILINE)]
    return "; ".join(part for part in parts if part and not part.startswith(("For full", "Argument help"))).rstrip(". ")


@contextmanager
def command_line() -> Iterator[None]:
    """Run a script's command line: an error ends it in one message, a signal in none.

    The exit code is 2 after a mistake of the user, 130 after Ctrl-C, 143 after SIGTERM, and 1 after anything else that
    is no defect of the script: a teacher that failed too often, a full disk, a closed output. A module of the user's
    own, as in ``my_envs:Maze-v0``, is found in the working folder, too.
    """
    sys.path.append(str(Path.cwd()))
    try:
        yield
    except KeyboardInterrupt as end:
        number, is_second = end.args or (signal.SIGINT, False)
        if is_second:  # at once: what runs at a process's exit would wait for the replies in flight
            os._exit(128 + number)
        sys.exit(128 + number)
    except (TeacherError, gym.error.Error, OSError) as error:
        if isinstance(error, BrokenPipeError):  # so that Python does not complain about it once more when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(printable(str(error)), file=sys.stderr)  # noqa: T201
        sys.exit(2 if isinstance(error, UsageError | gym.error.Error) else 1)
