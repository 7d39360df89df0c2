"""What an analysis claims: compared with the ground truth, and as marks on the picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from lvlm2p_wrappers.errors import BadReplyError
from lvlm2p_wrappers.evaluation.metrics import analysis_scores
from lvlm2p_wrappers.records import Heading, Label, Place
from lvlm2p_wrappers.replies import find_json
from lvlm2p_wrappers.schemas import Cell, Step
from lvlm2p_wrappers.views.rulers import TILE

_DEGREES = {"right": 0, "down": 90, "left": 180, "up": 270}


class Finding(NamedTuple):
    """One field of an analysis, compared with the ground truth.

    Attributes:
        name: the field.
        claims: its values, each with whether it is right; None where that is not known.
        truth: the true value, where the field is wrong; else ``""``.
        right: whether the field is right; None where that is not known.
    """

    name: str
    claims: tuple[tuple[str, bool | None], ...]
    truth: str = ""
    right: bool | None = None


class Mark(NamedTuple):
    """Where an analysis places the agent, a target or a hazard: the left upper corner of the cell, in pixels.

    ``turn`` is the agent's heading in degrees, clockwise from right.
    """

    kind: str
    x: int
    y: int
    turn: int = 0


def findings(label: Label) -> tuple[Finding, ...]:
    """The fields of a label's analysis; empty if there is none."""
    if label.analysis is None:
        return ()
    grid = _grid(label)
    if grid is None:
        return tuple(_field(name, _text(value)) for name, value in label.analysis.items())
    truth, scores = label.truth, analysis_scores(label)
    targets, also, hazards = (truth.targets, truth.also, truth.hazards) if truth else ((), (), ())
    true_cell = true_heading = ""
    if truth is not None and truth.row is not None and truth.column is not None:
        true_cell, true_heading = _cell(truth.row, truth.column), truth.heading or ""
    true_steps = " or ".join(_cell(*cell) for cell in truth.next_steps) if truth else ""
    step = grid.next_step
    found = {
        "heading": _field("heading", grid.heading, true_heading, scores.get("heading")),
        "ahead": _field("ahead", grid.ahead, (truth and truth.ahead) or "", scores.get("ahead")),
        "targets": _places("targets", grid.targets, targets, also, scores.get("targets")),
        "hazards": _places("hazards", grid.hazards, hazards, (), scores.get("hazards")),
        "obstacles": _places("obstacles", grid.obstacles),
        "on_the_way": _places("on the way", grid.on_the_way),
        "next_step": _field(
            "next step", _cell(step.row, step.column) if step else "", true_steps, scores.get("next_step")
        ),
        "carrying": _field("carrying", grid.carrying),
        "summary": _field("summary", grid.summary),
    }
    agent = _field("agent", _cell(grid.agent_row, grid.agent_column), true_cell, scores.get("cell"))
    return (agent, *(finding for name, finding in found.items() if name in label.analysis))


def _field(name: str, claim: str, truth: str = "", right: bool | None = None) -> Finding:
    return Finding(name, ((claim, right),), truth if right is False else "", right)


def _places(
    name: str,
    claimed: Sequence[Cell],
    truth: Sequence[Place] = (),
    also: Sequence[Place] = (),
    right: bool | None = None,
) -> Finding:
    true_cells = {(place.row, place.column) for place in (*truth, *also)}
    claims = tuple(
        (_place(place), None if right is None else (place.row, place.column) in true_cells) for place in claimed
    )
    missing = (", ".join(map(_place, truth)) or "none") if right is False else ""
    return Finding(name, claims or (("none", right),), missing, right)


def marks(label: Label, width: int, height: int) -> tuple[Mark, ...]:
    """The marks on a picture of this size; empty if it is not of a numbered grid."""
    grid = _grid(label)
    columns, rows = width // TILE - 2, height // TILE - 2  # the numbers take a tile on each side
    is_numbered = label.truth is not None or label.env_id.startswith(("MiniGrid-", "BabyAI-"))
    if grid is None or not is_numbered or width % TILE or height % TILE:
        return ()
    placed = [("hazard", place.row, place.column, 0) for place in grid.hazards]
    placed += [("target", place.row, place.column, 0) for place in grid.targets]
    placed += [("agent", grid.agent_row, grid.agent_column, _DEGREES[grid.heading])]
    return tuple(
        Mark(kind, (column + 1) * TILE, (row + 1) * TILE, turn)
        for kind, row, column, turn in placed
        if 0 <= row < rows and 0 <= column < columns
    )


class _Grid(BaseModel):
    """An analysis of a grid in any of the bundled forms; of another form nothing more is known."""

    model_config = ConfigDict(extra="forbid", strict=True)

    agent_row: int
    agent_column: int
    heading: Heading
    targets: list[Cell]
    ahead: str = ""
    hazards: list[Cell] = []
    obstacles: list[Cell] = []
    on_the_way: list[Cell] = []
    next_step: Step | None = None
    carrying: str = ""
    summary: str = ""


def _grid(label: Label) -> _Grid | None:
    """The analysis in a bundled form; None where there is none, or a prompt set has a form of its own."""
    try:
        return _Grid.model_validate(label.analysis)
    except ValidationError:
        return None


def _place(place: Cell | Place) -> str:
    return f"{place.what} {_cell(place.row, place.column)}".strip()


def _cell(row: int, column: int) -> str:
    return f"({row},\u00a0{column})"  # not to be broken into two lines


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def analysis_verdict(label: Label) -> str:
    """``"right"`` or ``"wrong"``, ``"unjudged"`` without ground truth, ``"none"`` without an analysis."""
    if label.analysis is None:
        return "none"
    judged = [finding.right for finding in findings(label) if finding.right is not None]
    return "unjudged" if not judged else "right" if all(judged) else "wrong"


def reply_verdict(label: Label) -> str:
    """``"ok"``, ``"bad reply"`` or ``"error"``, the worst of a label's exchanges; ``"not asked"`` if there is none."""
    outcomes = {exchange.outcome for exchange in label.exchanges}
    if "bad_reply" in outcomes:
        return "bad reply"
    if "error" in outcomes or label.failure is not None:
        return "error"
    return "ok" if "ok" in outcomes or label.probs else "not asked"


def heading(label: Label) -> str:
    """The agent's true heading; the analysis's where the truth is not known, ``"unknown"`` without either."""
    if label.truth is not None and label.truth.heading is not None:
        return label.truth.heading
    grid = _grid(label)
    return "unknown" if grid is None else grid.heading


def reasoning(label: Label) -> str:
    """The reasons that the reply gives for the advice; ``""`` where it gives none."""
    replies = [one.reply for one in label.exchanges if one.stage == "action" and one.outcome == "ok" and one.reply]
    try:
        given = find_json(replies[-1]).get("reasoning") if replies else ""
    except BadReplyError:
        return ""
    return given if isinstance(given, str) else ""
