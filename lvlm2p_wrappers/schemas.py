"""The forms of a teacher's two replies, and their JSON schemas."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Cell(_Reply):
    """An object and its cell; row and column as printed beside the picture."""

    what: str
    row: int
    column: int


class Step(_Reply):
    """The cell that the agent enters or acts on next."""

    row: int
    column: int


class GridAnalysis01(_Reply):
    """Stage 1 on a grid as version 0.1.0 asked for it."""

    agent_row: int
    agent_column: int
    heading: Literal["up", "right", "down", "left"]
    carrying: str
    targets: list[Cell]
    hazards: list[Cell]
    obstacles: list[Cell]
    summary: str


class SummaryAnalysis(_Reply):
    """Stage 1 on any other picture: a summary in words."""

    summary: str


_GRID: dict[str, Any] = {
    "agent_row": int,
    "agent_column": int,
    "heading": Literal["up", "right", "down", "left"],
    "ahead": str,
    "hazards": list[Cell],
    "targets": list[Cell],
    "on_the_way": list[Cell],
    "next_step": Step,
}
BY_TASK = ("hazards", "on_the_way")
"""The fields of a grid's analysis that only some tasks have."""


@functools.lru_cache(maxsize=64)
def analysis_form(name: str, by_task: frozenset[str] = frozenset()) -> type[BaseModel]:
    """The form of the first stage's reply: ``"grid"``, ``"grid-0.1"`` or ``"summary"``.

    Args:
        name: as a prompt set's options name it.
        by_task: those of :data:`BY_TASK` that the task has; of the form ``"grid"`` only.

    >>> list(analysis_form("grid").model_fields)
    ['agent_row', 'agent_column', 'heading', 'ahead', 'targets', 'next_step']
    """
    fixed: dict[str, type[BaseModel]] = {"grid-0.1": GridAnalysis01, "summary": SummaryAnalysis}
    if name in fixed:
        return fixed[name]
    fields: dict[str, Any] = {
        field: (kind, ...) for field, kind in _GRID.items() if field not in BY_TASK or field in by_task
    }
    form: type[BaseModel] = create_model("GridAnalysis", __base__=_Reply, **fields)
    return form


def analysis_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a first stage in the shape that every provider accepts: inlined, all required."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return inline(definitions[node["$ref"].rsplit("/", 1)[1]])
        # Titles and descriptions made from Python names tell the model nothing.
        return {
            key: inline(value)
            for key, value in node.items()
            if key not in {"title", "description"} or isinstance(value, dict)
        }

    inlined: dict[str, Any] = inline(schema)
    return inlined


def action_schema(actions: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of the second stage: one required number per named action, no free-form dict.

    >>> action_schema(["left", "right"])["properties"]["probabilities"]["required"]
    ['left', 'right']
    """
    probabilities = {
        "type": "object",
        "properties": {name: {"type": "number"} for name in actions},
        "required": list(actions),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, "probabilities": probabilities},
        "required": ["reasoning", "probabilities"],
        "additionalProperties": False,
    }


def outline(schema: Any) -> str:
    """A schema's form in short, for a model to read; the schema itself where it has more to it than the bundled ones.

    >>> outline(action_schema(["left", "right"]))
    '{"reasoning": text, "probabilities": {"left": number, "right": number}}'
    """
    try:
        return _outline(schema)
    except (KeyError, TypeError):
        return json.dumps(schema)


def _outline(schema: Any) -> str:
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if schema["type"] == "array":
        return f"[{_outline(schema['items'])}, ...]"
    if schema["type"] == "object":
        parts = (f"{json.dumps(name)}: {_outline(part)}" for name, part in schema["properties"].items())
        return f"{{{', '.join(parts)}}}"
    return {"string": "text", "integer": "integer", "number": "number"}[schema["type"]]
