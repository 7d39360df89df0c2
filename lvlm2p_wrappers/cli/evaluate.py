"""``lvlm2p evaluate``: a teacher's report card."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lvlm2p_wrappers.cli.arguments import Commands, add_command, add_json, add_store, at_least_one, not_negative
from lvlm2p_wrappers.cli.environments import in_silence, make
from lvlm2p_wrappers.cli.estimate.discovery import distinct_views, roll_out
from lvlm2p_wrappers.cli.printing import console, duration, money, say, say_json, say_table
from lvlm2p_wrappers.client import pricing
from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.evaluation import RUN_FRAMES, Record, card
from lvlm2p_wrappers.evaluation.run import Watch, arguments_of, evaluate
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.views import EnvInfo, viewer

_ROLLOUT = 4_000  # frames from which the views of a run are extrapolated, as in `lvlm2p estimate`
_ENVS = 8

_MORE = """\
The teacher labels a fixed set of states, which depends on the environment and --seed alone: from random, student-like
and expert trajectories. What it says is compared with the environment's own state, which it never gets to see. Then it
plays: its most probable action, and actions drawn from its distribution. Environments that are not of the package
minigrid get everything that needs no truth.

Rows are kept in the folder as they arrive: after a budget, a fault or Ctrl-C the same command goes on where it ended.
Answers come from the store where they are there, and go into it.

examples:
  lvlm2p evaluate MiniGrid-LavaGapS7-v0 --model embedded/minigrid-planner
  lvlm2p evaluate MiniGrid-LavaGapS7-v0 --model gemini/gemini-2.5-flash-lite --states 100 --episodes 0 --budget-usd 1
  lvlm2p evaluate FrozenLake-v1 --model openai/gpt-4o-mini --prompts my_prompts --out evaluations/lake"""


def add_parser(commands: Commands) -> None:
    """Add ``evaluate`` to the command line."""
    parser = add_command(
        commands,
        "evaluate",
        summary="say how good a teacher is: play, sight, decisions, price",
        more=_MORE,
    )
    parser.add_argument("env_id", metavar="ENV_ID", help="the environment; MODULE:ID for one that a module registers")
    parser.add_argument("--model", metavar="M", required=True, help="the teacher, as a LiteLLM model string")
    parser.add_argument("--prompts", metavar="P", help="folder of your own templates, or the name of a bundled set")
    parser.add_argument(
        "--episodes", metavar="N", type=zero_or_more, default=50, help="episodes played of each way (default: 50)"
    )
    add_sample(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="where rows and card are kept (default: evaluations/ENV__MODEL)"
    )
    add_limits(parser)
    add_store(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def add_sample(parser: argparse.ArgumentParser) -> None:
    """Add what decides which states are labelled."""
    parser.add_argument(
        "--states", metavar="N", type=at_least_one, default=200, help="states labelled, at most (default: 200)"
    )
    parser.add_argument("--seed", metavar="S", type=zero_or_more, default=0, help="of states and episodes (default: 0)")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add what limits the calls."""
    parser.add_argument(
        "--concurrency", metavar="N", type=at_least_one, default=16, help="calls in flight (default: 16)"
    )
    parser.add_argument("--budget-usd", metavar="D", type=not_negative, help="spend at most so many US dollars")
    parser.add_argument("--budget-calls", metavar="N", type=zero_or_more, help="make at most so many calls")
    parser.add_argument("--offline", action="store_true", help="answer from the store alone")


def zero_or_more(text: str) -> int:
    """A whole number from 0 on, as argparse wants its types."""
    return 0 if text.strip("0_") == "" and "0" in text else at_least_one(text)


def teacher_of(model: str, prompts: str | None, args: argparse.Namespace) -> Teacher:
    """The teacher that some arguments ask for.

    Raises:
        UsageError: if the model string or a value cannot work.
    """
    pricing.recognise(model)
    return Teacher(
        model,
        prompts=prompts,
        store=args.store,
        concurrency=args.concurrency,
        budget_usd=args.budget_usd,
        budget_calls=args.budget_calls,
        offline=args.offline,
    )


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


def run(args: argparse.Namespace) -> None:
    """Evaluate and print.

    Raises:
        TeacherError: if something is missing at the end; what is there has been printed and kept.
    """
    teacher = teacher_of(args.model, args.prompts, args)
    env_info = look_at(args.env_id)
    arguments = arguments_of(
        teacher, env_info, prompts=args.prompts, seed=args.seed, states=args.states, episodes=args.episodes
    )
    record = Record(args.out or default_folder(env_info.env_id, args.model, args.prompts), arguments)
    missing: TeacherError | KeyboardInterrupt | None = None
    with in_silence(), progress() as watch:
        try:
            missing = evaluate(
                teacher, functools.partial(make, args.env_id), record, width=args.concurrency, watch=watch
            )
        except (TeacherError, KeyboardInterrupt) as error:
            missing = error
        views = _run_views(args.env_id, teacher, record)
    content = record.save(card(record.labels, record.episodes, run_views=views), complete=missing is None)
    if missing is None or record.labels or record.episodes:
        if args.json:
            say_json({"folder": str(record.folder), **content})
        else:
            _print(record, content)
    if missing is not None:
        if isinstance(missing, TeacherError):
            say("Incomplete. The same command goes on where this one ended.", stderr=True)
        raise missing


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


