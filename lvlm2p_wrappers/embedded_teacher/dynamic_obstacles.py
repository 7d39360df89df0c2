"""Dynamic-Obstacles: balls that move at random, and the expected steps past them.

The environment's rule: ``forward`` with anything but the goal in the cell ahead *before the step* ends the episode with
-1, even if the ball moves away in that step. Then each ball in turn jumps to a random empty one of the eight cells
around it, never onto the agent. Only then the agent moves; a ball that has jumped into its way stops it without harm.
"""

from __future__ import annotations

from collections.abc import Collection

from .grid import Scene, World
from .shortest_path import Distances, distances, entry_costs


def has_moving_balls(world: World) -> bool:
    """Whether it looks like Dynamic-Obstacles: a goal square, balls and walls, and nothing else."""
    kinds = {thing.kind for thing in world.cells if thing is not None}
    return kinds == {"wall", "ball", "goal"} and world.carrying is None


def expected_steps(scene: Scene, goals: Collection[int]) -> dict[str, float | None]:
    """Expected steps to the goal after each of the three actions; None for one that ends the episode.

    The path is the shortest one without balls, since they move on before the agent gets there. Only the probability
    that one of them jumps into the agent's way in this step counts.
    """
    bare = scene.without_balls().world
    sources = {cell * 4 + heading: 0 for cell in goals for heading in range(4)}
    found = distances(bare, entry_costs(bare), sources)
    return {
        "left": 1.0 + found[scene.agent * 4 + (scene.heading - 1) % 4],
        "right": 1.0 + found[scene.agent * 4 + (scene.heading + 1) % 4],
        "forward": _forward(scene, found),
    }


def _forward(scene: Scene, found: Distances) -> float | None:
    thing = scene.world.cells[scene.front]
    if thing is not None:
        return 1.0 if thing.kind == "goal" else None
    blocked = _risk_of_ball(scene)
    ahead = found[scene.front * 4 + scene.heading]
    return 1.0 + (1 - blocked) * ahead + blocked * found[scene.pose]


def _risk_of_ball(scene: Scene) -> float:
    """Probability that a ball jumps into the cell ahead; each chooses uniformly among the empty cells around it."""
    world = scene.world
    stays_free = 1.0
    for ball in world.find("ball"):
        around = world.near(ball)
        if scene.front in around:
            choices = sum(world.cells[cell] is None and cell != scene.agent for cell in around)
            stays_free *= 1 - 1 / choices
    return 1 - stays_free
