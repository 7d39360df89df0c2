"""What fulfils a task in a given world: the poses from which it is done, and the steps that remain from there."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from .grid import PORTABLE, Thing, World, is_a
from .mission import Task, What
from .shortest_path import facing

Seeds = dict[int, int]


@dataclass(frozen=True)
class Aim:
    """Something to get done.

    Attributes:
        seeds: poses from which it is done and the steps that remain there, for a given world.
        action: what is done there; empty where being there is enough.
        hands_free: whether it takes empty hands.
        locks: locked doors that themselves must be opened for it.
    """

    seeds: Callable[[World], Seeds]
    action: str = ""
    hands_free: bool = False
    locks: tuple[int, ...] = ()


def target_cells(task: Task, world: World) -> list[int]:
    """The cells that fulfil the task, as far as a picture shows them, in reading order.

    While a thing is to be put somewhere, those are the cells of that thing, then of where it goes.
    """
    if task.verb == "reach":
        return world.find("goal")
    if task.verb == "match":
        return _matching_cell(world)
    if task.verb == "explore":
        return []
    if task.verb == "put" and task.what.fits(world.carrying):
        return _fitting(task.where, world)
    if task.verb == "put":
        return [*_fitting(task.what, world), *_fitting(task.where, world)]
    cells = _fitting(task.what, world)
    if task.verb in ("pick up", "fetch"):
        return [cell for cell in cells if is_a(world.cells[cell], *PORTABLE)]
    if task.verb == "open":
        # A door that is open already was not the one meant, if there is another.
        return [cell for cell in cells if _state(world, cell) != "open"] or cells
    return cells


def is_beside_task(task: Task, world: World) -> bool:
    """Whether it is MiniGrid's GoToDoor, where `done` next to the door counts, whichever way the agent faces.

    Only there a door is set in the outermost wall or, the room being smaller than the picture, leads out of all rooms.
    """
    if task.verb != "go to" or world.find(*PORTABLE, "goal"):
        return False
    doors = world.find("door")
    return len(doors) == 4 and not all(world.is_inside(cell) for cell in doors)


def final_aim(task: Task, world: World, targets: Collection[int]) -> Aim:
    """What to do with the target cells so that the task is done.

    Args:
        task: the task.
        world: the grid, for what does not change on the way.
        targets: the target cells; for ``"put"``, with the thing in the hands, the cells that it must lie next to.
    """
    if task.verb in ("reach", "match"):
        return Aim(lambda _: {cell * 4 + heading: 0 for cell in targets for heading in range(4)})
    if task.verb == "put":
        near = task.reach == "near"
        return Aim(lambda now: _drop_seeds(now, targets, near=near), "drop")
    if is_beside_task(task, world):
        beside = [cell for target in targets for cell in world.around(target)]
        return Aim(lambda _: {cell * 4 + heading: 1 for cell in beside for heading in range(4)}, "done")
    if task.verb == "open":
        locks = tuple(cell for cell in targets if _state(world, cell) == "locked")
        return Aim(lambda now: _toggle_seeds(now, targets), "toggle", locks=locks)
    # What is done in the end takes one step: to pick up, or to say that one has arrived.
    picks = task.verb in ("pick up", "fetch")
    action = "pickup" if picks else "done"
    return Aim(lambda now: {pose: 1 for cell in targets for pose in facing(now, cell)}, action, hands_free=picks)


def _fitting(what: What, world: World) -> list[int]:
    return [cell for cell, thing in enumerate(world.cells) if what.fits(thing)]


def _state(world: World, cell: int) -> str:
    thing = world.cells[cell]
    return thing.state if thing is not None else ""


def _toggle_seeds(world: World, doors: Collection[int]) -> Seeds:
    seeds = {}
    for cell in doors:
        thing = world.cells[cell]
        if thing is not None and (thing.state != "locked" or world.carrying == Thing("key", thing.color)):
            # A door that stands open has to be closed before it can be opened.
            seeds.update(dict.fromkeys(facing(world, cell), 2 if thing.state == "open" else 1))
    return seeds


def _drop_seeds(world: World, targets: Collection[int], *, near: bool) -> Seeds:
    seeds = {}
    for target in targets:
        for cell in world.near(target) if near else world.around(target):
            if world.cells[cell] is None:
                seeds.update(dict.fromkeys(facing(world, cell), 1))
    return seeds


def _matching_cell(world: World) -> list[int]:
    """Memory: where to stand at the fork, next to the thing that is like the one in the first room."""
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
