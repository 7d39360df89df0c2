"""Steps to go from every pose, with everything that must be cleared, fetched or put away on the way.

What stands between the agent and its aim is dealt with one thing at a time, the nearest first: a thing in the way is
picked up and put down where it harms nobody, a locked door needs its key, a key that is nowhere to be seen may be in a
box. Each of these is an aim of its own, whose seeds already hold the steps that remain after it, so that the distances
stay comparable over the whole plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .goals import Aim, Seeds, final_aim
from .grid import COLORS, PORTABLE, Scene, Thing, World, is_a, is_free
from .mission import Task
from .shortest_path import CLEARING, FAR, Distances, cheapest_way, distances, entry_costs, facing, first_obstacle

_DOORWAY = Thing("door", "grey", "open")

_OBSTACLES = 10
"""Obstacles that a plan may clear before it gives up."""


class Plan(NamedTuple):
    """What to do next, and how far everything is from being done.

    Attributes:
        distances: steps to go by pose; `FAR` from where the plan does not lead to the end.
        seeds: the poses at which the next thing is done, with the steps that remain there.
        action: what is done there; empty where being there is enough.
    """

    distances: Distances
    seeds: Seeds
    action: str

    def is_next(self, scene: Scene, action: str) -> bool:
        """Whether it is now that the plan takes this action: what it came here for, or opening the door ahead."""
        steps = self.distances[scene.pose]
        if action == self.action and self.seeds.get(scene.pose) == steps:
            return True
        # Of all that can be entered, only a door that has to be opened first takes two steps.
        return action == "toggle" and steps == 2 + self.distances[scene.front * 4 + scene.heading]


def make_plan(task: Task, world: World, pose: int, targets: Sequence[int]) -> Plan:
    """Plan from a pose to the end of a task.

    Args:
        task: what is to be done.
        world: the grid and what is carried.
        pose: where the agent is.
        targets: the cells that fulfil the task.
    """
    planner = _Planner()
    if task.verb == "put":
        return planner.put(task, world, targets, pose)
    if task.verb in ("pick up", "fetch") and not targets and task.what.fits(world.carrying):
        # The episode goes on, so it was another one that was meant: put it down and begin again.
        return planner.solve(Aim(_drop_anywhere, "drop"), world, pose)
    return planner.solve(final_aim(task, world, targets), world, pose)


class _Planner:
    """One plan in the making; it gives up where obstacles never end, such as a key locked up behind its own door."""

    def __init__(self) -> None:
        self._budget = _OBSTACLES
        self._on_the_way_to: list[Thing | None] = []

    def solve(self, aim: Aim, world: World, pose: int) -> Plan:
        if aim.hands_free and world.carrying is not None:
            return self._put_away_first(aim, world, pose)
        seeds = aim.seeds(world)
        found = distances(world, entry_costs(world), seeds)
        if found[pose] < FAR or self._budget == 0:
            return Plan(found, seeds, aim.action)
        locks = {near: 1 for cell in aim.locks for near in facing(world, cell)}
        obstacle = first_obstacle(world, {**locks, **seeds}, pose)
        if obstacle is None:
            obstacle = next(iter(aim.locks), None)
        if obstacle is None:
            return Plan(found, seeds, aim.action)
        self._budget -= 1
        return self._clear_first(aim, world, pose, obstacle)

    def put(self, task: Task, world: World, cells: Sequence[int], pose: int) -> Plan:
        """Fetch the thing that is to be moved, unless it is carried, and put it where it belongs."""
        things = [cell for cell in cells if task.what.fits(world.cells[cell])]
        places = [cell for cell in cells if task.where.fits(world.cells[cell]) and cell not in things]
        aim = final_aim(task, world, places)
        if task.what.fits(world.carrying):
            return self.solve(aim, world, pose)
        return self._take_first(aim, world, pose, things, world.cells[things[0]]) if things else _no_plan(world)

    def _clear_first(self, aim: Aim, world: World, pose: int, obstacle: int) -> Plan:
        thing = world.cells[obstacle]
        if thing is None or thing.kind != "door":
            return self._take_first(aim, world, pose, [obstacle], thing)
        return self._fetch_key_first(aim, world, pose, thing.color)

    def _fetch_key_first(self, aim: Aim, world: World, pose: int, color: str) -> Plan:
        key, cells = Thing("key", color), _key_cells(world, color)
        if not cells and is_a(world.carrying, "box"):
            return self._put_away_first(aim, world, pose)
        if not cells or key in self._on_the_way_to:
            return _no_plan(world)
        return self._take_first(aim, world, pose, cells, key)

    def _take_first(self, aim: Aim, world: World, pose: int, cells: list[int], thing: Thing | None) -> Plan:
        """Take a thing from one of these cells, out of a box if there is one, and go on with it in the hands."""
        before = _cleared(world, cells, pose)
        # Of several, nobody knows yet which one it will be.
        after = before.put(cells[0], None) if len(cells) == 1 else before
        rest = self.solve(aim, after.carry(thing), pose)
        opens_box = world.cells[cells[0]] != thing
        action, cost = ("toggle", 2) if opens_box else ("pickup", 1)
        self._on_the_way_to.append(thing)
        plan = self.solve(_then(action, cells, cost, rest, world), world, pose)
        self._on_the_way_to.pop()
        return plan

    def _put_away_first(self, aim: Aim, world: World, pose: int) -> Plan:
        """Drop what is in the hands, somewhere on the way where it blocks nothing."""
        spots = _within_reach(world, parking_cells(world), pose)
        spots = _without_bottlenecks(world.carry(None), spots, aim.seeds(world), pose)
        if not spots:
            return _no_plan(world)
        # Where it will lie decides little about the way on, so one place stands for all of them; the same one wherever
        # the agent is, or the plan would change from step to step.
        after = world.put(spots[0], world.carrying).carry(None)
        lock = _next_lock(after, aim.seeds(after), pose, world.carrying)
        if lock is not None:
            # What it is for comes next: one would have to fetch it again at once.
            rest = self._put_away_first(aim, world.put(lock, _DOORWAY), pose)
            return self.solve(_then("toggle", [lock], 1, rest, world, hands_free=False), world, pose)
        rest = self.solve(aim, after, pose)
        seeds = _seeds(spots, 1, rest.distances, world)
        for near in seeds:
            # What lies on the straight way on has to be walked around.
            if rest.distances[near] == 1 + rest.distances[near + 4 * world.steps[near & 3]]:
                seeds[near] += 2
        return Plan(distances(world, entry_costs(world), seeds), seeds, "drop")


def _next_lock(world: World, seeds: Seeds, pose: int, key: Thing | None) -> int | None:
    """The door that a key opens, if the first thing to clear is that door, or lies on the way to another key first."""
    for _ in range(len(COLORS) if is_a(key, "key") else 0):
        obstacle = first_obstacle(world, seeds, pose)
        thing = None if obstacle is None else world.cells[obstacle]
        if thing is None or thing.kind != "door":
            return None
        if key == Thing("key", thing.color):
            return obstacle
        seeds = dict.fromkeys((near for cell in _key_cells(world, thing.color) for near in facing(world, cell)), 0)
    return None


def _key_cells(world: World, color: str) -> list[int]:
    """Where a key of this color is; all boxes, if it is nowhere to be seen."""
    return [cell for cell in world.find("key") if world.cells[cell] == Thing("key", color)] or world.find("box")


def _cleared(world: World, cells: list[int], pose: int) -> World:
    """The world when the agent has got to one of these cells: doors on the way open, things in the way gone."""
    for cell in cheapest_way(world, {near: 0 for target in cells for near in facing(world, target)}, pose):
        thing = world.cells[cell]
        if is_a(thing, "door", *PORTABLE):
            world = world.put(cell, _DOORWAY if is_a(thing, "door") else None)
    return world


def _no_plan(world: World) -> Plan:
    return Plan([FAR] * (len(world.cells) * 4), {}, "")


def _then(action: str, cells: list[int], cost: int, rest: Plan, world: World, *, hands_free: bool = True) -> Aim:
    """Deal with one of these cells from beside it and go on from there."""
    seeds = _seeds(cells, cost, rest.distances, world)
    return Aim(lambda _: seeds, action, hands_free)


def _seeds(cells: list[int], cost: int, rest: Distances, world: World) -> Seeds:
    return {pose: cost + rest[pose] for cell in cells for pose in facing(world, cell) if rest[pose] < FAR}


def _drop_anywhere(world: World) -> Seeds:
    return {pose: 1 for cell in parking_cells(world) for pose in facing(world, cell)}


def parking_cells(world: World) -> list[int]:
    """Empty cells where a thing may lie without cutting anything off, away from doors if possible; at worst, all."""
    empty = [cell for cell, thing in enumerate(world.cells) if thing is None]
    harmless = [cell for cell in empty if not _is_link(world, cell)]
    return [cell for cell in harmless if not _is_at_door(world, cell)] or harmless or empty


def _is_at_door(world: World, cell: int) -> bool:
    return any(is_a(world.cells[near], "door") for near in world.around(cell))


def _is_link(world: World, cell: int) -> bool:
    """Whether the free neighbours of a cell may be connected through it only."""
    right, down, left, up = world.steps
    ring = (right, right + down, down, down + left, left, left + up, up, up + right)
    # A closed door is a way, too.
    free = [is_free(thing) or is_a(thing, "door") for thing in (world.cells[cell + step] for step in ring)]
    runs = sum(free[number] and not free[number - 1] for number in range(8))
    return runs > 1 and sum(free[::2]) > 1


def _without_bottlenecks(world: World, cells: list[int], seeds: Seeds, pose: int) -> list[int]:
    """The cells without those where a thing would be one more obstacle on the cheapest way; all if none is left."""
    costs = entry_costs(world, clearing=True)
    least = distances(world, costs, seeds)[pose]
    kept = set(cells)
    for cell in kept & set(cheapest_way(world, seeds, pose)):
        # Where there are several free neighbours, it was checked that they are connected around the cell.
        if sum(is_free(world.cells[near]) for near in world.around(cell)) <= 1:
            blocked = [*costs[:cell], -1, *costs[cell + 1 :]]
            if distances(world, blocked, seeds)[pose] >= least + CLEARING:
                kept.remove(cell)
    return [cell for cell in cells if cell in kept] or cells


def _within_reach(world: World, cells: list[int], pose: int) -> list[int]:
    """Those of the cells that the agent can come to stand beside, in the order given."""
    costs, steps = entry_costs(world), world.steps
    reached, open_ends = {pose >> 2}, [pose >> 2]
    while open_ends:
        here = open_ends.pop()
        for cell in (here + step for step in steps):
            if costs[cell] >= 0 and cell not in reached:
                reached.add(cell)
                open_ends.append(cell)
    return [cell for cell in cells if cell in reached]
