"""A training run's folder: locked, with a learning curve and a summary, and complete whatever ends the run."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self, TextIO

import filelock
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.run_folder import lines_of, new_folder, refuse_odd
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.vector import VectorTeacherWrapper

PROGRESS_EVERY_S = 30.0
"""How often the progress is printed where standard output is no terminal, and so has no progress bar."""

_RENEWABLE = {"resume", "total_timesteps", "store", "concurrency", "rpm", "budget_usd", "budget_calls", "offline"}
_RENEWABLE |= {"rpm_scope", "budget_scope"}
_RENEWABLE |= {"samples_every", "checkpoint_every", "cuda", "track", "wandb_project_name", "wandb_entity"}
"""Flags that may change when a run is resumed: its length and its means, and not what it learns."""

_OF_ITS_FILES = (RuntimeError, LookupError, TypeError, ValueError, AttributeError, OverflowError, csv.Error)
"""What keeps a run from beginning if its files have not in them what they should; they may be anybody's."""

_OF_TEACHER = ("labels", "distinct_views", "calls", "cached", "bad_replies", "cost_usd")
_IN_CURVE = ("lam", "kl", "agreement", "labels", "calls", "cost_usd")


class TrainingRun:
    """A training script's folder, log and end. The learning itself stays in the script.

    Inside its ``with`` block the run holds the folder's lock, and Ctrl-C and SIGTERM raise ``KeyboardInterrupt`` where
    nothing is lost: at the next :meth:`step`, or at once inside :meth:`waiting` and at the second signal.

    Args:
        name: of a new run, whose folder is ``runs/<name>__<seconds since 1970>``.
        resume: the folder of an earlier run, to continue that one instead.

    Attributes:
        folder: the run's folder.
        global_step: the frames so far, of all environments together.
        summary: what summary.json says, once the run has ended.

    Raises:
        UsageError: if the folder to continue is missing, or another process holds it.

    Example:
        >>> with TrainingRun("example") as run:
        ...     run.begin("example", {"env_id": "CartPole-v1", "seed": 1, "lam": 0.0, "total_timesteps": 2})
        ...     run.step(np.array([0.0, 1.0]), {})
        ...     run.log({"losses/value_loss": 0.5}, lam=0.0)  # doctest: +ELLIPSIS
        runs/example__...
        >>> run.summary["algo"], run.summary["global_step"], run.summary["mean_return_100"]
        ('example', 2, None)
    """

    def __init__(self, name: str = "", *, resume: str | Path | None = None) -> None:
        if resume is not None and not Path(resume).is_dir():
            raise UsageError(f"{resume}: no such folder; give one that a run has left in runs/")
        self.folder = new_folder(name) if resume is None else Path(resume)
        self.global_step = self._episodes = 0
        self._is_new, self._signal, self._is_waiting = resume is None, 0, False
        self._lock = filelock.FileLock(self.folder / "lock")
        self._handlers: dict[signal.Signals, Any] = {}
        self.summary: dict[str, Any] = {}
        self._about: dict[str, Any] = {}

    def __enter__(self) -> Self:
        file = self.folder / "lock"
        refuse_odd(file)
        try:
            self._lock.acquire(timeout=0)  # the system releases the lock of a process that died
        except filelock.Timeout:
            message = f"{self.folder}: process {file.read_text()} is training there; wait until it has ended"
            raise UsageError(message) from None
        file.write_text(str(os.getpid()))
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        for number, default in defaults.items() if threading.current_thread() is threading.main_thread() else ():
            if signal.getsignal(number) == default:  # not where a shell ignores Ctrl-C for a job in its background
                self._handlers[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        try:
            if self._about:
                self._finish()
            elif self._is_new:
                shutil.rmtree(self.folder)
            elif isinstance(error, _OF_ITS_FILES) and not isinstance(error, UsageError):
                why = f"its files are of another version, or damaged: {str(error).partition(chr(10))[0][:200]}"
                raise UsageError(f"--resume {self.folder}: {why}") from error
        finally:
            self._lock.release()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def track(self, args: Mapping[str, Any]) -> None:
        """With the flag ``--track``, have Weights and Biases follow the run's TensorBoard file.

        Args:
            args: the script's flags.

        Raises:
            UsageError: if wandb is not installed.
        """
        if not args["track"]:
            return
        try:
            import wandb
        except ImportError:
            raise UsageError("--track needs Weights and Biases: pip install wandb") from None
        where = {"project": args["wandb_project_name"], "entity": args["wandb_entity"], "name": self.folder.name}
        wandb.init(**where, sync_tensorboard=True, config=dict(args), monitor_gym=True, save_code=True)

    def spent(self, state: Mapping[str, Any]) -> dict[str, float]:
        """What a run has spent before, as the ``spent_usd`` and ``spent_calls`` of its teacher.

        Args:
            state: the :meth:`state` in its checkpoint; empty for a new run.
        """
        counts = self._counted_before(state)
        return {"spent_usd": counts["charged_usd"], "spent_calls": counts["calls"]}

    def refuse_changes(self, args: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        """Check that a resumed run learns what it learnt before.

        Args:
            args: the script's flags.
            kept: those in the checkpoint; empty for a new run.

        Raises:
            UsageError: if a flag has changed that decides what is learnt.
        """
        for name, before in kept.items():
            # An annealed learning rate depends on where the run ends.
            is_renewable = name in _RENEWABLE and not (name == "total_timesteps" and args.get("anneal_lr"))
            if args[name] != before and not is_renewable:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"--resume {self.folder}: it is a run with {flag} {before}, not with {flag} {args[name]}"
                )

    def begin(
        self,
        algo: str,
        args: Mapping[str, Any],
        teacher: Teacher | None = None,
        writer: Callable[..., Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin the log, or continue it.

        Args:
            algo: the name of the script.
            args: its flags; ``total_timesteps``, ``env_id``, ``seed`` and ``lam`` are among them, and perhaps
                ``success_return``.
            teacher: whose counters are logged; None where there is no teacher.
            writer: TensorBoard's ``SummaryWriter``.
            state: the :meth:`state` in the checkpoint of a resumed run; later rows of its curve are dropped.
        """
        self._teacher, state = teacher, state or {}
        self._writer: Any = writer(self.folder, purge_step=state.get("global_step", 0) + 1) if writer else None
        self._success_return: float | None = args.get("success_return")
        self.global_step, self._episodes = state.get("global_step", 0), state.get("episodes", 0)
        # (return, success) of the last episodes
        self._ends = deque(((float(earned), won) for earned, won in state.get("ends", ())), maxlen=100)
        self._started = time.perf_counter() - state.get("seconds", 0.0)
        # The teacher may have served an earlier run of this process, and a resumed run's counts another process.
        self._counts_before: Counter[str] = Counter()
        self._counts_before = Counter(self._counts())
        self._counts_before.subtract(self._counted_before(state))
        self._curve, self._episodes_csv = self._continued("curve.csv"), self._continued("episodes.csv")
        if not self._episodes_csv.tell():
            csv.writer(self._episodes_csv).writerow(("global_step", "return", "length", "success"))
        self._bar = Progress(disable=not (sys.stdout and sys.stdout.isatty()))
        self._task, self._printed = self._bar.add_task("", total=args["total_timesteps"]), time.perf_counter()
        self._bar.start()
        if self._writer:
            self._writer.add_text("hyperparameters", "\n".join(f"    {name}: {value}" for name, value in args.items()))
        if self.global_step:
            print(f"Resumed at step {self.global_step}; the episodes that were under way begin anew.")  # noqa: T201
        if teacher:
            print(f"Teacher: {teacher.model}. Store: {teacher.store_path}.", flush=True)  # noqa: T201
        self._about = {"env_id": args["env_id"], "algo": algo, "seed": args["seed"], "lam": args["lam"]}

    def step(self, rewards: NDArray[Any], infos: Mapping[str, Any]) -> None:
        """Count one ``step`` of a vector environment with autoreset mode SAME_STEP, and the episodes that it ended.

        Raises:
            KeyboardInterrupt: if a signal has asked the run to end.
        """
        self.global_step += len(rewards)
        for i in np.flatnonzero(infos.get("_final_info", ())):
            episode = infos["final_info"]["episode"]
            self._episodes += 1
            success = episode_success(infos["final_info"], int(i), self._success_return)
            self._ends.append((float(episode["r"][i]), success))
            end = (self.global_step, round(float(episode["r"][i]), 6), int(episode["l"][i]))
            csv.writer(self._episodes_csv).writerow([*end, None if success is None else int(success)])
            self._add({"charts/episodic_return": episode["r"][i], "charts/episodic_length": episode["l"][i]})
        self._end_if_asked()

    def mean_return(self, episodes: int) -> float | None:
        """The mean return of the last episodes, at most 100; None before there are so many."""
        return self._mean_of_last(episodes, 0)

    def log(self, measured: Mapping[str, float], lam: float, returns: Any = None, values: Any = None) -> None:
        """Log an update: TensorBoard, curve.csv, progress.

        Args:
            measured: what it measured.
            lam: its weight of the distillation loss.
            returns: of its frames, a tensor; logged is how much of their variance the critic had explained.
            values: what the critic had expected of each of them.
        """
        if returns is not None and (variance := float(returns.var(correction=0))) > 0:
            unexplained = float((returns - values).var(correction=0)) / variance
            measured = {**measured, "losses/explained_variance": 1 - unexplained}
        figures = self._figures()
        teacher, measured = figures.pop("teacher"), {**measured, "charts/SPS": int(figures["steps_per_s"])}
        if teacher:
            measured |= {f"teacher/{name}": teacher[name] for name in ("labels", "calls", "bad_replies", "cost_usd")}
            measured |= {"teacher/cached_share": teacher["cached"] / max(teacher["labels"], 1), "teacher/lam": lam}
        self._add(measured)
        row = figures | {"mean_return_50": self.mean_return(50)}
        row |= {name: measured.get(f"teacher/{name}") for name in _IN_CURVE}
        csv.writer(self._curve).writerows([row.values()] if self._curve.tell() else [row, row.values()])
        self._curve.flush()
        self._episodes_csv.flush()
        names = ("global_step", "mean_return_100", "success_100", "steps_per_s", "labels", "calls", "cost_usd")
        text = "  ".join(f"{name} {round(row[name], 3):,}" for name in names if row[name] is not None)
        self._bar.update(self._task, completed=self.global_step, description=text)
        if self._bar.disable and time.perf_counter() - self._printed >= PROGRESS_EVERY_S:
            self._printed = time.perf_counter()
            print(text, flush=True)  # noqa: T201 -- a training script's output

    def add_samples(self, envs: VectorTeacherWrapper, student_probs: NDArray[np.float32]) -> None:
        """Log a picture of what teacher and student make of the current observations.

        Args:
            envs: the environments, under the teacher's wrapper.
            student_probs: the student's distributions, shape (num_envs, n_actions).
        """
        with self.waiting():
            picture = envs.samples(student_probs)
        if self._writer:
            self._writer.add_image("teacher/samples", picture, self.global_step, dataformats="HWC")

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the log: numbers, lists and dicts."""
        seconds = time.perf_counter() - self._started
        state = {"global_step": self.global_step, "episodes": self._episodes, "ends": [*self._ends]}
        return {**state, "seconds": seconds, "counts": self._counts()}

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the script waits for the teacher's replies, the first signal ends it, too."""
        self._is_waiting = True
        try:
            self._end_if_asked()
            yield
        finally:
            self._is_waiting = False

    def write(self, name: str, content: bytes | Callable[[BinaryIO], object]) -> None:
        """Write a whole file into the folder or none, and never through a link that somebody has put there.

        Args:
            name: the file's name.
            content: its bytes, or what writes them into a file that it is given.

        Raises:
            OSError: if it cannot be written, with the file's name.
        """
        if callable(content):
            content(buffer := io.BytesIO())
            content = buffer.getvalue()
        file, part = self.folder / name, self.folder / f"{name}.part"
        try:
            part.unlink(missing_ok=True)
            with part.open("xb") as fp:
                fp.write(content)
            part.replace(file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(file)) from error

    def _continued(self, name: str) -> TextIO:
        """Open a table of the run to add rows to it; without those that come after the present step."""
        kept = (line for line in lines_of(self.folder / name) if _is_up_to(self.global_step, line))
        self.write(name, "".join(kept).encode())
        return (self.folder / name).open("a", newline="")

    def _mean_of_last(self, n: int, which: int) -> float | None:
        """The mean return (0) or success (1) of the last n episodes; None before there are n, or if unknown."""
        last = [end[which] for end in [*self._ends][-n:]]
        return float(np.mean(last)) if len(last) == n and None not in last else None

    def _finish(self) -> None:
        self._bar.stop()
        self._curve.close()
        self._episodes_csv.close()
        if self._writer:
            self._writer.close()
        self.summary = {**self._about, **self._figures()}
        self.write("summary.json", f"{json.dumps(self.summary, indent=2)}\n".encode())
        print(f"{self.folder}: {json.dumps(self.summary)}", flush=True)  # noqa: T201

    def _counted_before(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The counts of a resumed run. If it was killed, the last row of its curve is younger than its checkpoint."""
        counts: dict[str, Any] = {"calls": 0, "cost_usd": 0.0, "charged_usd": 0.0} | state.get("counts", {})
        for row in csv.DictReader(lines_of(self.folder / "curve.csv")):
            with suppress(LookupError, TypeError, ValueError):  # a run without a teacher
                counts["calls"] = max(counts["calls"], int(row["calls"]))
                counts["cost_usd"] = max(counts["cost_usd"], float(row["cost_usd"]))
        counts["charged_usd"] = max(counts["charged_usd"], counts["cost_usd"])
        return counts

    def _interrupt(self, number: int, _frame: object) -> None:
        """Handle a signal. An exception at just any line could be swallowed there, or leave a lock taken."""
        is_second, self._signal = bool(self._signal), number
        if is_second or self._is_waiting:
            raise KeyboardInterrupt(number, is_second)

    def _end_if_asked(self) -> None:
        if self._signal:
            raise KeyboardInterrupt(self._signal, False)

    def _add(self, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items() if self._writer else ():
            self._writer.add_scalar(name, value, self.global_step)

    def _counts(self) -> dict[str, float]:
        """The teacher's counters, of this run alone."""
        counts = Counter(vars(self._teacher.counters) if self._teacher else {})
        counts.subtract(self._counts_before)
        return dict(counts)

    def _figures(self) -> dict[str, Any]:
        counts = self._counts()
        return {
            "global_step": self.global_step,
            "episodes": self._episodes,
            "mean_return_100": self.mean_return(100),
            "success_100": self._mean_of_last(100, 1),
            "steps_per_s": round(self.global_step / (time.perf_counter() - self._started), 1),
            "teacher": {"model": self._teacher.model, **{n: counts[n] for n in _OF_TEACHER}} if self._teacher else None,
        }


def _is_up_to(global_step: int, line: str) -> bool:
    """Whether a resumed run keeps a line of a table; a kill may have cut the last one."""
    step = line.partition(",")[0]
    return line.endswith("\n") and (step == "global_step" or (step.isdecimal() and int(step[:18]) <= global_step))


def episode_success(infos: Mapping[str, Any], i: int, success_return: float | None) -> bool | None:
    """Whether an episode that has just ended was a success.

    Args:
        infos: of its last step, of a vector environment; they have the ``episode`` of ``RecordEpisodeStatistics``.
        i: which sub-environment's.
        success_return: the return from which on an episode counts as a success, where ``infos`` do not say it.

    Returns:
        ``is_success`` of the infos; else whether the return is high enough; None where neither is known.
    """
    if infos.get("_is_success", np.zeros(i + 1))[i]:
        return bool(infos["is_success"][i])
    return None if success_return is None else bool(infos["episode"]["r"][i] >= success_return)
