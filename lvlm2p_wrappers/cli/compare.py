"""``lvlm2p compare``: two models, two prompt sets, or one of each, on the same states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

from tyro.conf import Positional, UseAppendAction, arg

from lvlm2p_wrappers.cli.arguments import optional
from lvlm2p_wrappers.cli.environments import in_silence, info_of, make
from lvlm2p_wrappers.cli.evaluate import LabellingFlags, progress
from lvlm2p_wrappers.cli.printing import say, say_json, say_table
from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.errors import ModelError, UsageError
from lvlm2p_wrappers.evaluation import State, collect_states, label_states
from lvlm2p_wrappers.evaluation.comparison import Difference, differences
from lvlm2p_wrappers.evaluation.players import Players
from lvlm2p_wrappers.evaluation.run import Progress
from lvlm2p_wrappers.prompts import bundled_prompts
from lvlm2p_wrappers.records import Label


class Side(NamedTuple):
    """One of the two teachers."""

    model: str
    prompts: str | None


@dataclass(kw_only=True)
class Compare(LabellingFlags):
    """Tell whether one of two models or prompt sets is really better.

    A and B are a model string, a prompt folder (or the name of a bundled set),
    or both as MODEL@FOLDER. What is left out is taken from --model and
    --prompts. Both label the same states; the differences are taken state by
    state, each with its 95% interval. "differs" is printed only where the
    interval excludes 0.

    Every answer goes into the store: after a fault the same command pays only
    for what is missing.

    Examples:
      lvlm2p compare minigrid my_prompts --model gemini/gemini-2.5-flash-lite --env MiniGrid-Fetch-6x6-N2-v0
      lvlm2p compare openai/gpt-4o-mini gemini/gemini-2.5-flash --env MiniGrid-LavaGapS7-v0
      lvlm2p compare openai/gpt-4o-mini@minigrid openai/gpt-4o@my_prompts --env MiniGrid-LavaGapS7-v0 --states 50
    """

    first: Annotated[str, Positional, arg(metavar="A")]  # MODEL, FOLDER or MODEL@FOLDER
    second: Annotated[str, Positional, arg(metavar="B")]  # likewise
    env: Annotated[tuple[str, ...], UseAppendAction, arg(metavar="ENV_ID")]  # an environment
    model: Annotated[str | None, optional("M")] = None  # the model of a side that names none

    def run(self) -> None:
        """See ``Command``."""
        if not self.env:
            raise UsageError("say with --env which environment's states to label")
        sides = [self._side(text) for text in (self.first, self.second)]
        for env_id in self.env:
            info_of(env_id, self.own_view)
        left = replace(self)  # its budget shrinks as it is spent
        with in_silence(), progress() as told:
            found = {env_id: left._compare(env_id, sides, told) for env_id in dict.fromkeys(self.env)}
        if self.json:
            rows = {env_id: [_as_json(row) for row in differing] for env_id, differing in found.items()}
            say_json({"sides": [side._asdict() for side in sides], "environments": rows})
            return
        for letter, side in zip("AB", sides, strict=True):
            say(f"{letter}  {side.model}" + (f" with {side.prompts}" if side.prompts else ""))
        for env_id, differing in found.items():
            say(f"\n{env_id}", style="bold")
            header = ("metric", "A", "B", "B - A", "95% interval", "n", "")
            say_table(map(_row, differing), header=header, numbers=(1, 2, 3, 5), whole=(0, 4, 6))

    def _side(self, text: str) -> Side:
        """Read a side. Model strings may hold an @ themselves, so what follows it has to be there."""
        model, at, folder = text.rpartition("@")
        if _is_set(text):
            if self.model is None:
                raise UsageError(f"{text} is a prompt set: say with --model who is asked, or write MODEL@{text}")
            return Side(self.model, text)
        if at and _is_set(folder):
            return Side(model, folder)
        try:
            if not text.startswith("python:"):
                catalogue.recognise(text)
        except ModelError as error:
            raise UsageError(f"{text!r} is no folder of prompts, and no model either: {error}") from None
        return Side(text, self.prompts)

    def _compare(self, env_id: str, sides: Sequence[Side], told: Progress) -> list[Difference]:
        """The differences between the sides in one environment."""
        env = make(env_id)
        frames = max(self.teacher(side.model, prompts=side.prompts).frames_of(env) for side in sides)
        players = Players(self.states_from, trust=self.trust)
        states = collect_states(env, self.states, seed=self.seed, frames=frames, own=self.own_view, players=players)
        env.close()
        tasks = (f"{env_id}, {letter}" for letter in "AB")
        first, second = (self._label(side, task, states, told) for side, task in zip(sides, tasks, strict=True))
        return [row for row in differences(first, second) if row.first is not None or row.other is not None]

    def _label(self, side: Side, task: str, states: list[State], told: Progress) -> list[Label]:
        teacher = self.teacher(side.model, prompts=side.prompts)
        labels: list[Label] = []
        try:
            for label in label_states(teacher, states, width=self.concurrency):
                labels.append(label)
                told(task, len(labels), len(states))
        finally:
            teacher.drain()
        spent = teacher.counters
        if self.budget_scope == "store":  # it is counted there
            return sorted(labels, key=lambda label: label.id)
        if self.budget_usd is not None:
            self.budget_usd = max(0.0, self.budget_usd - spent.cost_usd)
        if self.budget_calls is not None:
            self.budget_calls = max(0, self.budget_calls - spent.calls)
        return sorted(labels, key=lambda label: label.id)


def _is_set(text: str) -> bool:
    return bool(text) and (Path(text).is_dir() or (bundled_prompts() / text).is_dir())


def _as_json(row: Difference) -> dict[str, object]:
    difference = None if row.difference is None else row.difference.model_dump()
    return {**row._asdict(), "difference": difference, "differs": row.differs}


def _row(row: Difference) -> tuple[str, ...]:
    """Both averages, the difference, its interval, from how many states it is, and the verdict."""
    means = ("-" if value is None else f"{value:.3f}" for value in (row.first, row.other))
    if row.difference is None:
        return row.metric, *means, "-", "too few" if row.n else "-", f"{row.n:,}", ""
    difference, low, high = (f"{x:+.3f}" for x in (row.difference.value, row.difference.low, row.difference.high))
    return row.metric, *means, difference, f"{low} to {high}", f"{row.n:,}", "differs" if row.differs else ""
