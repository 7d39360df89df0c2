"""First stage: from a state to the fields of an analysis, and from an analysis back to the state that it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .dynamic_obstacles import has_moving_balls
from .goals import target_cells
from .grid import HEADINGS, PORTABLE, WALL, Scene, Thing, World, is_free
from .mission import Instruction, read_description
from .way import next_cells, on_the_way, plan_from

CREDIT = "A scripted planner answers here, not a language model."

PLANNED = ("next_step", "on_the_way")
"""The fields that take a plan."""

_COMPASS = ("east", "south", "west", "north")
_HEADING_WORDS = {name: number for names in (HEADINGS, _COMPASS) for number, name in enumerate(names)}


def report(scene: Scene, instruction: Instruction, *, with_plan: bool = False) -> dict[str, Any]:
    """The fields of a grid analysis; the instruction decides what the targets are.

    Args:
        scene: the state.
        instruction: what is to be done.
        with_plan: whether the fields that take a plan are wanted.
    """
    world = scene.world
    cells = target_cells(instruction, world)
    row, column = world.row_column(scene.agent)
    heading = HEADINGS[scene.heading]
    carrying = f"a {world.carrying.name}" if world.carrying is not None else "nothing"
    targets = _places(world, cells)
    named = [f"{place['what']} at row {place['row']}, column {place['column']}" for place in targets]
    wanted = f"What fulfils the mission: {'; '.join(named)}." if named else "Nothing seen fulfils the mission."
    return {
        "agent_row": row,
        "agent_column": column,
        "heading": heading,
        "carrying": carrying,
        "targets": targets,
        "hazards": _places(world, world.find("lava", *(["ball"] if has_moving_balls(world) else []))),
        "obstacles": _places(world, _obstacles(world)),
        "summary": f"{CREDIT} The agent is at row {row}, column {column}, faces {heading} and carries {carrying}. "
        + wanted,
        "ahead": ahead.name if (ahead := world.cells[scene.front]) is not None else "floor",
        **(_way(scene, instruction, cells) if with_plan else {}),
    }


def _way(scene: Scene, instruction: Instruction, targets: list[int]) -> dict[str, Any]:
    planned, plan = plan_from(scene, instruction, targets)
    row, column = scene.world.row_column((next_cells(planned, plan) or [scene.agent])[0])
    things = _places(scene.world, on_the_way(planned, plan, targets))
    return {"on_the_way": things, "next_step": {"row": row, "column": column}}


def _places(world: World, cells: list[int]) -> list[dict[str, Any]]:
    places = []
    for cell in cells:
        thing = world.cells[cell]
        row, column = world.row_column(cell)
        places.append({"what": thing.name if thing is not None else "free cell", "row": row, "column": column})
    return places


def _obstacles(world: World) -> list[int]:
    """Everything that blocks a step, in reading order; of the walls only those inside the outermost ring."""
    blocking = (cell for cell, thing in enumerate(world.cells) if not is_free(thing) and thing != Thing("lava"))
    return [cell for cell in blocking if world.cells[cell] != WALL or world.is_inside(cell)]


def as_reported(analysis: Mapping[str, Any], scene: Scene, instruction: Instruction) -> tuple[Scene, list[int]]:
    """The state as an analysis reports it, and the target cells.

    The scene in the picture fills in what the analysis leaves out or puts outside of the grid.
    """
    world = scene.world
    agent = _cell(world, analysis.get("agent_row"), analysis.get("agent_column"))
    heading = _HEADING_WORDS.get(str(analysis.get("heading")).lower(), scene.heading)
    reported = replace(scene, agent=scene.agent if agent is None else agent, heading=heading)
    places = analysis.get("targets")
    targets = []
    for place in places if isinstance(places, list) else ():
        cell = _cell(world, place.get("row"), place.get("column")) if isinstance(place, Mapping) else None
        if cell is not None:
            targets.append(cell)
            world = _with_target(world, cell, str(place.get("what", "")), instruction)
    return replace(reported, world=world), targets or target_cells(instruction, world)


def _cell(world: World, row: Any, column: Any) -> int | None:
    try:
        return world.index(int(row), int(column))
    except (TypeError, ValueError):
        return None


def _with_target(world: World, cell: int, what: str, instruction: Instruction) -> World:
    """The world with the reported target in its cell, unless it is there already."""
    named = read_description(what)
    if instruction.verb == "reach" and world.cells[cell] in (None, WALL):
        return world.put(cell, Thing("goal", "green"))
    if named.kind in PORTABLE and not named.fits(world.cells[cell]):
        return world.put(cell, Thing(named.kind, named.color))
    return world
