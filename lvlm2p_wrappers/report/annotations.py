"""What a teacher says it saw: against the truth, and as marks over the picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lvlm2p_wrappers.errors import BadReplyError
from lvlm2p_wrappers.report.records import Label, Place, Truth
from lvlm2p_wrappers.schemas import Cell, GridAnalysis, find_json
from lvlm2p_wrappers.views.minigrid import TILE

_TURNS = {"right": 0, "down": 90, "left": 180, "up": 270}


@dataclass(frozen=True)
class Finding:
    """One thing that an analysis says, beside the truth.

    Attributes:
        name: what it is about.
        said: what the analysis says, in pieces, each with whether it is true; None where that is not judged.
        truth: what is true, where the analysis differs; ``""`` where it does not, or the truth is not known.
        right: whether it agrees with the truth; None where that is not judged.
    """

    name: str
    said: tuple[tuple[str, bool | None], ...]
    truth: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Mark:
    """Where in the picture the teacher believes something to be: the cell's left upper corner, in pixels.

    Attributes:
        kind: ``"agent"``, ``"target"`` or ``"hazard"``.
        turn: degrees, clockwise from right, that the agent is said to face.
    """

    kind: str
    x: int
    y: int
    turn: int = 0


def findings(label: Label) -> tuple[Finding, ...]:
    """What a label's analysis says, thing by thing; empty if there is none."""
    if label.analysis is None:
        return ()
    grid = _grid(label.analysis)
    if grid is None:
        return tuple(Finding(name, ((_text(value), None),)) for name, value in label.analysis.items())
    truth = label.truth
    if truth is None:
        return _unjudged(grid)
    return (
        _single("agent", _cell(grid.agent_row, grid.agent_column), _cell(truth.row, truth.column)),
        _single("heading", grid.heading, truth.heading),
        _places("targets", grid.targets, truth.targets, truth.also),
        _places("hazards", grid.hazards, truth.hazards),
        *_unjudged(grid)[-3:],  # what the truth says nothing about
    )


def _unjudged(grid: GridAnalysis) -> tuple[Finding, ...]:
    said: dict[str, list[str]] = {
        "agent": [_cell(grid.agent_row, grid.agent_column)],
        "heading": [grid.heading],
        "targets": [_place(place) for place in grid.targets],
        "hazards": [_place(place) for place in grid.hazards],
        "obstacles": [_place(place) for place in grid.obstacles],
        "carrying": [grid.carrying],
        "summary": [grid.summary],
    }
    return tuple(Finding(name, tuple((text, None) for text in texts or ["none"])) for name, texts in said.items())


def marks(label: Label, width: int, height: int) -> tuple[Mark, ...]:
    """What a label's analysis says, as marks over its picture of so many pixels; empty if that is no numbered grid."""
    grid = _grid(label.analysis)
    columns, rows = width // TILE - 2, height // TILE - 2  # the numbers take a tile on each side
    if grid is None or not _is_numbered_grid(label) or width % TILE or height % TILE:
        return ()

    def mark(kind: str, row: int, column: int, turn: int = 0) -> list[Mark]:
        inside = 0 <= row < rows and 0 <= column < columns
        return [Mark(kind, (column + 1) * TILE, (row + 1) * TILE, turn)] if inside else []

    found = [mark("hazard", place.row, place.column) for place in grid.hazards]
    found += [mark("target", place.row, place.column) for place in grid.targets]
    found.append(mark("agent", grid.agent_row, grid.agent_column, _TURNS[grid.heading]))
    return tuple(one for some in found for one in some)


def _is_numbered_grid(label: Label) -> bool:
    return label.truth is not None or label.env_id.startswith(("MiniGrid-", "BabyAI-"))


def _grid(analysis: dict[str, Any] | None) -> GridAnalysis | None:
    """The analysis in its usual form; None where a prompt set has a form of its own."""
    try:
        return GridAnalysis.model_validate(analysis)
    except ValidationError:
        return None


def _single(name: str, said: str, truth: str) -> Finding:
    right = said == truth
    return Finding(name, ((said, right),), "" if right else truth, right)


def _places(name: str, said: Sequence[Cell], truth: Sequence[Place], also: Sequence[Place] = ()) -> Finding:
    """Places are right where their cells are, all of them and no other: what a thing is called is a matter of taste."""
    named, needed = _cells(said), _cells(truth)
    allowed = needed | _cells(also)
    right = needed <= named <= allowed
    pieces = tuple((_place(place), (place.row, place.column) in allowed) for place in said)
    told = ", ".join(map(_place, truth)) or "none"
    return Finding(name, pieces or (("none", right),), "" if right else told, right)


def _cells(places: Sequence[Cell | Place]) -> set[tuple[int, int]]:
    return {(place.row, place.column) for place in places}


def _place(place: Cell | Place) -> str:
    return f"{place.what} {_cell(place.row, place.column)}".strip()


def _cell(row: int, column: int) -> str:
    return f"({row},\u00a0{column})"  # not to be broken into two lines


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def analysis_verdict(label: Label) -> str:
    """``"right"`` or ``"wrong"``, ``"unjudged"`` without the truth, ``"none"`` without an analysis."""
    if label.analysis is None:
        return "none"
    judged = [finding.right for finding in findings(label) if finding.right is not None]
    return "unjudged" if not judged else "right" if all(judged) else "wrong"


def heading(truth: Truth | None, analysis: dict[str, Any] | None) -> str:
    """Which way the agent faces; as the teacher has it where the truth is not known, ``""`` where nobody says."""
    if truth is not None:
        return truth.heading
    grid = _grid(analysis)
    return "" if grid is None else grid.heading


def reasoning(label: Label) -> str:
    """Why the teacher says it chose so; ``""`` where it says nothing."""
    for exchange in reversed(label.exchanges):
        if exchange.stage == "action" and exchange.outcome == "ok" and exchange.reply is not None:
            try:
                given = find_json(exchange.reply).get("reasoning")
            except BadReplyError:
                return ""
            return given if isinstance(given, str) else ""
    return ""
