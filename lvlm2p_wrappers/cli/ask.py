"""``lvlm2p ask``: one question to a teacher, and all that came of it."""

from __future__ import annotations

import json
import math
import textwrap
import time
from dataclasses import dataclass

from lvlm2p_wrappers.cli.arguments import BudgetUsd, Model, Switch
from lvlm2p_wrappers.cli.printing import console, say, say_facts, say_json, say_table
from lvlm2p_wrappers.cli.snapshot import Snapshot
from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.records import Advice, Exchange, Message, View
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.units import duration, money

Exchanges = list[tuple[Exchange, bool]]
"""What was said in each stage, and whether the store had it before it was asked for."""

_BAR = 30  # characters of a bar that means certainty


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
    verbose: Switch = False  # print the messages that were sent, too

    def run(self) -> None:
        """See ``Command``."""
        teacher = self.teacher(self.model)
        view = self.view(teacher)
        started, problem, advice = time.time(), None, None
        try:
            with console(stderr=True).status("Asking"):  # animated on a terminal only
                advice = teacher.advise(view)
        except UsageError:
            raise
        except TeacherError as error:
            problem = error
        exchanges = [
            (exchange, exchange.answer is not None and (exchange.at is None or exchange.at < started))
            for exchange in conversation(teacher, view)
        ]
        self.save_messages(view, [(exchange.stage, _with_reply(exchange)) for exchange, _ in exchanges])
        if self.json:
            self._print_json(teacher, view, advice, problem, exchanges)
        else:
            self._print(teacher, view, advice, exchanges)
        if problem is not None:
            raise problem

    def _print_json(
        self,
        teacher: Teacher,
        view: View,
        advice: Advice | None,
        problem: TeacherError | None,
        exchanges: Exchanges,
    ) -> None:
        kind = getattr(problem, "kind", type(problem).__name__.removesuffix("Error").lower())
        say_json(
            {
                **self.told(view),
                "model": advice.model if advice else self.model,
                "exchanges": [
                    exchange.model_dump(mode="json")
                    | {"answer": exchange.answer and json.loads(exchange.answer), "from_store": from_store}
                    for exchange, from_store in exchanges
                ],
                "probs": advice and _by_name(teacher, view, advice),
                "calls": teacher.counters.calls,
                "cost_usd": advice.cost_usd if advice else teacher.counters.cost_usd,
                "latency_s": advice and advice.latency_s,
                "error": problem and {"kind": kind, "message": str(problem)},
            }
        )

    def _print(self, teacher: Teacher, view: View, advice: Advice | None, exchanges: Exchanges) -> None:
        say(f"{self.moment}: {self.model}", style="bold")
        rows = [("picture", self.picture_in_words(view))]
        rows += [("mission", view.mission)] if view.mission else []
        rows += [*view.facts.items()]
        rows += [("carrying", view.carrying)] if view.family == "minigrid" else []
        say_facts(rows)
        for number, (exchange, from_store) in enumerate(exchanges, start=1):
            say(f"\nstage {number}, {exchange.stage}: {_took(exchange, from_store=from_store)}", style="bold")
            _print_exchange(exchange, verbose=self.verbose)
        if advice is not None:
            say("\nadvice", style="bold")
            probs = _by_name(teacher, view, advice).items()
            bars = [(f"  {name}", f"{share:.3f}", "█" * math.ceil(share * _BAR)) for name, share in probs]
            say_table(bars, header=("", "", ""), numbers=(1,), whole=(0, 2))
        if teacher.function is not None:
            say("\nA Python function answered; no model was asked.")
            return
        if advice is not None and advice.cached:
            say(f"\nNobody was asked: it was all in the store, {teacher.store_path}.")
            return
        spent = teacher.counters
        cost = money(spent.cost_usd) if spent.cost_usd or not spent.unpriced_calls else "unpriced"
        say(f"\n{spent.calls} call{'' if spent.calls == 1 else 's'}, {cost}; kept in {teacher.store_path}.")


def _by_name(teacher: Teacher, view: View, advice: Advice) -> dict[str, float]:
    """The advice by the names that the prompt set gives the actions."""
    actions = teacher.prompts(view.env_info).actions(view.env_info)
    return {action.name: float(p) for action, p in zip(actions, advice.probs, strict=True)}


def _with_reply(exchange: Exchange) -> list[Message]:
    """The messages, and the reply as one more."""
    return [*exchange.messages, *([] if exchange.reply is None else [Message("reply", exchange.reply)])]


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
    for message in exchange.messages if verbose else ():
        say(f"{message.role}{', with a picture' if message.picture else ''}:", style="bold")
        say(textwrap.indent(message.text, "  "))
    if not verbose:
        lengths = [f"{m.role} {len(m.text):,} characters{', a picture' * bool(m.picture)}" for m in exchange.messages]
        say(f"{'sent' if exchange.outcome else 'to be sent'}: {'; '.join(lengths)} (--verbose shows them)")
    if exchange.reply is not None:
        say(f"reply, as it came:\n{textwrap.indent(exchange.reply, '  ')}")
    if exchange.problem:
        say(f"{'bad reply' if exchange.outcome == 'bad_reply' else 'no reply'}: {exchange.problem}", style="bold")
