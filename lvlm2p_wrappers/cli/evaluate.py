"""``lvlm2p evaluate``: the metrics of a teacher."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lvlm2p_wrappers.cli.arguments import (
    STORE,
    BudgetCalls,
    BudgetUsd,
    Concurrency,
    Count,
    EnvId,
    Json,
    Model,
    Prompts,
    Seed,
    StoreFile,
    optional,
)
from lvlm2p_wrappers.cli.environments import in_silence, make
from lvlm2p_wrappers.cli.estimate import roll_out
from lvlm2p_wrappers.cli.printing import console, say, say_facts, say_json, say_table
from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.evaluation import RUN_FRAMES, EvaluationFolder, compute_metrics
from lvlm2p_wrappers.evaluation.run import Progress as Watch
from lvlm2p_wrappers.evaluation.run import evaluate
from lvlm2p_wrappers.records import EvaluationArguments, Heading, Metrics, PriceMetrics, Rate, ReplyMetrics
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.units import duration, money
from lvlm2p_wrappers.views import EnvInfo, viewer

_ROLLOUT = 4_000  # frames from which the views of a run are estimated


@dataclass(kw_only=True)
class Sampling:
    """The flags of the commands that have states labelled."""

    states: Count = 200
    """States to label, at most."""
    seed: Seed = 0
    """Seed of states and episodes."""
    concurrency: Concurrency = 16
    budget_usd: BudgetUsd = None
    budget_calls: BudgetCalls = None
    offline: Annotated[bool, optional()] = False
    """Answer from the store alone."""
    store: StoreFile = STORE

    def teacher(self, model: str, prompts: str | None) -> Teacher:
        """The teacher that the flags describe.

        Raises:
            UsageError: if the model string or a value cannot work.
        """
        catalogue.recognise(model)
        return Teacher(
            model,
            prompts=prompts,
            store=self.store,
            concurrency=self.concurrency,
            budget_usd=self.budget_usd,
            budget_calls=self.budget_calls,
            offline=self.offline,
        )


@dataclass(kw_only=True)
class Evaluate(Sampling):
    """Measure a teacher: accuracy, rollouts, calibration, price.

    The teacher labels a fixed set of states, which depends on the environment
    and --seed alone: from random, student-like and expert rollouts. Its labels
    are compared with the ground truth, which it never sees. Then it acts in
    rollouts of its own: with its most probable action, and with sampled ones.
    Environments outside the package minigrid have no ground truth; they get
    the metrics that need none.

    Rows are kept in the folder as they arrive: after a spent budget, a fault or
    Ctrl-C the same command resumes. Answers come from the store where they are
    there, and go into it.

    Examples:
      lvlm2p evaluate MiniGrid-LavaGapS7-v0 --model embedded/minigrid-planner
      lvlm2p evaluate MiniGrid-LavaGapS7-v0 --model gemini/gemini-2.5-flash-lite --episodes 0 --budget-usd 1
      lvlm2p evaluate FrozenLake-v1 --model openai/gpt-4o-mini --prompts my_prompts --out evaluations/lake
    """

    env_id: EnvId
    model: Model
    prompts: Prompts = None
    episodes: Seed = 50
    """Rollouts with each policy."""
    out: Annotated[Path | None, optional("FOLDER")] = None
    """Where rows and metrics are kept. Without it evaluations/ENV__MODEL."""
    json: Json = False

    def run(self) -> None:
        """Evaluate and print.

        Raises:
            TeacherError: if something is missing at the end; what is there has been printed and kept.
        """
        teacher = self.teacher(self.model, self.prompts)
        env_info = look_at(self.env_id)
        teacher.resume()
        arguments = EvaluationArguments(
            env_id=env_info.env_id,
            model=teacher.model,
            prompts=self.prompts or env_info.family,
            fingerprint=teacher.read_prompts(env_info).fingerprint,
            seed=self.seed,
            states=self.states,
            episodes=self.episodes,
        )
        path = self.out or default_folder(env_info.env_id, self.model, self.prompts)
        missing: TeacherError | KeyboardInterrupt | None = None
        with EvaluationFolder(path, arguments) as folder:
            with in_silence(), progress() as watch:
                try:
                    make_env = functools.partial(make, self.env_id)
                    missing = evaluate(teacher, make_env, folder, width=self.concurrency, progress=watch)
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


def look_at(env_id: str) -> EnvInfo:
    """What is known of an environment, which can be made and reset.

    Raises:
        UsageError: if it cannot.
    """
    with in_silence():
        env = make(env_id)
        env_info = viewer(env).env_info
        try:
            env.reset(seed=0)
        except OSError as error:  # its files are missing, say
            raise UsageError(f"{env_id} cannot be reset: {error}") from None
        env.close()
    return env_info


def default_folder(env_id: str, model: str, prompts: str | None) -> Path:
    """Where an evaluation is kept unless the user says where."""
    names = [env_id, model, *([Path(prompts).resolve().name] if prompts else [])]
    return Path("evaluations") / "__".join(re.sub(r"[^A-Za-z0-9._=-]+", "-", name) for name in names)


@contextmanager
def progress() -> Iterator[Watch]:
    """Bars on a terminal, on standard error."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def watch(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=of)

        yield watch


