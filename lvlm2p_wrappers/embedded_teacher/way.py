"""The beginning of a plan: the cell that comes next, and what is to be taken or opened on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .dynamic_obstacles import has_moving_balls
from .grid import Scene
from .mission import Instruction
from .planner import Plan, make_plan
from .shortest_path import FAR, entry_costs


def plan_from(scene: Scene, instruction: Instruction, targets: Sequence[int]) -> tuple[Scene, Plan]:
    """The plan from a state, and the state that it is made for: without balls, where these move on anyway."""
    if has_moving_balls(scene.world):
        scene = scene.without_balls()
    return scene, make_plan(instruction, scene.world, scene.pose, targets)


def next_cells(scene: Scene, plan: Plan) -> list[int]:
    """The cells that the agent may enter or act on next on a shortest way; empty where no way is known.

    The agent's own cell is one of them where only ``done`` is left to do.
    """
    found, costs = plan.distances, entry_costs(scene.world)
    cells = []
    for turns, heading in ((0, 0), (1, 1), (1, -1), (2, 2)):
        turned = Scene(scene.world, scene.agent, (scene.heading + heading) % 4)
        steps = found[turned.pose]
        if steps >= FAR or steps + turns != found[scene.pose]:
            continue
        if plan.sources.get(turned.pose) == steps:
            cells.append(scene.agent if plan.action == "done" and len(set(_beside(plan, scene))) == 4 else turned.front)
        elif costs[turned.front] >= 0 and found[turned.front * 4 + turned.heading] + 1 + costs[turned.front] == steps:
            cells.append(turned.front)
    return list(dict.fromkeys(cells))


def _beside(plan: Plan, scene: Scene) -> Iterator[int]:
    """The headings at which the subgoal is done in the agent's cell: all four, where the cell alone matters."""
    return (heading for heading in range(4) if scene.agent * 4 + heading in plan.sources)


def on_the_way(scene: Scene, plan: Plan, targets: Sequence[int]) -> list[int]:
    """The closed doors on one shortest way to the next subgoal, and that subgoal's cell, in their order; no target."""
    found, costs, pose = plan.distances, entry_costs(scene.world), scene.pose
    cells = []
    while found[pose] < FAR and plan.sources.get(pose) != found[pose]:
        ahead = (pose >> 2) + scene.world.steps[pose & 3]
        if costs[ahead] >= 0 and found[pose] == found[ahead * 4 + (pose & 3)] + 1 + costs[ahead]:
            cells += [ahead] * costs[ahead]
            pose = ahead * 4 + (pose & 3)
        else:
            turned = [pose - (pose & 3) + (pose + turn & 3) for turn in (1, -1)]
            pose = min(turned, key=lambda turned: found[turned])
    if found[pose] < FAR and plan.action in ("pickup", "drop", "toggle"):
        cells.append((pose >> 2) + scene.world.steps[pose & 3])
    return [cell for cell in dict.fromkeys(cells) if cell not in targets]
