"""Reads a mission: a sentence in, the part of it that is to be done now out.

The grammar is that of MiniGrid's and BabyAI's own missions. A picture has no memory, so a part counts as done when it
shows that it is: a door is open, a thing is in the hands, one thing lies next to another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .grid import COLORS, PORTABLE, Thing, World

Verb = Literal["reach", "fetch", "pick up", "go to", "open", "put", "match", "explore"]


class What(NamedTuple):
    """A description of things; an empty string leaves that side open."""

    kind: str = ""
    color: str = ""

    def fits(self, thing: Thing | None) -> bool:
        """Whether a thing is one of those described. Only doors and portable things are ever meant."""
        if thing is None or thing.kind not in (*PORTABLE, "door"):
            return False
        return self.kind in ("", thing.kind) and self.color in ("", thing.color)


ANYTHING = What()


@dataclass(frozen=True)
class Task:
    """One part of a mission.

    Attributes:
        verb: what to do.
        what: with what; the thing to move where the verb is ``"put"``.
        where: next to what the thing is to be put.
        reach: how far from ``where`` still counts: ``"beside"`` (four neighbours) or ``"near"`` (all eight).
        last: whether the episode ends with success when this part is done.
        spoiler: a description of doors that must not be opened yet.
    """

    verb: Verb
    what: What = ANYTHING
    where: What = ANYTHING
    reach: Literal["beside", "near"] = "beside"
    last: bool = True
    spoiler: What | None = None

    def is_done(self, world: World) -> bool:
        """Whether the picture shows that this part is done."""
        if self.verb == "open":
            return any(thing is not None and thing.state == "open" and self.what.fits(thing) for thing in world.cells)
        if self.verb in ("pick up", "fetch"):
            return self.what.fits(world.carrying)
        if self.verb == "put":
            moved = (cell for cell, thing in enumerate(world.cells) if self.what.fits(thing))
            return any(self.where.fits(world.cells[beside]) for cell in moved for beside in world.around(cell))
        return False


_VERBS: tuple[tuple[str, Verb], ...] = (
    (r"^(?:you must )?(?:go )?(?:get|fetch)\b", "fetch"),
    (r"^pick up\b", "pick up"),
    (r"^open\b", "open"),
    (r"^go to\b", "go to"),
)


def current_task(mission: str, world: World) -> Task:
    """The part of a mission that is to be done next.

    Without a mission, or with one that is not understood, it is the most sensible thing to be seen: the goal square if
    there is one, else picking up the nearest thing, else going to a door of the outer wall, else opening a door.
    """
    if "matching object" in mission:
        return Task("match")
    if "goal" in mission and world.find("goal"):
        return Task("reach")
    groups = _groups(mission)
    if not groups:
        return _guess(world)
    for number, group in enumerate(groups):
        # What no picture can show goes last, where the end of the episode shows it.
        for part in sorted(group, key=lambda task: task.verb == "go to"):
            is_last = number == len(groups) - 1 and all(other is part or other.is_done(world) for other in group)
            if is_last or not part.is_done(world):
                spoiler = groups[-1][0].what if _is_red_blue(mission) and number == 0 else None
                return Task(part.verb, part.what, part.where, part.reach, is_last, spoiler)
    return _guess(world)


def _is_red_blue(mission: str) -> bool:
    # RedBlueDoors alone ends in failure when the second door opens first; it alone leaves the second verb out.
    return re.fullmatch(r"open the \w+ door then the \w+ door", mission) is not None


def _groups(mission: str) -> list[list[Task]]:
    """Groups of parts, in the order in which they must be done; the parts of one group in any order."""
    before, after_you, after = mission.partition(" after you ")
    sentences = [after, before] if after_you else re.split(r",? then ", mission)
    groups = []
    for sentence in sentences:
        parts = [_part(words.strip(" .")) for words in sentence.split(" and ")]
        groups.append([part for part in parts if part is not None])
    if _is_red_blue(mission):
        groups = [groups[0], [Task("open", _what(sentences[1]))]]
    return [group for group in groups if group]


def _part(words: str) -> Task | None:
    put = re.match(r"^put (.+?) (next to|near) (.+)$", words)
    if put:
        what, how, where = put.groups()
        return Task("put", _what(what), _what(where), "near" if how == "near" else "beside")
    for pattern, verb in _VERBS:
        if re.match(pattern, words):
            what = _what(words)
            return Task(verb, what._replace(kind="door") if verb == "open" else what)
    return None


def _what(words: str) -> What:
    found = re.findall(r"[a-z]+", words)
    kind = next((word for word in found if word in (*PORTABLE, "door")), "")
    return What(kind, next((word for word in found if word in COLORS), ""))


def read_what(words: str) -> What:
    """Read a description of a thing from any phrase, such as ``"the red ball"``."""
    return _what(words.lower())


def _guess(world: World) -> Task:
    if world.find("goal"):
        return Task("reach")
    if world.find(*PORTABLE):
        return Task("pick up")
    doors = world.find("door")
    if not all(world.is_inside(cell) for cell in doors):
        return Task("go to", What("door"))
    return Task("open", What("door")) if doors else Task("explore")
