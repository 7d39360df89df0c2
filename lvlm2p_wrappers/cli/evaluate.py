"""``lvlm2p evaluate``: the metrics of a teacher."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import arg

from lvlm2p_wrappers.cli.arguments import (
    BudgetCalls,
    BudgetScope,
    BudgetUsd,
    Concurrency,
    EnvId,
    Model,
    Positive,
    Switch,
    Whole,
    optional,
)
from lvlm2p_wrappers.cli.environments import in_silence, info_of, make
from lvlm2p_wrappers.cli.estimate import roll_out
from lvlm2p_wrappers.cli.printing import console, say, say_facts, say_json, say_table
from lvlm2p_wrappers.cli.teacher_flags import TeacherFlags
from lvlm2p_wrappers.errors import TeacherError
from lvlm2p_wrappers.evaluation import RUN_FRAMES, EvaluationFolder, compute_metrics
from lvlm2p_wrappers.evaluation import run as evaluation_run
from lvlm2p_wrappers.records import EvaluationArguments, Metrics, Rate
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.units import count, duration, money

_NAMES = {
    "pose": "cell and heading",
    "agreement": "best one is optimal",
    "mass_optimal": "mass on optimal",
    "mass_fatal": "mass on fatal",
    "ece": "calibration error",
}
"""What the metrics are called whose names in ``evaluation.json`` say too little."""

_ROLLOUT = 4_000  # frames from which the views of a run are estimated


@dataclass(kw_only=True)
class LabellingFlags(TeacherFlags):
    """The flags of the commands that have states labelled."""

    states: Positive = 200  # states to label, at most
    states_from: Annotated[str, arg(metavar="WHO")] = "mixed"
    """whose rollouts the states are from: random, noisy_expert, expert, teacher, a run's folder; several with commas;
    mixed is the first three"""
    seed: Whole = 0  # seed of states and episodes
    concurrency: Concurrency = 16
    budget_usd: BudgetUsd = None
    budget_calls: BudgetCalls = None
    budget_scope: BudgetScope = "process"
    offline: Switch = False  # answer from the store alone


@dataclass(kw_only=True)
class Evaluate(LabellingFlags):
    """Measure a teacher: accuracy, rollouts, calibration, price.

    The teacher labels a fixed set of states, which depends on the environment
    and --seed alone: from rollouts of a random policy, of an expert and of one
    that errs. --states-from names others: the teacher itself, whose play costs
    a question a step, or a saved student's run. Its labels are compared with
    the ground truth, which it never sees: that of MiniGrid, BabyAI and
    environments with a table of transitions, as toy text; all others get the
    metrics that need none. Then it acts in rollouts of its own: with its most
    probable action, and with sampled ones.

    Rows are kept in the folder as they arrive: after a spent budget, a fault or
    Ctrl-C the same command resumes. Answers come from the store where they are
    there, and go into it.

    Examples:
      lvlm2p evaluate MiniGrid-LavaGapS7-v0 --model embedded/minigrid-planner
      lvlm2p evaluate MiniGrid-LavaGapS7-v0 --model gemini/gemini-2.5-flash-lite --episodes 0 --budget-usd 1
      lvlm2p evaluate CartPole-v1 --model gemini/gemini-2.5-flash --states-from random,teacher,runs/MY_RUN
      lvlm2p evaluate FrozenLake-v1 --model openai/gpt-4o-mini --prompts my_prompts --out evaluations/lake
    """

    env_id: EnvId
    model: Model
    episodes: Whole = 50  # rollouts with each policy
    out: Annotated[Path | None, optional("FOLDER")] = None
    """where rows and metrics are kept; without it evaluations/ENV__MODEL"""

    def run(self) -> None:
        """See ``Command``."""
        teacher = self.teacher(self.model)
        env_info = info_of(self.env_id, self.own_view)
        teacher.resume()
        arguments = EvaluationArguments(
            env_id=env_info.env_id,
            model=teacher.model,
            prompts=self.prompts or env_info.family,
            fingerprint=teacher.read_prompts(env_info).fingerprint,
            seed=self.seed,
            states=self.states,
            episodes=self.episodes,
            states_from=self.states_from,
        )
        path = self.out or default_folder(env_info.env_id, self.model, self.prompts)
        missing: TeacherError | KeyboardInterrupt | None = None
        with EvaluationFolder(path, arguments) as folder:
            with in_silence(), progress() as told:
                try:
                    make_env = functools.partial(make, self.env_id)
                    missing = evaluation_run.evaluate(
                        teacher, make_env, folder, width=self.concurrency, progress=told, trust=self.trust
                    )
                except (TeacherError, KeyboardInterrupt) as error:
                    missing = error
                views = _run_views(self.env_id, teacher, folder)
            metrics = compute_metrics(folder.labels, folder.episodes, run_views=views)
            content = folder.save(metrics, complete=missing is None)
        if missing is None or folder.labels or folder.episodes:
            if self.json:
                say_json({"folder": str(path), **content})
            else:
                _print(folder, metrics)
        if missing is not None:
            if isinstance(missing, TeacherError):
                say("Incomplete. The same command resumes the evaluation.", stderr=True)
            raise missing


def default_folder(env_id: str, model: str, prompts: str | None) -> Path:
    """Where an evaluation is kept unless the user says where."""
    names = [env_id, model, *([Path(prompts).resolve().name] if prompts else [])]
    return Path("evaluations") / "__".join(re.sub(r"[^A-Za-z0-9._=-]+", "-", name) for name in names)


@contextmanager
def progress() -> Iterator[evaluation_run.Progress]:
    """Bars on a terminal, on standard error."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=of)

        yield told


