"""``lvlm2p preview``: the messages about one moment as they would be sent, asking nobody."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from tyro.conf import arg

from lvlm2p_wrappers.cli.arguments import STORE, Json, StoreFile
from lvlm2p_wrappers.cli.estimate import CallTokens, tokens_of
from lvlm2p_wrappers.cli.printing import say, say_facts, say_json
from lvlm2p_wrappers.cli.snapshot import Snapshot, picture_of
from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.prompts import Question
from lvlm2p_wrappers.store import locate
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.views import View

DEFAULT_MODEL = "gemini/gemini-2.5-flash-lite"


@dataclass(frozen=True)
class _Stage:
    """One stage's messages; ``placeholder`` says whether they quote one in place of the analysis."""

    question: Question
    tokens: CallTokens
    answer: str | None
    placeholder: bool


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

    model: Annotated[str, arg(metavar="M")] = DEFAULT_MODEL
    """Whose answers to look for in the store."""
    store: StoreFile = STORE
    json: Json = False

    def run(self) -> None:
        """Render and print.

        Raises:
            UsageError: if the environment, the model, the prompt set or the store cannot be used.
        """
        if self.model != DEFAULT_MODEL:
            catalogue.recognise(self.model)
        file = locate(self.store)
        known = file is not None and file.exists()  # looking must not make one
        teacher = Teacher(self.model, prompts=self.prompts, store=file if known else None)
        view = self.view(teacher)
        stages = _stages(teacher, view)
        files = self.save_messages(view, [(stage.question.stage, stage.question.messages) for stage in stages])
        prompts = teacher.prompts(view.env_info)
        if not self.json:
            say(f"{self.moment}: what would be sent; nobody is asked", style="bold")
            rows = [
                ("picture", self.picture_in_words(view)),
                ("prompts", f"{', then '.join(map(str, prompts.folders))} (fingerprint {prompts.fingerprint})"),
                ("tokens", stages[0].tokens.source),
                ("sampling", ", ".join(f"{name} {value}" for name, value in stages[0].question.sampling.items())),
            ]
            say_facts(rows)
            for number, stage in enumerate(stages, start=1):
                _print(number, stage, self.model)
            return
        say_json(
            {
                "env_id": view.env_info.env_id,
                "seed": self.seed,
                "steps": self.steps,
                "model": self.model,
                "prompts": [str(folder) for folder in prompts.folders],
                "fingerprint": prompts.fingerprint,
                "picture": picture_of(view),
                "stages": [_as_json(stage) for stage in stages],
                "files": [str(path) for path in files],
            }
        )


def placeholder(schema: Mapping[str, Any]) -> Any:
    """A value that tells what a schema wants in its place.

    >>> placeholder({"type": "object", "properties": {"row": {"type": "integer"}, "heading": {"enum": ["up", "down"]}}})
    {'row': '<integer>', 'heading': '<up|down>'}
    """
    if "enum" in schema:
        return f"<{'|'.join(map(str, schema['enum']))}>"
    if "properties" in schema:
        return {name: placeholder(part) for name, part in schema["properties"].items()}
    if "items" in schema:
        return [placeholder(schema["items"])]
    kind = schema.get("type", "anything")
    return f"<{kind if isinstance(kind, str) else '|'.join(kind)}>"


def _stages(teacher: Teacher, view: View) -> list[_Stage]:
    prompts = teacher.prompts(view.env_info)
    answers = {exchange.stage: exchange.answer for exchange in conversation(teacher, view)}

    def stage(question: Question, *, quotes: bool = False) -> _Stage:
        return _Stage(question, tokens_of([question]), answers.get(question.stage), quotes)

    if prompts.options.stages == 1:
        return [stage(prompts.action(view, ""))]
    first = prompts.analysis(view)
    analysis = answers["analysis"]
    quoted = json.dumps(placeholder(first.schema.json)) if analysis is None else analysis
    return [stage(first), stage(prompts.action(view, quoted), quotes=analysis is None)]


def _as_json(stage: _Stage) -> dict[str, Any]:
    question = stage.question
    return {
        "stage": question.stage,
        "answered_in_store": stage.answer is not None,
        "placeholder": stage.placeholder,
        "prompt_tokens": asdict(stage.tokens.prompt),
        "tokens_from": stage.tokens.source,
        "sampling": dict(question.sampling),
        "schema": question.schema.json,
        "messages": [{"role": m.role, "text": m.text, "picture": m.picture is not None} for m in question.messages],
    }


def _print(number: int, stage: _Stage, model: str) -> None:
    tokens = stage.tokens.prompt
    say(f"\nstage {number}, {stage.question.stage}: {tokens.low:,.0f} to {tokens.high:,.0f} tokens", style="bold")
    if stage.placeholder:
        say(f"The store has no analysis of this by {model}: a placeholder stands for it, <in angle brackets>.")
    else:
        say(f"The store has {'no' if stage.answer is None else 'an'} answer of {model} to this.")
    for message in stage.question.messages:
        say(f"\n{message.role}{' and a picture' if message.picture else ''}", style="bold")
        say(textwrap.indent(message.text, "  "))
        if message.picture:
            height, width = message.picture.pixels.shape[:2]
            say(f"  [picture, {width} x {height} pixels]")
