"""The ground truth, from the environment's own state: the positions, the optimal actions and the fatal ones.

It is for scoring only: no teacher ever sees it. It is known for environments with a table of transitions (``tabular``)
and for those of the package ``minigrid``, whose rules are known here:

* **Optimal** actions begin a shortest path to the next part of the mission. The embedded teacher's search finds it, on
  the true grid instead of a picture. A copy of the environment checks the result: it is stepped with every action.
  Those that succeed at once are the optimal ones. Where search and copy contradict each other, none is known.
* **Fatal** actions end the episode of such a copy without a reward.

In a mission of several parts the path to the next part counts; where the parts may come in any order, the path to any
of them. The search does not know what a box holds. In Dynamic-Obstacles the balls jump at random after an action was
chosen: optimal are the actions with the fewest expected steps, if the balls were gone after this step. Fatal does not
depend on chance there, since the environment judges a step into a ball or a wall before the balls jump.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
from minigrid.minigrid_env import MiniGridEnv

from lvlm2p_wrappers.embedded_teacher.action_probabilities import extra_steps
from lvlm2p_wrappers.embedded_teacher.grid import HEADINGS, WALL, Scene, Thing, World
from lvlm2p_wrappers.embedded_teacher.planner import make_plan
from lvlm2p_wrappers.embedded_teacher.transition import canonical, ending
from lvlm2p_wrappers.embedded_teacher.way import next_cells, plan_from
from lvlm2p_wrappers.evaluation.objectives import Goal, Objective, objective
from lvlm2p_wrappers.evaluation.tabular import has_table, tabular_truth
from lvlm2p_wrappers.records import GroundTruth, Place

Outcome = Literal["success", "failure"] | None
"""How an action ends the episode; None where it goes on."""

_ROUNDING = 1e-6  # fewer extra steps than this are none


def has_ground_truth(env: gym.Env[Any, Any]) -> bool:
    """Whether the environment's rules are known here, or it has a table of them."""
    unwrapped = env.unwrapped
    return has_table(env) or (
        isinstance(unwrapped, MiniGridEnv) and type(unwrapped).__module__.partition(".")[0] == "minigrid"
    )


def ground_truth(env: gym.Env[Any, Any], actions: Sequence[str]) -> GroundTruth:
    """The ground truth of an environment's current state, which does not change.

    Args:
        env: an environment that :func:`has_ground_truth`.
        actions: the names of its actions, in the order of the action space.
    """
    if has_table(env):
        return tabular_truth(env, actions)
    grid: Any = env.unwrapped
    scene = scene_of(grid)
    found = objective(grid, scene.world)
    outcomes = {name: _outcome(grid, number) for number, name in enumerate(actions)}
    row, column = scene.world.row_column(scene.agent)
    optimal = _checked(scene, found, _shortest(scene, found.goals, actions), outcomes)
    ahead = scene.world.cells[scene.front]
    return GroundTruth(
        row=row,
        column=column,
        heading=HEADINGS[scene.heading],
        targets=_places(scene.world, found.targets),
        also=_places(scene.world, found.also),
        hazards=_places(scene.world, found.hazards),
        optimal=optimal,
        fatal=tuple(name for name in actions if outcomes[name] == "failure"),
        ahead=ahead.name if ahead is not None else "floor",
        next_steps=tuple(map(scene.world.row_column, _next_cells(scene, found, optimal, outcomes))),
    )


def best_actions(env: gym.Env[Any, Any], actions: Sequence[str]) -> tuple[str, ...]:
    """The best actions by the search, or the table, alone, for an expert policy; empty where it finds no path.

    Of several parts that may come next the nearest one counts: else the path to one would undo that to another.
    """
    if has_table(env):
        return tabular_truth(env, actions).optimal
    grid: Any = env.unwrapped
    scene = scene_of(grid)

    def steps(goal: Goal) -> int:
        return make_plan(goal.task, scene.world, scene.pose, goal.targets).distances[scene.pose]

    goals = objective(grid, scene.world).goals
    return _shortest(scene, [min(goals, key=steps)] if goals else [], actions)


def scene_of(grid: Any) -> Scene:
    """The true state of an unwrapped MiniGrid environment, as the embedded teacher's search takes it."""
    stride = grid.width + 2
    cells: list[Thing | None] = [WALL] * (stride * (grid.height + 2))
    for number, thing in enumerate(grid.grid.grid):
        row, column = divmod(number, grid.width)
        cells[(row + 1) * stride + column + 1] = _thing(thing)
    world = World(grid.width, grid.height, tuple(cells), _thing(grid.carrying))
    column, row = (int(number) for number in grid.agent_pos)
    return Scene(world, world.index(row, column), int(grid.agent_dir))


def _thing(thing: Any) -> Thing | None:
    if thing is None:
        return None
    if thing.type in ("wall", "lava"):
        return Thing(thing.type)
    if thing.type == "door":
        return Thing("door", thing.color, "open" if thing.is_open else "locked" if thing.is_locked else "closed")
    return Thing(thing.type, thing.color)


def _outcome(grid: Any, action: int) -> Outcome:
    """How an action ends the episode of a copy, whose time limit, which no picture shows, is far away."""
    there = copy.deepcopy(grid)
    there.step_count = 0
    _, reward, terminated, _, _ = there.step(action)
    return None if not terminated else "success" if reward > 0 else "failure"


def _shortest(scene: Scene, goals: Iterable[Goal], actions: Sequence[str]) -> tuple[str, ...]:
    best: set[str] = set()
    for goal in goals:
        judged = extra_steps(goal.task, scene, actions, goal.targets)
        if judged.has_plan:
            best.update(name for name, extra in judged.extra.items() if extra is not None and extra < _ROUNDING)
    return tuple(name for name in actions if name in best)


def _checked(scene: Scene, found: Objective, best: tuple[str, ...], outcomes: Mapping[str, Outcome]) -> tuple[str, ...]:
    """The best actions, unless the environment contradicts them."""
    succeeding = tuple(name for name in outcomes if outcomes[name] == "success")
    if succeeding:
        return succeeding
    promised = any(
        ending(goal.task, scene, canonical(name), goal.targets) == "success" for goal in found.goals for name in best
    )
    return () if promised or any(outcomes[name] for name in best) else best


def _next_cells(
    scene: Scene, found: Objective, optimal: tuple[str, ...], outcomes: Mapping[str, Outcome]
) -> tuple[int, ...]:
    """The cells that a shortest way may enter or act on next; the agent's own where ``done`` succeeds."""
    if any(outcomes[name] == "success" for name in optimal):
        return tuple({scene.agent if canonical(name) == "done" else scene.front for name in optimal})
    plans = (plan_from(scene, goal.task, goal.targets) for goal in found.goals if optimal)
    return tuple(dict.fromkeys(cell for planned, plan in plans for cell in next_cells(planned, plan)))


def _places(world: World, cells: Iterable[int]) -> tuple[Place, ...]:
    places = []
    for cell in dict.fromkeys(cells):
        thing = world.cells[cell]
        row, column = world.row_column(cell)
        places.append(Place(what=thing.name if thing is not None else "free cell", row=row, column=column))
    return tuple(places)