def _run_views(env_id: str, teacher: Teacher, record: Record) -> float | None:
    """The most views that a run may show, where their price is of interest."""
    each = card(record.labels, [])["price"]["usd_per_label"]
    if not each:
        return None if each is None else 0.0
    envs: list[gym.Env[Any, Any]] = [make(env_id) for _ in range(_ENVS)]
    history = teacher.prepare(viewer(envs[0]).env_info)
    rollout = roll_out(envs, range(_ROLLOUT), seed=record.arguments.seed, history=history, is_stored=None)
    for env in envs:
        env.close()
    return distinct_views(rollout, RUN_FRAMES).high


# --- for people ---


def rate(value: Any, form: Callable[[float], str] = "{:.3f}".format) -> str:
    """A rate and its interval, or a plain number."""
    if value is None:
        return "-"
    if not isinstance(value, dict):
        return form(value)
    return f"{form(value['value'])} ({form(value['low'])} to {form(value['high'])})"


def _print(record: Record, content: dict[str, Any]) -> None:
    found, asked = content["card"], record.arguments
    say(f"{asked.env_id}, {asked.model}, prompts {asked.prompts}", style="bold")
    say_table(_played(found["episodes"]), header=("plays", "success", "return", "steps"), whole=(0, 1, 2))
    say("")
    say_table(_rows(found), header=("says", "rate (95%)", "n"), numbers=(2,), whole=(0, 1))
    say("")
    if found["stage1"] is not None:
        _print_headings(found["stage1"]["headings"])
    say_table([*_replies(found["replies"]), *_price(found["price"])], whole=(0,))
    say(f"kept in {record.folder}")


def _played(ways: dict[str, Any]) -> list[tuple[str, ...]]:
    names = {"argmax": "most probable action", "sampled": "action drawn"}
    return [
        (names[way], rate(row["success"]), rate(row["return"]), rate(row["length"], "{:.1f}".format))
        for way, row in ways.items()
    ]


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    one, two = found["stage1"] or {}, found["stage2"] or {}
    rows = [
        ("analysis: row right", one.get("agent_row")),
        ("analysis: column right", one.get("agent_column")),
        ("analysis: cell right", one.get("cell")),
        ("analysis: heading right", one.get("heading")),
        ("analysis: cell and heading", one.get("pose")),
        ("analysis: targets right", one.get("targets")),
        ("analysis: hazards right", one.get("hazards")),
        ("action: best one is optimal", two.get("agreement")),
        ("action: mass on optimal", two.get("mass_optimal")),
        ("action: mass on fatal", two.get("mass_fatal")),
        ("action: calibration error", two.get("ece")),
        ("action: entropy (nats)", two.get("entropy")),
    ]
    return [(name, rate(value), f"{value['n']:,}" if isinstance(value, dict) else "") for name, value in rows]


def _print_headings(table: dict[str, dict[str, int]]) -> None:
    rows = [(f"true {true}", *(f"{count:,}" for count in said.values())) for true, said in table.items()]
    say_table(rows, header=("heading", *(f"said {name}" for name in table)), numbers=range(1, len(table) + 1))
    say("")


def _replies(replies: dict[str, Any]) -> list[tuple[str, str]]:
    kinds = ", ".join(f"{kind}: {count}" for kind, count in replies["by_kind"].items())
    failed = f"{replies['failures']:,}" + (f" ({kinds})" if kinds else "")
    return [
        ("labels", f"{replies['labels']:,}"),
        ("states without one", failed),
        ("bad replies, repaired ones too", f"{replies['bad_replies']:,}"),
    ]


def _price(price: dict[str, Any]) -> list[tuple[str, str]]:
    def seconds(value: float | None) -> str:
        return "-" if value is None else duration(value)

    return [
        ("price of a label", money(price["usd_per_label"])),
        (
            "tokens of a label",
            f"{rate(price['prompt_tokens'], '{:,.0f}'.format)} sent, "
            f"{rate(price['completion_tokens'], '{:,.0f}'.format)} received",
        ),
        ("time of a label", f"{seconds(price['latency_p50_s'])} (p50), {seconds(price['latency_p95_s'])} (p95)"),
        (f"price of {RUN_FRAMES:,} frames, at most", money(price[f"usd_{RUN_FRAMES}_frames"])),
    ]
