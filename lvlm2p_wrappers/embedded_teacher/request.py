"""Request parser: the options in the model string, the messages, and the schema of the reply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .grid import COLORS, HEADINGS, PORTABLE, Thing

NAME = "minigrid-planner"

# The best actions get about 0.9 of the probability with it. Measured over 500 episodes, actions sampled: success 1.000
# on LavaGapS7 and Fetch-8x8-N3, 0.992 on GoToDoor-8x8, 0.996 on Dynamic-Obstacles-6x6. At 1.0 it would still be above
# 0.98, with longer episodes; below 0.5 nothing is gained, and labels that are too sharp keep a student from exploring.
DEFAULT_TAU = 0.5

COLORED = ("door", "key", "ball", "box")
KINDS = (*COLORED, "goal", "lava", "wall")
"""What a teacher can be blind to."""

_ALIASES = {"salt": "noise_seed"}
_MARKUP = r"(?:(?!\n)[\s>*_#-])*"  # before a label; within its line, or blank lines would take quadratic time
_LONGEST_LINE = 1000  # of a mission or a carried object; the parsers are not made for more

Messages = Sequence[Mapping[str, Any]]


class RefusedError(Exception):
    """The model cannot answer such a request; ``status`` is the HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def _confusion(text: str) -> tuple[int, int]:
    """Read ``"up:down"``: the heading that is mistaken, and what it is taken for."""
    real, colon, taken = text.partition(":")
    if not colon or real == taken or not {real, taken} <= set(HEADINGS):
        raise ValueError(f"write two of {', '.join(HEADINGS)}, such as up:down")
    return HEADINGS.index(real), HEADINGS.index(taken)


def _unseen(text: str) -> Thing:
    """Read ``"lava"`` or ``"red door"``: the kind of thing that is never seen, in one color or in all."""
    color, _, kind = text.rpartition(" ")
    if kind not in KINDS or (color and (kind not in COLORED or color not in COLORS)):
        raise ValueError(f"write one of {', '.join(KINDS)}; of the first {len(COLORED)} also one color, as in red+door")
    return Thing(kind, color)


class Options(BaseModel):
    """The options in the model string.

    Attributes:
        tau: temperature of the softmax over extra steps, in steps.
        error: label noise: share of states in which a wrong action gets most of the probability.
        misread: perception noise: share of states in which the analysis is wrong.
        noise_seed: any text; another seed picks other states.
        confuse: systematic error: a heading, and the one that it is always taken for, as MiniGrid's directions.
        blind: systematic error: the kind of thing that is never seen; without a color, of any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tau: float = Field(DEFAULT_TAU, gt=0, allow_inf_nan=False)
    error: float = Field(0.0, ge=0, le=1)
    misread: float = Field(0.0, ge=0, le=1)
    noise_seed: str = Field("0", min_length=1)
    confuse: Annotated[tuple[int, int] | None, BeforeValidator(_confusion)] = None
    blind: Annotated[Thing | None, BeforeValidator(_unseen)] = None


def read_options(model: str) -> Options:
    """Read the options from a model string such as ``"minigrid-planner?error=0.1&noise_seed=3"``.

    Raises:
        RefusedError: 404 for another model's name, 400 for an option that does not exist or a value that cannot be.
    """
    name, _, query = model.partition("?")
    if name != NAME:
        raise RefusedError(f"no embedded model {name!r}; there is one: {NAME!r}", status=404)
    given = [(_ALIASES.get(option, option), text) for option, text in parse_qsl(query, keep_blank_values=True)]
    values = dict(given)
    for option in values:
        given.remove((option, values[option]))
    if given:
        raise RefusedError(f"{model!r}: option {given[0][0]!r} is given twice", status=400)
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0])
        problem = (
            "there is no such option"
            if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, ")
        )
        valid = ", ".join(Options.model_fields)
        message = f"{model!r}: {option}={values[option]!r}: {problem}; the options are {valid}"
        raise RefusedError(message, status=400) from None


@dataclass(frozen=True)
class Request:
    """The contents of the messages and the schema.

    Attributes:
        picture: the last picture sent, as a ``data:`` URL.
        mission: the mission in lower case; empty if the text has none.
        carrying: the carried thing; None also where the text does not say.
        analysis: the first stage's answer, where the text has one.
        schema: JSON schema of the reply.
        actions: names of the actions that the reply gives probabilities; empty in the first stage.
    """

    picture: str
    mission: str = ""
    carrying: Thing | None = None
    analysis: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict)
    actions: tuple[str, ...] = ()


def read_request(messages: Messages, response_format: Any) -> Request:
    """Read mission, carried thing, analysis, picture and schema.

    Of each the last one in the conversation counts, so that examples before it are ignored, and a repair turn need not
    repeat it.

    Raises:
        RefusedError: 400 where no message holds a picture.
    """
    texts: list[str] = []
    pictures: list[str] = []
    for message in messages:
        if message.get("role") == "user":
            for kind, value in _parts(message.get("content")):
                (texts if kind == "text" else pictures).append(value)
    if not pictures:
        raise RefusedError(
            "the embedded planner needs the picture in every stage; set picture_in_action = true in the prompt set",
            status=400,
        )
    text = "\n".join(texts)
    schema = _schema(response_format)
    probabilities = schema.get("properties", {}).get("probabilities", {})
    return Request(
        picture=pictures[-1],
        mission=_label(text, "mission").lower(),
        carrying=read_thing(_label(text, "carrying")),
        analysis=_analysis(text),
        schema=schema,
        actions=tuple(probabilities.get("properties", {})),
    )


def _parts(content: Any) -> Iterator[tuple[str, str]]:
    """The texts and picture URLs in a message's content."""
    if isinstance(content, str):
        yield "text", content
        return
    for part in content or ():
        if part.get("type") == "text":
            yield "text", str(part.get("text", ""))
        elif part.get("type") == "image_url":
            image = part.get("image_url")
            yield "picture", str(image.get("url", "") if isinstance(image, Mapping) else image)


def _schema(response_format: Any) -> Mapping[str, Any]:
    if not isinstance(response_format, Mapping):
        return {}
    schema = response_format.get("json_schema", {})
    schema = schema.get("schema", {}) if isinstance(schema, Mapping) else {}
    return schema if isinstance(schema, Mapping) else {}


def _label(text: str, label: str) -> str:
    """The text after the last ``label:`` that begins a line, without quotes or markup."""
    found = re.findall(rf"(?im)^{_MARKUP}{label}[*_]*\s*:[ \t]*(.*)$", text)
    return str(found[-1]).strip(" \t\r\"'`*_")[:_LONGEST_LINE] if found else ""


def _analysis(text: str) -> Mapping[str, Any]:
    """The JSON object after the last ``Analysis:``, on that line or below it; empty if there is none."""
    labels = list(re.finditer(rf"(?im)^{_MARKUP}analysis[*_]*\s*:[^{{\n]*(?:\n[^{{\n]*)?(?=\{{)", text))
    if not labels:
        return {}
    try:
        value, _ = json.JSONDecoder().raw_decode(text, labels[-1].end())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_thing(text: str) -> Thing | None:
    """Read a portable thing from a phrase such as ``"a yellow key"``; None where it names none."""
    words = re.findall(r"[a-z]+", text.lower())
    kind = next((word for word in words if word in PORTABLE), None)
    color = next((("grey" if word == "gray" else word) for word in words if word in (*COLORS, "gray")), None)
    return Thing(kind, color or "grey") if kind else None
