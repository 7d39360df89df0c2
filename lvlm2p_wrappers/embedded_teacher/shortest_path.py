"""Shortest paths over poses (Dijkstra's algorithm), and the obstacles on them."""

from __future__ import annotations

from collections.abc import Mapping

from .grid import PORTABLE, World, is_a, is_free

FAR = 1_000_000
"""The distance of an unreachable pose."""

CLEARING = 12
"""Estimated steps to clear an obstacle, in the search for a path through several of them."""

Distances = list[int]
"""Steps to the nearest source, by pose."""


def entry_costs(world: World, *, clearing: bool = False) -> list[int]:
    """The cost of entering each cell beyond the step itself; -1 where the agent cannot enter, or would not survive.

    With ``clearing``, cells of portable things and locked doors can be entered for :data:`CLEARING`.
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


def distances(world: World, costs: list[int], sources: Mapping[int, int]) -> Distances:
    """Steps from every pose to the nearest source, given the costs of entering cells from :func:`entry_costs`.

    Dijkstra's algorithm, backwards from the sources, with a bucket for each distance. A turn costs one step, going
    forward one step and the cost of entering the cell.
    """
    steps = world.steps
    found = [FAR] * (len(costs) * 4)
    buckets: dict[int, list[int]] = {}
    for pose, cost in sources.items():
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


def cheapest_path(world: World, sources: Mapping[int, int], pose: int) -> list[int]:
    """The cells on the cheapest path from a pose to a source when obstacles are cleared on the way.

    Empty where no clearing helps, and where there is no path to go.
    """
    costs = entry_costs(world, clearing=True)
    found = distances(world, costs, sources)
    path: list[int] = []
    while found[pose] < FAR and found[pose] > sources.get(pose, -1):
        cell, heading = pose >> 2, pose & 3
        ahead = cell + world.steps[heading]
        if costs[ahead] >= 0 and found[pose] == found[ahead * 4 + heading] + 1 + costs[ahead]:
            path.append(ahead)
            pose = ahead * 4 + heading
        else:
            left, right = cell * 4 + ((heading - 1) & 3), cell * 4 + ((heading + 1) & 3)
            pose = left if found[left] < found[right] else right
    return path


def first_obstacle(world: World, sources: Mapping[int, int], pose: int) -> int | None:
    """The first cell to clear on the cheapest path from a pose to a source; None if no clearing helps."""
    costs = entry_costs(world)
    return next((cell for cell in cheapest_path(world, sources, pose) if costs[cell] < 0), None)


def facing(world: World, cell: int) -> tuple[int, ...]:
    """The four poses beside a cell that face it."""
    return tuple((cell - step) * 4 + heading for heading, step in enumerate(world.steps))
