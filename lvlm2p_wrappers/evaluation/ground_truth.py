"""What is really so, by the environment's own state: where everything is, which actions are best, and which are fatal.

Truth is for scoring only: no teacher gets to see it. There is none for an environment whose rules are not known here,
which is every one outside the package ``minigrid``.

* **Optimal** actions begin a shortest way to what is to be done next. The planner's search finds it, on the true grid
  instead of a picture. Its word is checked against the environment: a copy is stepped with every action; those that win
  at once are the optimal ones, and where search and copy contradict each other there is no verdict.
* **Fatal** actions end the episode without a reward, in a copy of the environment that is stepped with them.

In a mission of several parts the way to the part that comes next counts, in one whose parts may be done in any order
the way to any of them. What a box holds is unknown to the search. In Dynamic-Obstacles, where the balls jump at random
after an action was chosen, optimal is what leaves the fewest steps to be expected if the balls were gone after this
one; fatal does not depend on chance there, since a step into a ball or a wall is judged before the balls jump.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
from minigrid.minigrid_env import MiniGridEnv
from pydantic import BaseModel, ConfigDict

from lvlm2p_wrappers.embedded_teacher.action_probabilities import extra_steps
from lvlm2p_wrappers.embedded_teacher.grid import HEADINGS, WALL, Scene, Thing, World
from lvlm2p_wrappers.embedded_teacher.planner import make_plan
from lvlm2p_wrappers.embedded_teacher.transition import canonical, ending
from lvlm2p_wrappers.evaluation.objectives import Goal, Objective, duty

_NOTHING = 1e-6  # extra steps of an action that is as good as the best, but for rounding


class Place(BaseModel):
    """A thing and its cell."""

    model_config = ConfigDict(frozen=True)

    what: str
    row: int
    column: int


class Truth(BaseModel):
    """What is really so in one state.

    Attributes:
        row: the agent's row, as printed beside the picture.
        column: its column.
        heading: ``"up"``, ``"right"``, ``"down"`` or ``"left"``.
        targets: the cells that fulfil the part of the mission that comes next.
        also: cells that may be named as targets, too: those of the mission's other parts.
        hazards: the cells that end the episode badly, as the prompts' rules define them.
        optimal: the names of the best actions; empty where no verdict is possible.
        fatal: the names of the actions that end the episode without a reward.
    """

    model_config = ConfigDict(frozen=True)

    row: int
    column: int
    heading: str
    targets: tuple[Place, ...]
    also: tuple[Place, ...] = ()
    hazards: tuple[Place, ...]
    optimal: tuple[str, ...]
    fatal: tuple[str, ...]


class Outcome(NamedTuple):
    """What one step led to."""

    terminated: bool
    reward: float

    @property
    def wins(self) -> bool:
        """Whether it ended the episode with a reward."""
        return self.terminated and self.reward > 0


def has_truth(env: gym.Env[Any, Any]) -> bool:
    """Whether the environment is one whose rules are known here."""
    unwrapped = env.unwrapped
    return isinstance(unwrapped, MiniGridEnv) and type(unwrapped).__module__.partition(".")[0] == "minigrid"


def truth_of(env: gym.Env[Any, Any], actions: Sequence[str]) -> Truth:
    """What is so in an environment's present state, which stays as it is.

    Args:
        env: an environment that :func:`has_truth`.
        actions: the names of its actions, in the order of the action space.
    """
    grid: Any = env.unwrapped
    scene = scene_of(grid)
    found = duty(grid, scene.world)
    outcomes = {name: _outcome(grid, number) for number, name in enumerate(actions)}
    row, column = scene.world.row_column(scene.agent)
    return Truth(
        row=row,
        column=column,
        heading=HEADINGS[scene.heading],
        targets=_places(scene.world, found.targets),
        also=_places(scene.world, found.also),
        hazards=_places(scene.world, found.hazards),
        optimal=_checked(scene, found, _shortest(scene, found.goals, actions), outcomes),
        fatal=tuple(name for name, outcome in outcomes.items() if outcome.terminated and not outcome.wins),
    )


def best_actions(env: gym.Env[Any, Any], actions: Sequence[str]) -> tuple[str, ...]:
    """What the search takes for the best actions, unchecked, for acting; empty where it knows no way.

    Of several parts that may be done now, those to the nearest one: else the way to one would undo that to another.
    """
    grid: Any = env.unwrapped
    scene = scene_of(grid)

    def steps(goal: Goal) -> int:
        return make_plan(goal.task, scene.world, scene.pose, goal.targets).distances[scene.pose]

    goals = duty(grid, scene.world).goals
    return _shortest(scene, [min(goals, key=steps)] if goals else [], actions)


def scene_of(grid: Any) -> Scene:
    """The true state of an unwrapped MiniGrid environment, in the planner's terms."""
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
    """Step a copy; the time limit, which no picture shows, is moved far away."""
    there = copy.deepcopy(grid)
    there.step_count = 0
    _, reward, terminated, _, _ = there.step(action)
    return Outcome(bool(terminated), float(reward))


def _shortest(scene: Scene, goals: Iterable[Goal], actions: Sequence[str]) -> tuple[str, ...]:
    best: set[str] = set()
    for goal in goals:
        judged = extra_steps(goal.task, scene, actions, goal.targets)
        if judged.has_plan:
            best.update(name for name, extra in judged.extra.items() if extra is not None and extra < _NOTHING)
    return tuple(name for name in actions if name in best)


def _checked(scene: Scene, found: Objective, best: tuple[str, ...], outcomes: dict[str, Outcome]) -> tuple[str, ...]:
    """The best actions, as far as they agree with what the environment does."""
    winning = tuple(name for name, outcome in outcomes.items() if outcome.wins)
    if winning:
        return winning
    promised = any(
        ending(goal.task, scene, canonical(name), goal.targets) == "success" for goal in found.goals for name in best
    )
    return () if promised or any(outcomes[name].terminated for name in best) else best


def _places(world: World, cells: Iterable[int]) -> tuple[Place, ...]:
    places = []
    for cell in dict.fromkeys(cells):
        thing = world.cells[cell]
        row, column = world.row_column(cell)
        places.append(Place(what=thing.name if thing is not None else "free cell", row=row, column=column))
    return tuple(places)
