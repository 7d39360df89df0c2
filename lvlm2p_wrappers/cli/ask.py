"""``lvlm2p ask``: one question to a teacher, and all that came of it."""

from __future__ import annotations

import json
import math
import textwrap
import time
from dataclasses import dataclass
from typing import Annotated, Any

from lvlm2p_wrappers.cli.arguments import STORE, BudgetUsd, Json, Model, StoreFile, optional
from lvlm2p_wrappers.cli.printing import console, say, say_facts, say_json, say_table
from lvlm2p_wrappers.cli.snapshot import Snapshot, picture_of
from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.records import Exchange, Message
from lvlm2p_wrappers.schemas import Advice
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.units import duration, money
from lvlm2p_wrappers.views import View

_BAR = 30  # characters of a bar that means certainty
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Asked:
    """A question to a teacher, and all that came of it.

    Attributes:
        teacher: who was asked.
        view: about what.
        started: when, in seconds since 1970.
        advice: None where there is none.
        problem: why there is none.
        exchanges: how it came about.
    """

    teacher: Teacher
    view: View
    started: float
    advice: Advice | None
    problem: TeacherError | None
    exchanges: tuple[Exchange, ...]

    @property
    def probabilities(self) -> dict[str, float] | None:
        """The advice by the actions' names."""
        if self.advice is None:
            return None
        actions = self.teacher.prompts(self.view.env_info).actions(self.view.env_info)
        return {action.name: float(p) for action, p in zip(actions, self.advice.probs, strict=True)}

    def from_store(self, exchange: Exchange) -> bool:
        """Whether an answer was there before it was asked for."""
        return exchange.answer is not None and (exchange.at is None or exchange.at < self.started)


@dataclass(kw_only=True)
class Ask(Snapshot):
    """Ask a teacher about one moment and show all that came of it.

    An answer that the store has already is shown, and not asked for again;
    --store FILE with a new file asks anew. `lvlm2p preview` shows the same
    messages without asking.

    Examples:
      lvlm2p ask MiniGrid-LavaGapS7-v0 --model gemini/gemini-2.5-flash-lite --budget-usd 0.01
      lvlm2p ask MiniGrid-Fetch-6x6-N2-v0 --model embedded/minigrid-planner --seed 3 --steps 5 --verbose
    """

    model: Model
    budget_usd: BudgetUsd = None
    verbose: Annotated[bool, optional()] = False
    """Print the messages that were sent, too."""
    store: StoreFile = STORE
    json: Json = False

    def run(self) -> None:
        """Ask and print.

        Raises:
            UsageError: if the environment, the model, the prompt set or the store cannot be used.
            TeacherError: if there is no advice; what is known of the conversation has been printed.
        """
        teacher = Teacher(self.model, prompts=self.prompts, store=self.store, budget_usd=self.budget_usd)
        asked = ask(teacher, self.view(teacher))
        self.save_messages(asked.view, [(exchange.stage, _with_reply(exchange)) for exchange in asked.exchanges])
        if self.json:
            say_json(self._as_json(asked))
        else:
            self._print(asked)
        if asked.problem is not None:
            raise asked.problem

    def _as_json(self, asked: Asked) -> dict[str, Any]:
        advice, problem, counters = asked.advice, asked.problem, asked.teacher.counters
        kind = getattr(problem, "kind", type(problem).__name__.removesuffix("Error").lower())
        return {
            "env_id": asked.view.env_info.env_id,
            "seed": self.seed,
            "steps": self.steps,
            "model": advice.model if advice else self.model,
            "mission": asked.view.mission,
            "carrying": asked.view.carrying,
            "picture": picture_of(asked.view),
            "exchanges": [_exchange_as_json(exchange, asked) for exchange in asked.exchanges],
            "probs": asked.probabilities,
            "calls": counters.calls,
            "cost_usd": advice.cost_usd if advice else counters.cost_usd,
            "latency_s": advice and advice.latency_s,
            "error": problem and {"kind": kind, "message": str(problem)},
        }

    def _print(self, asked: Asked) -> None:
        view = asked.view
        say(f"{self.moment}: {self.model}", style="bold")
        rows = [("picture", self.picture_in_words(view))]
        rows += [("mission", view.mission)] if view.mission else []
        rows += [("carrying", view.carrying)] if view.env_info.family == "minigrid" else []
        say_facts(rows)
        for number, exchange in enumerate(asked.exchanges, start=1):
            took = _took(exchange, from_store=asked.from_store(exchange))
            say(f"\nstage {number}, {exchange.stage}: {took}", style="bold")
            _print_exchange(exchange, verbose=self.verbose)
        if asked.probabilities is not None:
            say("\nadvice", style="bold")
            bars = [(f"  {name}", f"{share:.3f}", bar(share)) for name, share in asked.probabilities.items()]
            say_table(bars, header=("", "", ""), numbers=(1,), whole=(0, 2))
        say(f"\n{_in_sum(asked)}")