def _run_views(env_id: str, teacher: Teacher, folder: EvaluationFolder) -> float | None:
    """The most views that a run may show, where their price is of interest."""
    each = compute_metrics(folder.labels, []).price.usd_per_label
    if not each:
        return None if each is None else 0.0
    env = make(env_id)
    look = teacher.viewer(env)
    memory = teacher.prompts(look.env_info).memory(look.env_info)
    rollout = roll_out(env, look, _ROLLOUT, seed=folder.arguments.seed, memory=memory)
    env.close()
    return float(rollout.distinct_views(RUN_FRAMES)[1])


# --- for people ---


def _print(folder: EvaluationFolder, metrics: Metrics) -> None:
    asked = folder.arguments
    say(f"{asked.env_id}, {asked.teacher}, prompts {asked.prompts}", style="bold")
    if metrics.rollouts:
        names = {"argmax": "most probable action", "sampled": "sampled action"}
        rows = [
            (names[policy], _rate(row.success), _rate(row.episodic_return), f"{row.length:.1f}")
            for policy, row in metrics.rollouts.items()
        ]
        say_table(rows, header=("rollouts", "success", "return", "steps"), whole=(0, 1, 2))
        say("")
    say_table(_rows(metrics), header=("metric", "rate (95%)", "n"), numbers=(2,), whole=(0, 1))
    say("")
    if metrics.analysis is not None:
        table = metrics.analysis.headings
        headings = [(f"true {true}", *map(count, row.values())) for true, row in table.items()]
        header = ("heading", *(f"predicted {name}" for name in table))
        say_table(headings, header=header, numbers=range(1, len(header)))
        say("")
    replies, price = metrics.replies, metrics.price
    kinds = ", ".join(f"{kind}: {n}" for kind, n in replies.by_kind.items())
    facts = [
        ("labels", count(replies.labels)),
        ("states without a label", count(replies.failures) + (f" ({kinds})" if kinds else "")),
        ("bad replies, repaired ones too", count(replies.bad_replies)),
        ("price of a label", money(price.usd_per_label)),
        ("tokens of a label", f"{count(price.prompt_tokens)} sent, {count(price.completion_tokens)} received"),
        ("latency of a label", f"{duration(price.latency_p50_s)} (p50), {duration(price.latency_p95_s)} (p95)"),
        (f"price of {RUN_FRAMES:,} frames, at most", money(price.usd_20000_frames)),
    ]
    say_facts(facts)
    say(f"kept in {folder.path}")


def _rows(metrics: Metrics) -> Iterator[tuple[str, str, str]]:
    """The metrics of both stages that are rates or numbers."""
    for stage, found in (("analysis", metrics.analysis), ("action", metrics.action)):
        for name, value in found or ():
            if value is None or isinstance(value, Rate | float):
                n = f"{value.n:,}" if isinstance(value, Rate) else ""
                yield f"{stage}: {_NAMES.get(name, name.replace('_', ' '))}", _rate(value), n


def _rate(value: Rate | float | None) -> str:
    """A rate and its interval, or a plain number."""
    if isinstance(value, Rate):
        return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
    return "-" if value is None else f"{value:.3f}"
