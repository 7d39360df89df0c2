"""``lvlm2p preview``: what a teacher would be sent about a moment, asking nobody."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lvlm2p_wrappers.cli.arguments import Commands, add_command, add_json, add_store
from lvlm2p_wrappers.cli.estimate.discovery import Range
from lvlm2p_wrappers.cli.estimate.tokens import CallTokens, tokens_of
from lvlm2p_wrappers.cli.printing import say, say_json
from lvlm2p_wrappers.cli.snapshot import add_scene, look, moment_of, picture_in_words, picture_of, save, say_facts
from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.prompts import Question, Schema
from lvlm2p_wrappers.records import Message, Stage
from lvlm2p_wrappers.store import locate
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.views import View

DEFAULT_MODEL = "gemini/gemini-2.5-flash-lite"
"""Whose tokens are counted where no model is named."""

_MORE = """\
The action stage quotes the analysis stage's answer. It is taken from the store if the model has answered there before;
else a placeholder stands for it, <in angle brackets>.

examples:
  lvlm2p preview MiniGrid-LavaGapS7-v0
  lvlm2p preview MiniGrid-Fetch-6x6-N2-v0 --seed 3 --prompts my_prompts --save preview"""


@dataclass(frozen=True)
class Shown:
    """One stage's conversation as it would be sent.

    Attributes:
        question: what would be sent.
        tokens: of the whole call.
        by_message: prompt tokens of each message.
        answer: the answer that the store has; None if it has none.
        stands_in: whether the conversation holds a placeholder in place of the analysis.
    """

    question: Question
    tokens: CallTokens
    by_message: tuple[Range, ...]
    answer: str | None
    stands_in: bool


def add_parser(commands: Commands) -> None:
    """Add ``preview`` to the command line."""
    parser = add_command(commands, "preview", summary="show what a teacher would be sent, asking nobody", more=_MORE)
    add_scene(parser)
    parser.add_argument(
        "--model",
        metavar="M",
        help=f"whose tokens to count, and whose analysis to take from the store (default: {DEFAULT_MODEL})",
    )
    add_store(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Render and print.

    Raises:
        UsageError: if the environment, the model, the prompt set or the store cannot be used.
    """
    model = args.model or DEFAULT_MODEL
    if args.model:
        catalogue.recognise(model)
    file = locate(args.store)
    known = file is not None and file.exists()  # looking must not make one
    teacher = Teacher(model, prompts=args.prompts, store=file if known else None)
    view = look(args, teacher)
    stages = preview(teacher, view)
    files = (
        save(args.save, view, [(shown.question.stage, shown.question.messages) for shown in stages])
        if args.save
        else []
    )
    if args.json:
        prompts = teacher.prompts(view.env_info)
        say_json(
            {
                "env_id": view.env_info.env_id,
                "seed": args.seed,
                "steps": args.steps,
                "model": model,
                "prompts": [str(folder) for folder in prompts.folders],
                "fingerprint": prompts.fingerprint,
                "picture": picture_of(view),
                "stages": [_as_json(shown) for shown in stages],
                "files": [str(path) for path in files],
            }
        )
    else:
        _print(args, view, teacher, stages)


def preview(teacher: Teacher, view: View) -> list[Shown]:
    """The conversations about a view as they would be sent, one for each stage.

    Raises:
        PromptError: if the prompt set is missing or broken.
    """
    prompts = teacher.prompts(view.env_info)
    told = {exchange.stage: exchange.answer for exchange in conversation(teacher, view)}
    if prompts.options.stages == 1:
        return [_shown(teacher, prompts.action(view, ""), told, stands_in=False)]
    first = prompts.analysis(view)
    analysis = told["analysis"]
    second = prompts.action(view, json.dumps(placeholder(first.schema.json)) if analysis is None else analysis)
    return [
        _shown(teacher, first, told, stands_in=False),
        _shown(teacher, second, told, stands_in=analysis is None),
    ]


def placeholder(schema: Mapping[str, Any]) -> Any:
    """A value that says what a schema wants in its place.

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


def _shown(teacher: Teacher, question: Question, told: Mapping[Stage, str | None], *, stands_in: bool) -> Shown:
    # What a message takes is counted without the schema of the reply, which belongs to none of them.
    alone = [question._replace(messages=(message,), schema=Schema({})) for message in question.messages]
    return Shown(
        question=question,
        tokens=tokens_of(teacher.model, [question]),
        by_message=tuple(tokens_of(teacher.model, [one]).prompt for one in alone),
        answer=told.get(question.stage),
        stands_in=stands_in,
    )


def _as_json(shown: Shown) -> dict[str, Any]:
    question = shown.question
    return {
        "stage": question.stage,
        "answered_in_store": shown.answer is not None,
        "placeholder": shown.stands_in,
        "prompt_tokens": _whole(shown.tokens.prompt)._asdict(),
        "tokens_from": shown.tokens.rule,
        "sampling": dict(question.sampling),
        "schema": question.schema.json,
        "messages": [
            {"role": m.role, "text": m.text, "picture": m.picture is not None, "tokens": _whole(tokens)._asdict()}
            for m, tokens in zip(question.messages, shown.by_message, strict=True)
        ],
    }


def _print(args: argparse.Namespace, view: View, teacher: Teacher, stages: list[Shown]) -> None:
    prompts = teacher.prompts(view.env_info)
    by_default = "" if args.model else " (the default; --model names another)"
    say(f"{moment_of(args)}: what would be sent; nobody is asked", style="bold")
    rows = [
        ("picture", picture_in_words(view, args.save)),
        ("prompts", f"{', then '.join(map(str, prompts.folders))} (fingerprint {prompts.fingerprint})"),
        ("tokens of", f"{teacher.model}{by_default}; {stages[0].tokens.rule.rpartition(';')[0]}"),
        ("sampling", ", ".join(f"{name} {value}" for name, value in stages[0].question.sampling.items())),
    ]
    say_facts(rows)
    for number, shown in enumerate(stages, start=1):
        say("")
        say(f"stage {number}, {shown.question.stage}: {_tokens(shown.tokens.prompt)} with the schema", style="bold")
        say(_note(shown, teacher.model))
        for message, tokens in zip(shown.question.messages, shown.by_message, strict=True):
            _print_message(message, tokens)


def _note(shown: Shown, model: str) -> str:
    if shown.stands_in:
        return f"The store has no analysis of this by {model}: below, a placeholder stands for it, <in angle brackets>."
    return f"The store has {'no' if shown.answer is None else 'an'} answer of {model} to this."


def _print_message(message: Message, tokens: Range) -> None:
    say("")
    picture = " and a picture" if message.picture else ""
    say(f"{message.role}{picture}, {_tokens(tokens)}", style="bold")
    say(textwrap.indent(message.text, "  "))
    if message.picture:
        height, width = message.picture.pixels.shape[:2]
        say(f"  [picture, {width} x {height} pixels]")


def _tokens(tokens: Range) -> str:
    low, high = _whole(tokens)
    return f"{low:,} tokens" if low == high else f"{low:,} to {high:,} tokens"


def _whole(tokens: Range) -> Range:
    return Range(round(tokens.low), round(tokens.high))
