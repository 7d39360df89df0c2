"""Subgoals: the poses from which an instruction is fulfilled, and the steps that remain from there."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from .grid import PORTABLE, Thing, World, is_a
from .mission import Description, Instruction
from .shortest_path import facing

Sources = dict[int, int]
"""Where Dijkstra's search begins, backwards: poses, each with the steps that remain from there."""


@dataclass(frozen=True)
class Subgoal:
    """Something to get done on the way to the end of an instruction, or that end itself.

    Attributes:
        sources: for a world, the poses from which it is done and the steps that remain there.
        action: the action that does it there; empty where being there is enough.
        empty_handed: whether the agent must carry nothing.
        locks: locked doors that themselves must be opened for it.
    """

    sources: Callable[[World], Sources]
    action: str = ""
    empty_handed: bool = False
    locks: tuple[int, ...] = ()


def target_cells(instruction: Instruction, world: World) -> list[int]:
    """The cells that fulfil the instruction, as far as a picture shows them, in reading order.

    While a thing is to be put somewhere, those are the cells of that thing, then of where it goes.
    """
    if instruction.verb == "reach":
        return world.find("goal")
    if instruction.verb == "match":
        return _matching_cell(world)
    if instruction.verb == "explore":
        return []
    if instruction.verb == "put" and instruction.thing.fits(world.carrying):
        return _fitting(instruction.place, world)
    if instruction.verb == "put":
        return [*_fitting(instruction.thing, world), *_fitting(instruction.place, world)]
    cells = _fitting(instruction.thing, world)
    if instruction.verb in ("pick up", "fetch"):
        return [cell for cell in cells if is_a(world.cells[cell], *PORTABLE)]
    if instruction.verb == "open":
        # A door that is open already was not the one meant, if there is another.
        return [cell for cell in cells if _state(world, cell) != "open"] or cells
    return cells


def is_go_to_door(instruction: Instruction, world: World) -> bool:
    """Whether it is MiniGrid's GoToDoor, where ``done`` next to the door succeeds, whichever way the agent faces.

    Only there a door is part of the outermost wall or, in a room smaller than the picture, leads out of all rooms.
    """
    if instruction.verb != "go to" or world.find(*PORTABLE, "goal"):
        return False
    doors = world.find("door")
    return len(doors) == 4 and not all(world.is_inside(cell) for cell in doors)


def final_subgoal(instruction: Instruction, world: World, targets: Collection[int]) -> Subgoal:
    """The subgoal whose completion fulfils an instruction.

    The targets are the target cells; for ``"put"``, with the thing carried, the cells that it must lie next to.
    """
    if instruction.verb in ("reach", "match"):
        return Subgoal(lambda _: {cell * 4 + heading: 0 for cell in targets for heading in range(4)})
    if instruction.verb == "put":
        near = instruction.reach == "near"
        return Subgoal(lambda now: _drop_sources(now, targets, near=near), "drop")
    if is_go_to_door(instruction, world):
        beside = [cell for target in targets for cell in world.around(target)]
        return Subgoal(lambda _: {cell * 4 + heading: 1 for cell in beside for heading in range(4)}, "done")
    if instruction.verb == "open":
        locks = tuple(cell for cell in targets if _state(world, cell) == "locked")
        return Subgoal(lambda now: _toggle_sources(now, targets), "toggle", locks=locks)
    # Both pickup and done take one step.
    picks = instruction.verb in ("pick up", "fetch")
    action = "pickup" if picks else "done"
    return Subgoal(lambda now: {pose: 1 for cell in targets for pose in facing(now, cell)}, action, empty_handed=picks)


def _fitting(description: Description, world: World) -> list[int]:
    return [cell for cell, thing in enumerate(world.cells) if description.fits(thing)]


def _state(world: World, cell: int) -> str:
    thing = world.cells[cell]
    return thing.state if thing is not None else ""


def _toggle_sources(world: World, doors: Collection[int]) -> Sources:
    sources = {}
    for cell in doors:
        thing = world.cells[cell]
        if thing is not None and (thing.state != "locked" or world.carrying == Thing("key", thing.color)):
            # A door that stands open has to be closed before it can be opened.
            sources.update(dict.fromkeys(facing(world, cell), 2 if thing.state == "open" else 1))
    return sources


def _drop_sources(world: World, targets: Collection[int], *, near: bool) -> Sources:
    sources = {}
    for target in targets:
        for cell in world.near(target) if near else world.around(target):
            if world.cells[cell] is None:
                sources.update(dict.fromkeys(facing(world, cell), 1))
    return sources


def _matching_cell(world: World) -> list[int]:
    """Memory: the cell at the fork next to the thing that equals the one in the first room."""
    things = sorted(world.find("key", "ball"), key=lambda cell: world.row_column(cell)[1])
    if len(things) != 3:
        return []
    first, *fork = things
    alike = [cell for cell in fork if world.cells[cell] == world.cells[first]]
    return [fork_side(world, cell) for cell in alike[:1]]


def fork_side(world: World, thing: int) -> int:
    """The cell between a thing at the end of the fork and the middle of the hallway."""
    row, _ = world.row_column(thing)
    return thing + (world.stride if row < world.height // 2 else -world.stride)
