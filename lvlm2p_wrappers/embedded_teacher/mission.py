"""Mission parser: from MiniGrid's or BabyAI's sentence to the instruction that comes next.

A picture has no memory, so an instruction counts as done when the picture shows it: a door is open, a thing is carried,
one thing lies next to another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .grid import COLORS, PORTABLE, Thing, World

Verb = Literal["reach", "fetch", "pick up", "go to", "open", "put", "match", "explore"]


class Description(NamedTuple):
    """The kind and color of the things that a mission means; an empty string fits any."""

    kind: str = ""
    color: str = ""

    def fits(self, thing: Thing | None) -> bool:
        """Whether a thing is one of those described; only doors and portable things are ever meant."""
        if thing is None or thing.kind not in (*PORTABLE, "door"):
            return False
        return self.kind in ("", thing.kind) and self.color in ("", thing.color)


ANYTHING = Description()


@dataclass(frozen=True)
class Instruction:
    """One part of a mission.

    Attributes:
        verb: what to do.
        thing: to what; the thing to move where the verb is ``"put"``.
        place: next to what the thing is to be put.
        reach: how far from ``place`` still counts: ``"beside"`` (four neighbours) or ``"near"`` (all eight).
        last: whether the episode ends with success when this part is done.
        forbidden: doors that must not be opened yet.
    """

    verb: Verb
    thing: Description = ANYTHING
    place: Description = ANYTHING
    reach: Literal["beside", "near"] = "beside"
    last: bool = True
    forbidden: Description | None = None

    def is_done(self, world: World) -> bool:
        """Whether the picture shows that this part is done."""
        if self.verb == "open":
            return any(thing is not None and thing.state == "open" and self.thing.fits(thing) for thing in world.cells)
        if self.verb in ("pick up", "fetch"):
            return self.thing.fits(world.carrying)
        if self.verb == "put":
            moved = (cell for cell, thing in enumerate(world.cells) if self.thing.fits(thing))
            return any(self.place.fits(world.cells[beside]) for cell in moved for beside in world.around(cell))
        return False


_VERBS: tuple[tuple[str, Verb], ...] = (
    (r"^(?:you must )?(?:go )?(?:get|fetch)\b", "fetch"),
    (r"^pick up\b", "pick up"),
    (r"^open\b", "open"),
    (r"^go to\b", "go to"),
)


def current_instruction(mission: str, world: World) -> Instruction:
    """The part of a mission that is to be done next.

    A mission that is empty or not understood is guessed from the grid: the goal square if there is one, else picking up
    the nearest thing, else going to a door of the outer wall, else opening a door.
    """
    if "matching object" in mission:
        return Instruction("match")
    if "goal" in mission and world.find("goal"):
        return Instruction("reach")
    groups = _groups(mission)
    for number, group in enumerate(groups):
        # What no picture can show goes last, where the end of the episode shows it.
        for part in sorted(group, key=lambda part: part.verb == "go to"):
            is_last = number == len(groups) - 1 and all(other is part or other.is_done(world) for other in group)
            if is_last or not part.is_done(world):
                forbidden = groups[-1][0].thing if _is_red_blue(mission) and number == 0 else None
                return Instruction(part.verb, part.thing, part.place, part.reach, is_last, forbidden)
    return _guess(world)


def _is_red_blue(mission: str) -> bool:
    # RedBlueDoors alone ends in failure when the second door opens first; it alone leaves the second verb out.
    return re.fullmatch(r"open the \w+ door then the \w+ door", mission) is not None


def _groups(mission: str) -> list[list[Instruction]]:
    """Groups of parts in the order in which they must be done; the parts of one group may be done in any order."""
    before, after_you, after = mission.partition(" after you ")
    sentences = [after, before] if after_you else re.split(r",? then ", mission)
    groups = []
    for sentence in sentences:
        parts = [_part(words.strip(" .")) for words in sentence.split(" and ")]
        groups.append([part for part in parts if part is not None])
    if _is_red_blue(mission):
        groups = [groups[0], [Instruction("open", read_description(sentences[1]))]]
    return [group for group in groups if group]


def _part(words: str) -> Instruction | None:
    put = re.match(r"^put (.+?) (next to|near) (.+)$", words)
    if put:
        thing, how, place = put.groups()
        reach: Literal["beside", "near"] = "near" if how == "near" else "beside"
        return Instruction("put", read_description(thing), read_description(place), reach)
    for pattern, verb in _VERBS:
        if re.match(pattern, words):
            thing = read_description(words)
            return Instruction(verb, thing._replace(kind="door") if verb == "open" else thing)
    return None


def read_description(words: str) -> Description:
    """Read a description from a phrase such as ``"the red ball"``."""
    found = re.findall(r"[a-z]+", words.lower())
    kind = next((word for word in found if word in (*PORTABLE, "door")), "")
    return Description(kind, next((word for word in found if word in COLORS), ""))


def _guess(world: World) -> Instruction:
    if world.find("goal"):
        return Instruction("reach")
    if world.find(*PORTABLE):
        return Instruction("pick up")
    doors = world.find("door")
    if not all(world.is_inside(cell) for cell in doors):
        return Instruction("go to", Description("door"))
    return Instruction("open", Description("door")) if doors else Instruction("explore")