def ask(teacher: Teacher, view: View) -> Asked:
    """Ask about one view and gather all that came of it.

    Raises:
        UsageError: if the model cannot be used.
    """
    started, advice, problem = time.time(), None, None
    try:
        with console(stderr=True).status("Asking"):  # animated on a terminal only
            advice = teacher.advise(view)
    except UsageError:
        raise
    except TeacherError as error:
        problem = error
    return Asked(teacher, view, started, advice, problem, conversation(teacher, view))


def _with_reply(exchange: Exchange) -> list[Message]:
    """The messages, and the reply as one more."""
    reply = [] if exchange.reply is None else [Message("reply", exchange.reply)]
    return [*exchange.messages, *reply]


def _exchange_as_json(exchange: Exchange, asked: Asked) -> dict[str, Any]:
    messages = [{"role": m.role, "text": m.text, "picture": m.picture is not None} for m in exchange.messages]
    answer = exchange.answer and json.loads(exchange.answer)
    return {**vars(exchange), "messages": messages, "answer": answer, "from_store": asked.from_store(exchange)}


def _took(exchange: Exchange, *, from_store: bool) -> str:
    """Where an answer is from, and what it took."""
    if exchange.outcome is None:
        return "not asked"
    took = [] if exchange.latency_s is None else [duration(exchange.latency_s)]
    if exchange.prompt_tokens is not None:
        took.append(f"{exchange.prompt_tokens:,} + {exchange.completion_tokens or 0:,} tokens")
    if exchange.reply is not None:
        took.append(money(exchange.cost_usd))
    told = ", ".join([*took, *([f"by {exchange.model}"] if exchange.model else [])])
    return f"from the store (then: {told})" if from_store else told


def _print_exchange(exchange: Exchange, *, verbose: bool) -> None:
    messages = exchange.messages
    if verbose:
        for message in messages:
            say(f"{message.role}{', with a picture' if message.picture else ''}:", style="bold")
            say(textwrap.indent(message.text, "  "))
    else:
        lengths = [
            f"{m.role} {len(m.text):,} characters{' and a picture' * bool(m.picture)}" for m in exchange.messages
        ]
        say(f"{'sent' if exchange.outcome else 'to be sent'}: {', '.join(lengths)} (--verbose shows them)")
    if exchange.reply is not None:
        say(f"reply, as it came:\n{textwrap.indent(exchange.reply, '  ')}")
    if exchange.problem:
        say(f"{'bad reply' if exchange.outcome == 'bad_reply' else 'no reply'}: {exchange.problem}", style="bold")
    if exchange.answer is not None and exchange.stage == "analysis":
        say("read as:")
        say_facts([(name, _in_words(value)) for name, value in json.loads(exchange.answer).items()], indent="  ")


def _in_words(value: Any) -> str:
    """A value of the analysis, in short: cells as ``what (row, column)``."""
    if isinstance(value, list):
        return ", ".join(map(_in_words, value)) or "none"
    if isinstance(value, dict) and value.keys() == {"what", "row", "column"}:
        return f"{value['what']} ({value['row']}, {value['column']})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def bar(share: float) -> str:
    """A bar as long as a share of one.

    >>> bar(0.1), bar(0.01)
    ('███', '▍')
    """
    whole, rest = divmod(math.ceil(share * _BAR * 8), 8)
    return "█" * whole + _EIGHTHS[rest].strip()


def _in_sum(asked: Asked) -> str:
    counters, advice = asked.teacher.counters, asked.advice
    if advice is not None and advice.cached:
        return f"Nobody was asked: it was all in the store, {asked.teacher.store_path}."
    calls = f"{counters.calls} call{'' if counters.calls == 1 else 's'}"
    cost = money(counters.cost_usd) if counters.cost_usd or not counters.unpriced_calls else "unpriced"
    return f"{calls}, {cost}; kept in {asked.teacher.store_path}."
