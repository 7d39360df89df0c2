"""``lvlm2p compare``: models, prompt sets or both, on the same states."""

from __future__ import annotations

import argparse
import copy
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lvlm2p_wrappers.cli.arguments import Commands, add_command, add_json, add_store
from lvlm2p_wrappers.cli.environments import in_silence, make
from lvlm2p_wrappers.cli.evaluate import add_limits, add_sample, look_at, progress, teacher_of
from lvlm2p_wrappers.cli.printing import say, say_json, say_table
from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.errors import ModelError, UsageError
from lvlm2p_wrappers.evaluation import State, collect_states, label_states
from lvlm2p_wrappers.evaluation.comparison import Difference, differences
from lvlm2p_wrappers.evaluation.run import Progress as Watch
from lvlm2p_wrappers.prompts import bundled_prompts
from lvlm2p_wrappers.records import Label

_MORE = """\
Each SIDE is a model string, a prompt folder (or the name of a bundled set), or both as MODEL@FOLDER. What a side leaves
out is taken from --model and --prompts. All label the same states; the differences are those from the first side, state
by state, each with its 95% interval. "differs" is said only where the interval excludes 0.

Every answer goes into the store: after a fault the same command pays only for what is missing.

examples:
  lvlm2p compare minigrid my_prompts --model gemini/gemini-2.5-flash-lite --env MiniGrid-Fetch-6x6-N2-v0
  lvlm2p compare openai/gpt-4o-mini gemini/gemini-2.5-flash --env MiniGrid-LavaGapS7-v0 --env MiniGrid-GoToDoor-6x6-v0
  lvlm2p compare openai/gpt-4o-mini@minigrid openai/gpt-4o@my_prompts --env MiniGrid-LavaGapS7-v0 --states 50"""


class Side(NamedTuple):
    """One of the teachers that are compared; ``letter`` stands for it in tables."""

    letter: str
    model: str
    prompts: str | None

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.model + (f" with {self.prompts}" if self.prompts else "")


def add_parser(commands: Commands) -> None:
    """Add ``compare`` to the command line."""
    parser = add_command(commands, "compare", summary="say whether models or prompt sets really differ", more=_MORE)
    parser.add_argument("sides", metavar="SIDE", nargs="+", help="MODEL, FOLDER or MODEL@FOLDER; at least two")
    parser.add_argument(
        "--env", metavar="ENV_ID", dest="envs", action="append", required=True, help="an environment; may be repeated"
    )
    parser.add_argument("--model", metavar="M", help="the model of the sides that name none")
    parser.add_argument("--prompts", metavar="P", help="the prompt set of the sides that name none")
    add_sample(parser)
    add_limits(parser)
    add_store(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compare and print.

    Raises:
        TeacherError: if a side cannot be asked, or leaves states without an answer.
    """
    sides = _sides(args)
    for env_id in args.envs:
        look_at(env_id)
    left = copy.copy(args)  # its budget shrinks as it is spent
    with in_silence(), progress() as watch:
        found = {env_id: _compared(env_id, sides, left, watch) for env_id in dict.fromkeys(args.envs)}
    if args.json:
        say_json(
            {
                "sides": [side._asdict() for side in sides],
                "environments": {env_id: [_as_json(*row) for row in rows] for env_id, rows in found.items()},
            }
        )
    else:
        _print(sides, found)


def _sides(args: argparse.Namespace) -> list[Side]:
    if len(args.sides) < 2:
        raise UsageError("there is one side only: name at least two models or prompt folders to compare")
    if len(args.sides) > len(string.ascii_uppercase):
        raise UsageError(f"{len(args.sides)} sides are too many: compare at most {len(string.ascii_uppercase)}")
    return [_side(letter, text, args) for letter, text in zip(string.ascii_uppercase, args.sides, strict=False)]


def _side(letter: str, text: str, args: argparse.Namespace) -> Side:
    """Read a side. Model strings may hold an @ themselves, so what follows it has to be there."""
    model, at, folder = text.rpartition("@")
    if _is_set(text):
        if args.model is None:
            raise UsageError(f"{text} is a prompt set: say with --model who is asked, or write MODEL@{text}")
        return Side(letter, args.model, text)
    if at and _is_set(folder):
        return Side(letter, model, folder)
    try:
        catalogue.recognise(text)
    except ModelError as error:
        raise UsageError(f"{text!r} is no folder of prompts, and no model either: {error}") from None
    return Side(letter, text, args.prompts)


def _is_set(text: str) -> bool:
    return bool(text) and (Path(text).is_dir() or (bundled_prompts() / text).is_dir())


def _compared(
    env_id: str, sides: Sequence[Side], left: argparse.Namespace, watch: Watch
) -> list[tuple[Side, Difference]]:
    """The differences of every other side from the first one, in one environment."""
    env = make(env_id)
    states = collect_states(env, left.states, seed=left.seed)
    env.close()
    first, *others = (_labels(side, env_id, states, left, watch) for side in sides)
    return [
        (side, difference)
        for side, labels in zip(sides[1:], others, strict=True)
        for difference in differences(first, labels)
        if difference.first is not None or difference.other is not None
    ]


def _labels(side: Side, env_id: str, states: list[State], left: argparse.Namespace, watch: Watch) -> list[Label]:
    teacher = teacher_of(side.model, side.prompts, left)
    labels: list[Label] = []
    try:
        for label in label_states(teacher, states, width=left.concurrency):
            labels.append(label)
            watch(f"{env_id}, {side.letter}", len(labels), len(states))
    finally:
        teacher.drain()
    spent = teacher.counters
    if left.budget_usd is not None:
        left.budget_usd = max(0.0, left.budget_usd - spent.cost_usd)
    if left.budget_calls is not None:
        left.budget_calls = max(0, left.budget_calls - spent.calls)
    return sorted(labels, key=lambda label: label.id)


def _as_json(side: Side, row: Difference) -> dict[str, Any]:
    difference = None if row.difference is None else row.difference.model_dump()
    return {"side": side.letter, **row._asdict(), "difference": difference, "differs": row.differs}


def _print(sides: Sequence[Side], found: dict[str, list[tuple[Side, Difference]]]) -> None:
    for side in sides:
        say(f"{side.letter}  {side.name}")
    other = "B" if len(sides) == 2 else "other"
    header = ["environment", "side", "metric", "A", other, f"{other} - A", "95% interval", "n", ""]
    rows = [
        [env_id, side.letter, row.metric, *_values(row), "differs" if row.differs else ""]
        for env_id, differing in found.items()
        for side, row in differing
    ]
    if len(sides) == 2:  # then the column of the sides says nothing
        header, rows = _without(1, header), [_without(1, row) for row in rows]
    if len(found) == 1:
        say("".join(found), style="bold")
        header, rows = _without(0, header), [_without(0, row) for row in rows]
    else:
        say("")
    last = len(header) - 1
    say_table(rows, header=header, numbers=(last - 5, last - 4, last - 3, last - 1), whole=(last - 6, last - 2, last))


def _without(number: int, cells: list[str]) -> list[str]:
    return cells[:number] + cells[number + 1 :]


def _values(row: Difference) -> tuple[str, str, str, str, str]:
    """Both averages, the difference, its interval, and from how many states it is."""
    first, other = ("-" if value is None else f"{value:.3f}" for value in (row.first, row.other))
    found = row.difference
    if found is None:
        return first, other, "-", "too few" if row.n else "-", f"{row.n:,}"
    difference, low, high = (f"{value:+.3f}" for value in (found.value, found.low, found.high))
    return first, other, difference, f"{low} to {high}", f"{row.n:,}"
