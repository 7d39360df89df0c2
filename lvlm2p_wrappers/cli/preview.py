"""``lvlm2p preview``: the messages about one moment as they would be sent, asking nobody."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import arg

from lvlm2p_wrappers.cli.estimate import tokens_of
from lvlm2p_wrappers.cli.printing import say, say_facts, say_json
from lvlm2p_wrappers.cli.snapshot import Snapshot
from lvlm2p_wrappers.records import Question, View
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.history import conversation


@dataclass(kw_only=True)
class Preview(Snapshot):
    """Show what a teacher would be sent, asking nobody.

    The action stage quotes the analysis stage's answer. It is taken from the
    store if the model has answered there before; else a placeholder stands for
    it, <in angle brackets>.

    Examples:
      lvlm2p preview MiniGrid-LavaGapS7-v0
      lvlm2p preview MiniGrid-Fetch-6x6-N2-v0 --seed 3 --save before
    """

    model: Annotated[str, arg(metavar="M")] = "gemini/gemini-2.5-flash-lite"  # whose answers to look for in the store

    def run(self) -> None:
        """See ``Command``."""
        teacher = self.model_teacher(self.model)
        view = self.view(teacher)
        prompts = teacher.prompts(view.env_info)
        answers = {exchange.stage: exchange.answer for exchange in conversation(teacher, view)}
        questions = _questions(teacher, view, answers.get("analysis"))
        files = self.save_messages(view, [(question.stage, question.messages) for question in questions])
        if self.json:
            say_json(
                {
                    **self.told(view),
                    "model": self.model,
                    "prompts": [str(folder) for folder in prompts.folders],
                    "fingerprint": prompts.fingerprint,
                    "stages": [_as_json(question, answers) for question in questions],
                    "files": [str(path) for path in files],
                }
            )
            return
        say(f"{self.moment}: what would be sent; nobody is asked", style="bold")
        rows = [
            ("picture", self.picture_in_words(view)),
            ("prompts", f"{', then '.join(map(str, prompts.folders))} (fingerprint {prompts.fingerprint})"),
            ("tokens", tokens_of(questions).source),
            ("sampling", ", ".join(f"{name} {value}" for name, value in questions[0].sampling.items())),
        ]
        say_facts(rows)
        for number, question in enumerate(questions, start=1):
            low, high = tokens_of([question]).prompt
            say(f"\nstage {number}, {question.stage}: {low:,.0f} to {high:,.0f} tokens", style="bold")
            known = "no" if answers.get(question.stage) is None else "an"
            say(f"The store has {known} answer of {self.model} to this.")
            for message in question.messages:
                say(f"\n{message.role}{' and a picture' if message.picture else ''}", style="bold")
                say(textwrap.indent(message.text, "  "))


def _questions(teacher: Teacher, view: View, analysis: str | None) -> list[Question]:
    prompts = teacher.prompts(view.env_info)
    if prompts.options.stages == 1:
        return [prompts.action(view, "")]
    first = prompts.analysis(view)
    keys = ", ".join(first.schema.json.get("properties", {}))
    return [first, prompts.action(view, analysis or f"<the analysis, which nobody has made yet: {keys}>")]


def _as_json(question: Question, answers: dict[Any, str | None]) -> dict[str, Any]:
    tokens = tokens_of([question])
    return {
        "stage": question.stage,
        "answered_in_store": answers.get(question.stage) is not None,
        "placeholder": question.stage == "action" and "analysis" in answers and answers["analysis"] is None,
        "prompt_tokens": dict(zip(("low", "high"), tokens.prompt.tolist(), strict=True)),
        "tokens_from": tokens.source,
        "sampling": dict(question.sampling),
        "schema": question.schema.json,
        "messages": [{"role": m.role, "text": m.text, "picture": m.picture is not None} for m in question.messages],
    }
