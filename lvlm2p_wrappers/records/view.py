"""What a teacher is shown of one moment: pictures, and in text only what no picture shows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.notebook import view_html
from lvlm2p_wrappers.picture import Picture, Pixels

Family: TypeAlias = Literal["minigrid", "default"]

SMALLEST = 32
"""Pixels along a side of the smallest picture that a teacher is shown."""


class EnvInfo(NamedTuple):
    """What every view of an environment has in common.

    Attributes:
        env_id: the id the environment was made with, or its class name where it has none.
        family: which bundled prompt set fits.
        actions: the actions' names, in the order of the action space.
    """

    env_id: str
    family: Family
    actions: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """One moment of an environment as a teacher is shown it.

    Args:
        pictures: what it looks like, oldest first: (height, width, 3) uint8 RGB arrays of at least 32 x 32 pixels, or
            pictures that a viewer drew. The last one is the moment itself.
        actions: the actions' names, in the order of the action space; all different.
        mission: the mission in words, ``""`` where there is none.
        carrying: the carried object in words.
        history: the names of the last actions, oldest first; only prompt sets that ask for a history tell them.
        env_id: the environment's id; prompt sets choose their rules and examples by it.
        family: the bundled prompt set that fits: ``"minigrid"`` for a grid with numbered rows and columns.
        observation: what the student sees; no model is told, and two views that differ in nothing else are equal.
        facts: what no picture shows, as named strings; the templates tell them.

    Raises:
        UsageError: if a picture or the actions cannot be used.

    Example:
        >>> view = View(pictures=(np.zeros((64, 64, 3), np.uint8),), actions=("left", "right"))
        >>> view.picture.pixels.shape
        (64, 64, 3)
    """

    pictures: Sequence[Picture | Pixels]
    actions: tuple[str, ...]
    mission: str = ""
    carrying: str = "nothing"
    history: tuple[str, ...] = ()
    env_id: str = "unnamed"
    family: Family = "default"
    observation: Any = field(default=None, compare=False, repr=False)
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.pictures, list | tuple) or not self.pictures:
            raise UsageError("pictures must hold at least one picture: give a tuple, such as (frame,)")
        if isinstance(self.actions, str) or not all(isinstance(name, str) and name for name in self.actions):
            raise UsageError(f"actions must be a tuple of names, such as ('left', 'right'), not {self.actions!r}")
        if not len(set(self.actions)) == len(self.actions) > 0:
            raise UsageError(f"actions must be different names, at least one, not {self.actions!r}")
        pictures = (one if isinstance(one, Picture) else Picture(rgb(self.env_id, one)) for one in self.pictures)
        object.__setattr__(self, "pictures", tuple(pictures))
        object.__setattr__(self, "actions", tuple(self.actions))

    @property
    def picture(self) -> Picture:
        """What it looks like now: the last of the pictures."""
        newest: Picture = self.pictures[-1]  # type: ignore[assignment]  # all are made pictures above
        return newest

    @property
    def earlier(self) -> tuple[Picture, ...]:
        """What it looked like before, oldest first."""
        return tuple(self.pictures[:-1])  # type: ignore[arg-type]  # all are made pictures above

    @property
    def env_info(self) -> EnvInfo:
        """What this view has in common with all of its environment."""
        return EnvInfo(self.env_id, self.family, self.actions)

    def key(self) -> Hashable:
        """What a model may be told, but for the last actions; equal for equal pixels, however they were drawn."""
        digests = tuple(picture.digest for picture in self.pictures)  # type: ignore[union-attr]
        return (self.env_info, digests, self.mission, self.carrying, *self.facts.items())

    def _repr_html_(self) -> str:
        """What a notebook shows: the pictures, and what the teacher is told in text."""
        facts = {"mission": self.mission, "carrying": self.carrying, "actions": ", ".join(self.actions)}
        return view_html((picture.png for picture in self.pictures), facts)  # type: ignore[union-attr]

    def pack(self) -> None:
        """Take little memory from now on: a question about the view is going to wait."""
        for picture in self.pictures:
            picture.pack()  # type: ignore[union-attr]

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The same view with other last actions: a view that is already drawn serves as a viewer of it."""
        return replace(self, history=history)


def rgb(env_id: str, frame: Any) -> Pixels:
    """A frame as a uint8 RGB array of its own.

    Raises:
        UsageError: if it is no picture.
    """
    pixels = np.array(frame)  # a copy: the next frame may be drawn into the same array, before this one is sent
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape[:2]) < SMALLEST:
        raise UsageError(
            f"{env_id} draws an array of shape {pixels.shape} and dtype {pixels.dtype}; a teacher needs a "
            f"uint8 RGB picture of at least {SMALLEST}x{SMALLEST} pixels, as render_mode='rgb_array' promises."
        )
    return pixels
