"""The forms of a teacher's two replies, and their JSON schemas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Cell(_Reply):
    """An object and its cell; row and column as printed beside the picture."""

    what: str
    row: int
    column: int


class GridAnalysis(_Reply):
    """Stage 1 on a grid: the objects, their cells and the agent's pose."""

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


ANALYSES: dict[str, type[BaseModel]] = {"grid": GridAnalysis, "summary": SummaryAnalysis}
"""The forms of the first stage's reply that a prompt set can name."""


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
