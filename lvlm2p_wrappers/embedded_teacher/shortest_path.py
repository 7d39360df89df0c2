"""Shortest ways over cells and headings, and what stands in them."""

from __future__ import annotations

from collections.abc import Mapping

from .grid import PORTABLE, World, is_a, is_free

FAR = 1_000_000
"""The distance of what cannot be reached."""

CLEARING = 12
"""What clearing an obstacle is thought to cost, in steps, when a way through several of them is sought."""

Distances = list[int]
"""Steps to go, by pose (cell * 4 + heading)."""


def entry_costs(world: World, *, clearing: bool = False) -> list[int]:
    """What entering each cell costs beyond the step itself; -1 where nobody can, or would live.

    Args:
        world: the grid.
        clearing: also enter, at a price, cells that can be made free: those of portable things and of locked doors.
    """
    key = world.carrying.color if world.carrying is not None and is_a(world.carrying, "key") else None
    costs = []
    for thing in world.cells:
        cost = -1
        if is_free(thing):
            cost = 0
        elif thing is not None and thing.kind == "door":
            can_open = thing.state == "closed" or thing.color == key
            cost = 1 if can_open else CLEARING if clearing else -1
        elif clearing and is_a(thing, *PORTABLE):
            cost = CLEARING
        costs.append(cost)
    return costs


def distances(world: World, costs: list[int], seeds: Mapping[int, int]) -> Distances:
    """Steps from every pose to the nearest seed.

    Dijkstra's algorithm, backwards from the seeds, with one bucket for each distance. A turn costs one step, going
    forward one step and the price of entering the cell.

    Args:
        world: the grid.
        costs: the prices of entering each cell, from `entry_costs`.
        seeds: poses, each with the steps that remain from there.
    """
    steps = world.steps
    found = [FAR] * (len(costs) * 4)
    buckets: dict[int, list[int]] = {}
    for pose, cost in seeds.items():
        if cost < FAR and costs[pose >> 2] >= 0:
            buckets.setdefault(cost, []).append(pose)
    while buckets:
        distance = min(buckets)
        for pose in buckets.pop(distance):
            if found[pose] <= distance:
                continue
            found[pose] = distance
            cell, heading = pose >> 2, pose & 3
            closer = buckets.setdefault(distance + 1, [])
            base = pose - heading
            closer.append(base + ((heading + 1) & 3))
            closer.append(base + ((heading - 1) & 3))
            behind = cell - steps[heading]
            if costs[behind] >= 0:
                buckets.setdefault(distance + 1 + costs[cell], []).append(behind * 4 + heading)
    return found


def cheapest_way(world: World, seeds: Mapping[int, int], pose: int) -> list[int]:
    """The cells to go through from a pose to the cheapest seed, if all that can be cleared were cleared on the way.

    Empty where no clearing helps, and where there is nowhere to go.
    """
    costs = entry_costs(world, clearing=True)
    found = distances(world, costs, seeds)
    way: list[int] = []
    while found[pose] < FAR and found[pose] > seeds.get(pose, -1):
        cell, heading = pose >> 2, pose & 3
        ahead = cell + world.steps[heading]
        if costs[ahead] >= 0 and found[pose] == found[ahead * 4 + heading] + 1 + costs[ahead]:
            way.append(ahead)
            pose = ahead * 4 + heading
        else:
            left, right = cell * 4 + ((heading - 1) & 3), cell * 4 + ((heading + 1) & 3)
            pose = left if found[left] < found[right] else right
    return way


def first_obstacle(world: World, seeds: Mapping[int, int], pose: int) -> int | None:
    """The first cell to be cleared on the cheapest way from a pose to a seed; None if no clearing helps."""
    costs = entry_costs(world)
    return next((cell for cell in cheapest_way(world, seeds, pose) if costs[cell] < 0), None)


def facing(world: World, cell: int) -> tuple[int, ...]:
    """The four poses that look at a cell from beside it."""
    return tuple((cell - step) * 4 + heading for heading, step in enumerate(world.steps))