def _run_views(env_id: str, teacher: Teacher, folder: EvaluationFolder) -> float | None:
    """The most views that a run may show, where their price is of interest."""
    each = compute_metrics(folder.labels, []).price.usd_per_label
    if not each:
        return None if each is None else 0.0
    env = make(env_id)
    history = teacher.prompts(viewer(env).env_info).options.history
    rollout = roll_out(env, range(_ROLLOUT), seed=folder.arguments.seed, history=history)
    env.close()
    return rollout.distinct_views(RUN_FRAMES).high


# --- for people ---


def rate(value: Rate | float | None, form: Callable[[float], str] = "{:.3f}".format) -> str:
    """A rate and its interval, or a plain number."""
    if value is None:
        return "-"
    if not isinstance(value, Rate):
        return form(value)
    return f"{form(value.value)} ({form(value.low)} to {form(value.high)})"


def _print(folder: EvaluationFolder, metrics: Metrics) -> None:
    asked = folder.arguments
    say(f"{asked.env_id}, {asked.model}, prompts {asked.prompts}", style="bold")
    if metrics.rollouts:
        say_table(_rollouts(metrics), header=("rollouts", "success", "return", "steps"), whole=(0, 1, 2))
        say("")
    say_table(_rows(metrics), header=("metric", "rate (95%)", "n"), numbers=(2,), whole=(0, 1))
    say("")
    if metrics.analysis is not None:
        _print_headings(metrics.analysis.headings)
    say_facts([*_replies(metrics.replies), *_price(metrics.price)])
    say(f"kept in {folder.path}")


def _rollouts(metrics: Metrics) -> list[tuple[str, ...]]:
    names = {"argmax": "most probable action", "sampled": "sampled action"}
    return [
        (names[policy], rate(row.success), rate(row.episodic_return), rate(row.length, "{:.1f}".format))
        for policy, row in metrics.rollouts.items()
    ]


def _rows(metrics: Metrics) -> list[tuple[str, ...]]:
    analysis, action = metrics.analysis, metrics.action
    rows: list[tuple[str, Rate | float | None]] = []
    if analysis is not None:
        rows += [
            ("analysis: row right", analysis.agent_row),
            ("analysis: column right", analysis.agent_column),
            ("analysis: cell right", analysis.cell),
            ("analysis: heading right", analysis.heading),
            ("analysis: cell and heading", analysis.pose),
            ("analysis: targets right", analysis.targets),
            ("analysis: hazards right", analysis.hazards),
        ]
    if action is not None:
        rows += [
            ("action: best one is optimal", action.agreement),
            ("action: mass on optimal", action.mass_optimal),
            ("action: mass on fatal", action.mass_fatal),
            ("action: calibration error", action.ece),
            ("action: entropy (nats)", action.entropy),
        ]
    return [(name, rate(value), f"{value.n:,}" if isinstance(value, Rate) else "") for name, value in rows]


def _print_headings(table: Mapping[Heading, Mapping[Heading, int]]) -> None:
    rows = [(f"true {true}", *(f"{count:,}" for count in row.values())) for true, row in table.items()]
    say_table(rows, header=("heading", *(f"predicted {name}" for name in table)), numbers=range(1, len(table) + 1))
    say("")


def _replies(replies: ReplyMetrics) -> list[tuple[str, str]]:
    kinds = ", ".join(f"{kind}: {count}" for kind, count in replies.by_kind.items())
    failed = f"{replies.failures:,}" + (f" ({kinds})" if kinds else "")
    return [
        ("labels", f"{replies.labels:,}"),
        ("states without a label", failed),
        ("bad replies, repaired ones too", f"{replies.bad_replies:,}"),
    ]


def _price(price: PriceMetrics) -> list[tuple[str, str]]:
    return [
        ("price of a label", money(price.usd_per_label)),
        (
            "tokens of a label",
            f"{rate(price.prompt_tokens, '{:,.0f}'.format)} sent, "
            f"{rate(price.completion_tokens, '{:,.0f}'.format)} received",
        ),
        ("latency of a label", f"{duration(price.latency_p50_s)} (p50), {duration(price.latency_p95_s)} (p95)"),
        (f"price of {RUN_FRAMES:,} frames, at most", money(price.usd_20000_frames)),
    ]
