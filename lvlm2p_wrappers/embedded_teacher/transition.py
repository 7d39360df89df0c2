"""Deterministic transition model of MiniGrid: the state after an action, and whether the episode ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from .goals import fork_side, is_go_to_door
from .grid import PORTABLE, Scene, Thing, World, is_a, is_free
from .mission import Instruction

Ending = Literal["success", "failure"]

_NAMES = {
    "turnleft": "left",
    "turnright": "right",
    "moveforward": "forward",
    "open": "toggle",
}


def canonical(action: str) -> str:
    """MiniGrid's own name of an action that a prompt set calls, say, ``turn_left``."""
    name = "".join(letter for letter in action.lower() if letter.isalpha())
    return _NAMES.get(name, name)


def step(scene: Scene, action: str) -> Scene:
    """The state after an action; the same object where the action changes nothing."""
    world, front = scene.world, scene.front
    thing = world.cells[front]
    if action == "left":
        return replace(scene, heading=(scene.heading - 1) % 4)
    if action == "right":
        return replace(scene, heading=(scene.heading + 1) % 4)
    if action == "forward":
        return replace(scene, agent=front) if is_free(thing) or thing == Thing("lava") else scene
    if action == "pickup":
        can_pick = is_a(thing, *PORTABLE) and world.carrying is None
        return replace(scene, world=world.put(front, None).carry(thing)) if can_pick else scene
    if action == "drop":
        can_drop = thing is None and world.carrying is not None
        return replace(scene, world=world.put(front, world.carrying).carry(None)) if can_drop else scene
    if action == "toggle":
        toggled = _toggled(world, front)
        return scene if toggled is world else replace(scene, world=toggled)
    return scene


def _toggled(world: World, cell: int) -> World:
    thing = world.cells[cell]
    if thing is None or thing.kind not in ("door", "box"):
        return world
    if thing.kind == "box":
        return world.put(cell, None)
    if thing.state == "locked" and world.carrying != Thing("key", thing.color):
        return world
    return world.put(cell, thing._replace(state="closed" if thing.state == "open" else "open"))


def ending(instruction: Instruction, scene: Scene, action: str, targets: Collection[int]) -> Ending | None:
    """How the episode ends with an action; None where it goes on.

    Missions of different tasks may read alike. An action that fails in one of them and is useless in the others counts
    as a failure.
    """
    thing = scene.world.cells[scene.front]
    if action == "forward":
        return _forward_ending(instruction, scene, thing, targets)
    if action in ("pickup", "drop"):
        return _hand_ending(instruction, scene, action)
    if action == "toggle":
        return _toggle_ending(instruction, scene, thing)
    if action == "done" and instruction.verb == "go to":
        return _done_ending(instruction, scene, targets)
    return None


def _forward_ending(
    instruction: Instruction, scene: Scene, thing: Thing | None, targets: Collection[int]
) -> Ending | None:
    if is_a(thing, "goal", "lava"):
        return "success" if is_a(thing, "goal") else "failure"
    if instruction.verb == "match":
        sides = [fork_side(scene.world, cell) for cell in scene.world.find("key", "ball")]
        if scene.front in targets:
            return "success"
        return "failure" if scene.front in sides and scene.world.row_column(scene.front)[1] > 4 else None
    return None


def _hand_ending(instruction: Instruction, scene: Scene, action: str) -> Ending | None:
    now = step(scene, action)
    if now is scene:
        return None
    if action == "pickup":
        right = instruction.thing.fits(now.world.carrying)
        if instruction.verb in ("fetch", "pick up") and right and instruction.last:
            return "success"
        fatal = instruction.verb == "fetch" or (instruction.verb == "put" and instruction.reach == "near")
        return "failure" if fatal and not right else None
    if instruction.verb != "put" or not instruction.thing.fits(scene.world.carrying):
        return None
    if _lies_well(instruction, now):
        return "success" if instruction.last else None
    return "failure" if instruction.reach == "near" else None


def _lies_well(instruction: Instruction, scene: Scene) -> bool:
    world = scene.world
    around = world.near(scene.front) if instruction.reach == "near" else world.around(scene.front)
    return any(instruction.place.fits(world.cells[cell]) for cell in around)


def _toggle_ending(instruction: Instruction, scene: Scene, thing: Thing | None) -> Ending | None:
    if instruction.verb == "go to" and (is_go_to_door(instruction, scene.world) or not scene.world.find("door")):
        return "failure"
    changed = step(scene, "toggle").world.cells[scene.front]
    opened = changed is not None and changed.state == "open" and changed != thing
    if opened and instruction.forbidden is not None and instruction.forbidden.fits(changed):
        return "failure"
    return (
        "success"
        if opened and instruction.verb == "open" and instruction.last and instruction.thing.fits(changed)
        else None
    )


def _done_ending(instruction: Instruction, scene: Scene, targets: Collection[int]) -> Ending | None:
    if is_go_to_door(instruction, scene.world):
        return "success" if set(targets) & set(scene.world.around(scene.agent)) else "failure"
    if scene.front in targets:
        return "success" if instruction.last else None
    return None if scene.world.find("door") else "failure"
