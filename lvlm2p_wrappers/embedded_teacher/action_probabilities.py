"""From plans to probabilities: what each action costs, and how much it deserves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .dynamic_obstacles import expected_steps, has_moving_balls
from .grid import Scene
from .mission import Task
from .planner import make_plan
from .shortest_path import FAR
from .transition import after, canonical, ending

FATAL_PROBABILITY = 0.001
"""What an action gets that ends the episode badly. A tenth of a percent: such moments recur many times an episode."""

_WASTED = 2.0
"""Extra steps charged for an action that changes nothing: the step that it wastes, and one more since nothing tells the
agent, who sees the same picture again, to do something else the next time."""

_HOPELESS = 50.0
"""Extra steps charged for an action after which no plan is known."""

Costs = dict[str, float | None]
"""Extra steps by action name; None for an action that ends the episode badly."""


class Judgement(NamedTuple):
    """What each action costs, and whether a plan to the end is known at all."""

    extra: Costs
    has_plan: bool


def extra_steps(task: Task, scene: Scene, actions: Sequence[str], targets: Sequence[int]) -> Judgement:
    """How many more steps the best plan takes after each action, compared with the best action.

    Args:
        task: what is to be done.
        scene: the grid, and where the agent stands or is thought to stand.
        actions: names of the actions; one that is not MiniGrid's counts as doing nothing.
        targets: the cells that fulfil the task.
    """
    if has_moving_balls(scene.world) and not {"pickup", "toggle"} & {canonical(name) for name in actions}:
        expected = expected_steps(scene, targets)
        costs = {name: expected.get(canonical(name), FAR) for name in actions}
    else:
        costs = _planned(task, scene, actions, targets)
    alive = [cost for cost in costs.values() if cost is not None]
    best = min(alive, default=FAR)
    if best >= FAR:
        return Judgement(_lost(scene, costs), has_plan=False)
    extra = {name: None if cost is None else min(cost - best, _HOPELESS) for name, cost in costs.items()}
    return Judgement(extra, has_plan=True)


def _planned(task: Task, scene: Scene, actions: Sequence[str], targets: Sequence[int]) -> Costs:
    plan = make_plan(task, scene.world, scene.pose, targets)
    now = plan.distances
    costs: Costs = {}
    for name in actions:
        action = canonical(name)
        end = ending(task, scene, action, targets)
        then = after(scene, action)
        if end is not None:
            costs[name] = 1.0 if end == "success" else None
        elif plan.is_next(scene, action):
            costs[name] = now[scene.pose]
        elif then is scene:
            costs[name] = now[scene.pose] + _WASTED
        elif then.world is scene.world:
            costs[name] = 1.0 + now[then.pose]
        else:
            # How the plan goes on after a change is an estimate. Were it allowed to promise more than the plan itself,
            # two actions could undo each other for ever.
            least = now[scene.pose] + 1.0 if now[scene.pose] < FAR else 0.0
            costs[name] = max(least, 1.0 + make_plan(task, then.world, then.pose, targets).distances[then.pose])
    return costs


def _lost(scene: Scene, costs: Costs) -> Costs:
    """No plan: any move that changes something is as good as another, a step forward a little better."""
    extra: Costs = {}
    for name, cost in costs.items():
        moved = after(scene, canonical(name))
        wasted = moved is scene or moved.world is not scene.world
        extra[name] = None if cost is None else _WASTED if wasted else 0.0 if moved.agent != scene.agent else 0.5
    return extra


def probabilities(extra: Costs, tau: float) -> dict[str, float]:
    """Soften: proportional to ``exp(-extra / tau)``, and `FATAL_PROBABILITY` for what ends the episode badly.

    Args:
        extra: extra steps by action, None where it ends badly.
        tau: softness, in steps. Small: nearly all on the best actions; large: nearly even.

    Returns:
        A probability for every action; they add up to 1.
    """
    alive = {name: math.exp(-cost / tau) for name, cost in extra.items() if cost is not None}
    if not alive:
        return dict.fromkeys(extra, 1 / len(extra))
    share = (1 - FATAL_PROBABILITY * (len(extra) - len(alive))) / sum(alive.values())
    return {name: alive[name] * share if name in alive else FATAL_PROBABILITY for name in extra}
