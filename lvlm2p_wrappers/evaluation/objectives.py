"""The objective of an environment, from its own state rather than from the words of its mission.

BabyAI's levels keep a tree of instructions. It tells which objects the mission means (also where it says "on your
left") and which parts are done; a picture shows neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from minigrid.envs import DynamicObstaclesEnv, MemoryEnv, RedBlueDoorEnv
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    AndInstr,
    BeforeInstr,
    GoToInstr,
    OpenInstr,
    PickupInstr,
)

from lvlm2p_wrappers.embedded_teacher.goals import target_cells
from lvlm2p_wrappers.embedded_teacher.grid import PORTABLE, World
from lvlm2p_wrappers.embedded_teacher.mission import Description, Instruction, current_instruction


class Goal(NamedTuple):
    """One part of a mission, and the cells that fulfil it."""

    task: Instruction
    targets: list[int]


@dataclass(frozen=True)
class Objective:
    """The parts of the mission that are left, and the cells that matter to them.

    Attributes:
        goals: the next part of the mission; several where any of them may come next.
        targets: the cells that an analysis should name as targets, as the prompts define them.
        also: the cells that it may name as well: those of the other parts.
        hazards: the cells that it should name as hazards.
    """

    goals: tuple[Goal, ...]
    targets: tuple[int, ...]
    also: tuple[int, ...]
    hazards: tuple[int, ...]


def objective(grid: Any, world: World) -> Objective:
    """The current objective.

    Args:
        grid: an unwrapped environment of the package ``minigrid``.
        world: its true state.
    """
    lava = world.find("lava")
    if isinstance(grid, RoomGridLevel):
        groups = [[_goal(part, world) for part in group] for group in _groups(grid.instrs)]
        cells = [[cell for goal in group for cell in goal.targets] for group in groups]
        return Objective(tuple(groups[0]), tuple(cells[0]), tuple(itertools.chain(*cells[1:])), tuple(lava))
    if not grid.mission:  # Playground rewards nothing
        return Objective((), (), (), tuple(lava))
    task = current_instruction(grid.mission.lower(), world)
    goal = Goal(task, target_cells(task, world))
    if isinstance(grid, MemoryEnv):
        return _memory(grid, world, goal)
    if isinstance(grid, DynamicObstaclesEnv):
        return Objective((goal,), tuple(goal.targets), (), tuple(world.find("ball")))
    doors = world.find("door") if isinstance(grid, RedBlueDoorEnv) else ()
    return Objective((goal,), tuple(goal.targets), tuple(doors), tuple(lava))


def _memory(grid: Any, world: World, goal: Goal) -> Objective:
    """The target is the matching object, the hazard the cell before the other one."""
    winning, losing = (world.index(int(y), int(x)) for x, y in (grid.success_pos, grid.failure_pos))
    things = set(world.find(*PORTABLE))
    return Objective((goal,), tuple(cell for cell in world.around(winning) if cell in things), (), (losing,))


def _groups(instruction: Any) -> list[list[Any]]:
    """The parts that are left: groups in their order; the parts of a group may come in any order."""
    if isinstance(instruction, BeforeInstr | AfterInstr):
        first, then = instruction.instr_a, instruction.instr_b
        is_done = instruction.a_done
        if isinstance(instruction, AfterInstr):
            first, then, is_done = then, first, instruction.b_done
        return [*([] if is_done == "success" else _groups(first)), *_groups(then)]
    if isinstance(instruction, AndInstr):
        parts = ((instruction.instr_a, instruction.a_done), (instruction.instr_b, instruction.b_done))
        return [[part for part, done in parts if done != "success"]]
    return [[instruction]]


def _goal(part: Any, world: World) -> Goal:
    if isinstance(part, GoToInstr):
        return Goal(Instruction("go to", _described(part.desc)), list(_at(world, part.desc.obj_poss)))
    if isinstance(part, OpenInstr):
        doors = [door for door in part.desc.obj_set if not door.is_open] or part.desc.obj_set
        return Goal(Instruction("open", _described(part.desc)), list(_at(world, (door.cur_pos for door in doors))))
    if isinstance(part, PickupInstr):
        return Goal(Instruction("pick up", _described(part.desc)), list(_lying(world, part.desc)))
    move, fixed = part.desc_move, part.desc_fixed
    carried = any(thing is part.env.carrying for thing in move.obj_set)
    things = [] if carried else list(_lying(world, move))
    return Goal(Instruction("put", _described(move), _described(fixed)), [*things, *_at(world, fixed.obj_poss)])


def _described(described: Any) -> Description:
    return Description(described.type or "", described.color or "")


def _lying(world: World, described: Any) -> Iterator[int]:
    """The cells of the described things, without the one in the agent's hands."""
    return _at(world, (thing.cur_pos for thing in described.obj_set if thing.cur_pos[0] >= 0))


def _at(world: World, positions: Iterable[Any]) -> Iterator[int]:
    return (world.index(int(y), int(x)) for x, y in positions)
