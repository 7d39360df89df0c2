"""Action probabilities: a softmax over how many extra steps the best plan takes after each action."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .dynamic_obstacles import expected_steps, has_moving_balls
from .grid import Scene
from .mission import Instruction
from .planner import make_plan
from .shortest_path import FAR
from .transition import canonical, ending, step

FATAL_PROBABILITY = 0.001
"""For an action that ends the episode without success: small, since such states recur many times an episode."""

_WASTED = 2.0
"""Extra steps of an action that changes nothing: the wasted step, and one more because the agent sees the same picture
again and may repeat it."""

_HOPELESS = 50.0
"""Extra steps of an action after which no plan is known."""

Costs = dict[str, float | None]
"""Extra steps by action name; None for an action that ends the episode without success."""


class Judgement(NamedTuple):
    """The extra steps of each action, and whether a plan to the end is known at all."""

    extra: Costs
    has_plan: bool


def extra_steps(instruction: Instruction, scene: Scene, actions: Sequence[str], targets: Sequence[int]) -> Judgement:
    """How many more steps the best plan takes after each action, compared with the best action.

    Args:
        instruction: what is to be done.
        scene: the state, as it is or as the analysis reports it.
        actions: names of the actions; one that is not MiniGrid's counts as doing nothing.
        targets: the cells that fulfil the instruction.
    """
    if has_moving_balls(scene.world) and not {"pickup", "toggle"} & {canonical(name) for name in actions}:
        expected = expected_steps(scene, targets)
        costs = {name: expected.get(canonical(name), FAR) for name in actions}
    else:
        costs = _planned(instruction, scene, actions, targets)
    best = min((cost for cost in costs.values() if cost is not None), default=FAR)
    if best >= FAR:
        return Judgement(_without_plan(scene, costs), has_plan=False)
    extra = {name: None if cost is None else min(cost - best, _HOPELESS) for name, cost in costs.items()}
    return Judgement(extra, has_plan=True)


def _planned(instruction: Instruction, scene: Scene, actions: Sequence[str], targets: Sequence[int]) -> Costs:
    plan = make_plan(instruction, scene.world, scene.pose, targets)
    now = plan.distances
    costs: Costs = {}
    for name in actions:
        action = canonical(name)
        end = ending(instruction, scene, action, targets)
        then = step(scene, action)
        if end is not None:
            costs[name] = 1.0 if end == "success" else None
        elif plan.is_next(scene, action):
            costs[name] = now[scene.pose]
        elif then is scene:
            costs[name] = now[scene.pose] + _WASTED
        elif then.world is scene.world:
            costs[name] = 1.0 + now[then.pose]
        else:
            # The plan after a change of the grid is an estimate. If it could promise less than the plan itself, two
            # actions could undo each other for ever.
            least = now[scene.pose] + 1.0 if now[scene.pose] < FAR else 0.0
            later = make_plan(instruction, then.world, then.pose, targets).distances[then.pose]
            costs[name] = max(least, 1.0 + later)
    return costs


def _without_plan(scene: Scene, costs: Costs) -> Costs:
    """Prefer a step forward, then a turn, to an action that changes nothing or changes the grid."""
    extra: Costs = {}
    for name, cost in costs.items():
        moved = step(scene, canonical(name))
        wasted = moved is scene or moved.world is not scene.world
        extra[name] = None if cost is None else _WASTED if wasted else 0.0 if moved.agent != scene.agent else 0.5
    return extra


def probabilities(extra: Costs, tau: float) -> dict[str, float]:
    """The softmax ``exp(-extra / tau)``, with :data:`FATAL_PROBABILITY` for actions that end the episode badly.

    Args:
        extra: extra steps by action, None where it ends the episode without success.
        tau: temperature, in steps: small puts nearly all on the best actions, large is nearly uniform.

    Returns:
        A probability for every action; they sum to 1.
    """
    alive = {name: math.exp(-cost / tau) for name, cost in extra.items() if cost is not None}
    if not alive:
        return dict.fromkeys(extra, 1 / len(extra))
    share = (1 - FATAL_PROBABILITY * (len(extra) - len(alive))) / sum(alive.values())
    return {name: alive[name] * share if name in alive else FATAL_PROBABILITY for name in extra}
