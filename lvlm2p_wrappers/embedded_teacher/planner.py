"""Planner: steps to the end of an instruction from every pose, through subgoals for what is in the way.

Obstacles become subgoals one at a time, the nearest first: a thing in the way is picked up and dropped where it blocks
nothing, a locked door needs its key, a key that is not in the picture may be in a box. The sources of a subgoal hold
the steps that remain after it, so that distances are comparable over the whole plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .goals import Sources, Subgoal, final_subgoal
from .grid import COLORS, PORTABLE, Scene, Thing, World, is_a, is_free
from .mission import Instruction
from .shortest_path import CLEARING, FAR, Distances, cheapest_path, distances, entry_costs, facing, first_obstacle

_DOORWAY = Thing("door", "grey", "open")

_OBSTACLES = 10
"""Obstacles that a plan may clear before it gives up."""


class Plan(NamedTuple):
    """The next subgoal, and the steps to the end from every pose.

    Attributes:
        distances: steps to the end by pose; ``FAR`` from where the plan does not lead there.
        sources: the poses at which the next subgoal is done, with the steps that remain there.
        action: the action that does it; empty where being there is enough.
    """

    distances: Distances
    sources: Sources
    action: str

    def is_next(self, scene: Scene, action: str) -> bool:
        """Whether the plan takes this action now, other than a move: to do the subgoal, or to open the door ahead."""
        steps = self.distances[scene.pose]
        if action == self.action and self.sources.get(scene.pose) == steps:
            return True
        # Of all that can be entered, only a door that has to be opened first takes two steps.
        return action == "toggle" and steps == 2 + self.distances[scene.front * 4 + scene.heading]


def make_plan(instruction: Instruction, world: World, pose: int, targets: Sequence[int]) -> Plan:
    """Plan from a pose to the end of an instruction, which the target cells fulfil."""
    planner = _Planner()
    if instruction.verb == "put":
        return planner.put(instruction, world, targets, pose)
    if instruction.verb in ("pick up", "fetch") and not targets and instruction.thing.fits(world.carrying):
        # The episode goes on, so another thing was meant: drop this one and begin again.
        return planner.solve(Subgoal(_drop_anywhere, "drop"), world, pose)
    return planner.solve(final_subgoal(instruction, world, targets), world, pose)


class _Planner:
    """Makes one plan; gives up where obstacles never end, such as a key locked up behind its own door."""

    def __init__(self) -> None:
        self._budget = _OBSTACLES
        self._on_the_way_to: list[Thing | None] = []

    def solve(self, subgoal: Subgoal, world: World, pose: int) -> Plan:
        if subgoal.empty_handed and world.carrying is not None:
            return self._put_away_first(subgoal, world, pose)
        sources = subgoal.sources(world)
        found = distances(world, entry_costs(world), sources)
        if found[pose] < FAR or self._budget == 0:
            return Plan(found, sources, subgoal.action)
        locks = {near: 1 for cell in subgoal.locks for near in facing(world, cell)}
        obstacle = first_obstacle(world, {**locks, **sources}, pose)
        if obstacle is None:
            obstacle = next(iter(subgoal.locks), None)
        if obstacle is None:
            return Plan(found, sources, subgoal.action)
        self._budget -= 1
        return self._clear_first(subgoal, world, pose, obstacle)

    def put(self, instruction: Instruction, world: World, cells: Sequence[int], pose: int) -> Plan:
        """Fetch the thing to move, unless it is carried, and drop it at its place."""
        things = [cell for cell in cells if instruction.thing.fits(world.cells[cell])]
        places = [cell for cell in cells if instruction.place.fits(world.cells[cell]) and cell not in things]
        subgoal = final_subgoal(instruction, world, places)
        if instruction.thing.fits(world.carrying):
            return self.solve(subgoal, world, pose)
        return self._take_first(subgoal, world, pose, things, world.cells[things[0]]) if things else _no_plan(world)

    def _clear_first(self, subgoal: Subgoal, world: World, pose: int, obstacle: int) -> Plan:
        thing = world.cells[obstacle]
        if thing is None or thing.kind != "door":
            return self._take_first(subgoal, world, pose, [obstacle], thing)
        return self._fetch_key_first(subgoal, world, pose, thing.color)

    def _fetch_key_first(self, subgoal: Subgoal, world: World, pose: int, color: str) -> Plan:
        key, cells = Thing("key", color), _key_cells(world, color)
        if not cells and is_a(world.carrying, "box"):
            return self._put_away_first(subgoal, world, pose)
        if not cells or key in self._on_the_way_to:
            return _no_plan(world)
        return self._take_first(subgoal, world, pose, cells, key)

    def _take_first(self, subgoal: Subgoal, world: World, pose: int, cells: list[int], thing: Thing | None) -> Plan:
        """Take a thing from one of these cells, out of a box if there is one, and go on carrying it."""
        before = _cleared(world, cells, pose)
        # Of several, it is not known yet which one it will be.
        after = before.put(cells[0], None) if len(cells) == 1 else before
        rest = self.solve(subgoal, after.carry(thing), pose)
        opens_box = world.cells[cells[0]] != thing
        action, cost = ("toggle", 2) if opens_box else ("pickup", 1)
        self._on_the_way_to.append(thing)
        plan = self.solve(_then(action, cells, cost, rest, world), world, pose)
        self._on_the_way_to.pop()
        return plan

    def _put_away_first(self, subgoal: Subgoal, world: World, pose: int) -> Plan:
        """Drop the carried thing on the way where it blocks nothing."""
        spots = _within_reach(world, parking_cells(world), pose)
        spots = _without_bottlenecks(world.carry(None), spots, subgoal.sources(world), pose)
        if not spots:
            return _no_plan(world)
        # Where it will lie hardly changes the rest of the plan, so one cell stands for all of them: the same one from
        # wherever the agent is, or the plan would change from step to step.
        after = world.put(spots[0], world.carrying).carry(None)
        lock = _next_lock(after, subgoal.sources(after), pose, world.carrying)
        if lock is not None:
            # Its door comes next: otherwise the key would have to be fetched again at once.
            rest = self._put_away_first(subgoal, world.put(lock, _DOORWAY), pose)
            return self.solve(_then("toggle", [lock], 1, rest, world, empty_handed=False), world, pose)
        rest = self.solve(subgoal, after, pose)
        sources = _sources(spots, 1, rest.distances, world)
        for near in sources:
            # A thing dropped straight ahead has to be walked around.
            if rest.distances[near] == 1 + rest.distances[near + 4 * world.steps[near & 3]]:
                sources[near] += 2
        return Plan(distances(world, entry_costs(world), sources), sources, "drop")


def _next_lock(world: World, sources: Sources, pose: int, key: Thing | None) -> int | None:
    """The door that a key opens, if that door is the first obstacle, or is on the way to another key needed first."""
    for _ in range(len(COLORS) if is_a(key, "key") else 0):
        obstacle = first_obstacle(world, sources, pose)
        thing = None if obstacle is None else world.cells[obstacle]
        if thing is None or thing.kind != "door":
            return None
        if key == Thing("key", thing.color):
            return obstacle
        sources = dict.fromkeys((near for cell in _key_cells(world, thing.color) for near in facing(world, cell)), 0)
    return None


def _key_cells(world: World, color: str) -> list[int]:
    """The cells of the keys of a color; all boxes, if there is none in the picture."""
    return [cell for cell in world.find("key") if world.cells[cell] == Thing("key", color)] or world.find("box")


def _cleared(world: World, cells: list[int], pose: int) -> World:
    """The world after the agent has reached one of these cells: doors on the path open, things on it gone."""
    for cell in cheapest_path(world, {near: 0 for target in cells for near in facing(world, target)}, pose):
        thing = world.cells[cell]
        if is_a(thing, "door", *PORTABLE):
            world = world.put(cell, _DOORWAY if is_a(thing, "door") else None)
    return world


def _no_plan(world: World) -> Plan:
    return Plan([FAR] * (len(world.cells) * 4), {}, "")


def _then(action: str, cells: list[int], cost: int, rest: Plan, world: World, *, empty_handed: bool = True) -> Subgoal:
    """The subgoal of acting on one of these cells from beside it, and following a plan from there."""
    sources = _sources(cells, cost, rest.distances, world)
    return Subgoal(lambda _: sources, action, empty_handed)


def _sources(cells: list[int], cost: int, rest: Distances, world: World) -> Sources:
    return {pose: cost + rest[pose] for cell in cells for pose in facing(world, cell) if rest[pose] < FAR}


def _drop_anywhere(world: World) -> Sources:
    return {pose: 1 for cell in parking_cells(world) for pose in facing(world, cell)}


def parking_cells(world: World) -> list[int]:
    """Empty cells where a thing blocks no passage, away from doors if possible; all empty cells if there is none."""
    empty = [cell for cell, thing in enumerate(world.cells) if thing is None]
    harmless = [cell for cell in empty if not _is_passage(world, cell)]
    return [cell for cell in harmless if not _is_at_door(world, cell)] or harmless or empty


def _is_at_door(world: World, cell: int) -> bool:
    return any(is_a(world.cells[near], "door") for near in world.around(cell))


def _is_passage(world: World, cell: int) -> bool:
    """Whether the free neighbours of a cell may be connected only through it."""
    right, down, left, up = world.steps
    ring = (right, right + down, down, down + left, left, left + up, up, up + right)
    # A closed door counts as free, too.
    free = [is_free(thing) or is_a(thing, "door") for thing in (world.cells[cell + step] for step in ring)]
    runs = sum(free[number] and not free[number - 1] for number in range(8))
    return runs > 1 and sum(free[::2]) > 1


def _without_bottlenecks(world: World, cells: list[int], sources: Sources, pose: int) -> list[int]:
    """The cells where a thing would be no further obstacle on the cheapest path; all cells if there is none."""
    costs = entry_costs(world, clearing=True)
    least = distances(world, costs, sources)[pose]
    kept = set(cells)
    for cell in kept & set(cheapest_path(world, sources, pose)):
        # `_is_passage` has checked that several free neighbours are connected around the cell.
        if sum(is_free(world.cells[near]) for near in world.around(cell)) <= 1:
            blocked = [*costs[:cell], -1, *costs[cell + 1 :]]
            if distances(world, blocked, sources)[pose] >= least + CLEARING:
                kept.remove(cell)
    return [cell for cell in cells if cell in kept] or cells


def _within_reach(world: World, cells: list[int], pose: int) -> list[int]:
    """The cells that the agent can reach without clearing anything, in the order given."""
    costs, steps = entry_costs(world), world.steps
    reached, open_ends = {pose >> 2}, [pose >> 2]
    while open_ends:
        here = open_ends.pop()
        for cell in (here + step for step in steps):
            if costs[cell] >= 0 and cell not in reached:
                reached.add(cell)
                open_ends.append(cell)
    return [cell for cell in cells if cell in reached]
