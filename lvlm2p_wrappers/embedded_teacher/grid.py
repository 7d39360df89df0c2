"""The state that a picture shows: a grid of things, and the agent's cell and heading."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import NamedTuple

COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
HEADINGS = ("right", "down", "left", "up")
"""Names of MiniGrid's directions 0 to 3."""

PORTABLE = frozenset({"key", "ball", "box"})


class Thing(NamedTuple):
    """What lies in a cell (MiniGrid's ``WorldObj``); ``state`` is open, closed or locked for doors, else empty."""

    kind: str
    color: str = ""
    state: str = ""

    @property
    def name(self) -> str:
        """Its name in words, such as ``"closed red door"`` or ``"lava"``."""
        if self.kind == "goal":
            return "green goal square"
        return " ".join(word for word in (self.state, self.color, self.kind) if word)


WALL = Thing("wall")


@dataclass(frozen=True)
class World:
    """The grid without the agent, and what the agent carries; a border of walls saves bounds checks.

    A cell is an index into ``cells``; a pose is ``cell * 4 + heading``.

    Attributes:
        width: columns of the grid, without the border.
        height: rows of the grid, without the border.
        cells: the thing in each cell, row by row, border included; None where there is nothing.
        carrying: the carried thing.
    """

    width: int
    height: int
    cells: tuple[Thing | None, ...]
    carrying: Thing | None = None

    @property
    def stride(self) -> int:
        """Cells from one row to the next."""
        return self.width + 2

    @property
    def steps(self) -> tuple[int, int, int, int]:
        """What one step adds to a cell, by direction."""
        return (1, self.stride, -1, -self.stride)

    def index(self, row: int, column: int) -> int:
        """The cell at MiniGrid's coordinates.

        Raises:
            ValueError: the coordinates are not on the grid.
        """
        if not (0 <= row < self.height and 0 <= column < self.width):
            raise ValueError(f"row {row}, column {column} is not on a grid of {self.height} rows, {self.width} columns")
        return (row + 1) * self.stride + column + 1

    def row_column(self, cell: int) -> tuple[int, int]:
        """MiniGrid's coordinates of a cell: (y, x)."""
        row, column = divmod(cell, self.stride)
        return row - 1, column - 1

    def around(self, cell: int) -> tuple[int, ...]:
        """The four neighbours of a cell, in the order of the directions."""
        return tuple(cell + step for step in self.steps)

    def near(self, cell: int) -> tuple[int, ...]:
        """The eight neighbours of a cell."""
        rows, sides = (-self.stride, 0, self.stride), (-1, 0, 1)
        return tuple(cell + row + side for row in rows for side in sides if row or side)

    def find(self, *kinds: str) -> list[int]:
        """All cells with a thing of one of these kinds, in reading order."""
        return [cell for cell, thing in enumerate(self.cells) if is_a(thing, *kinds)]

    def put(self, cell: int, thing: Thing | None) -> World:
        """A copy with another thing in one cell."""
        return replace(self, cells=(*self.cells[:cell], thing, *self.cells[cell + 1 :]))

    def without(self, unseen: Thing) -> World:
        """A copy without the things of a kind, and of a color if that is given; the border stays."""
        cells = list(self.cells)
        for row, column in itertools.product(range(self.height), range(self.width)):
            thing = cells[cell := self.index(row, column)]
            if thing is not None and thing.kind == unseen.kind and unseen.color in ("", thing.color):
                cells[cell] = None
        return replace(self, cells=tuple(cells))

    def carry(self, thing: Thing | None) -> World:
        """A copy with another carried thing."""
        return replace(self, carrying=thing)

    def is_inside(self, cell: int) -> bool:
        """Whether a cell lies within the outermost ring of the grid."""
        row, column = self.row_column(cell)
        return 0 < row < self.height - 1 and 0 < column < self.width - 1


@dataclass(frozen=True)
class Scene:
    """A state: the world, the agent's cell, and its heading, one of MiniGrid's directions 0 to 3."""

    world: World
    agent: int
    heading: int

    @property
    def pose(self) -> int:
        """Cell and heading as one number."""
        return self.agent * 4 + self.heading

    @property
    def front(self) -> int:
        """The cell ahead of the agent."""
        return self.agent + self.world.steps[self.heading]

    def without_balls(self) -> Scene:
        """A copy without the balls."""
        return replace(self, world=self.world.without(Thing("ball")))


def is_a(thing: Thing | None, *kinds: str) -> bool:
    """Whether there is a thing of one of these kinds."""
    return thing is not None and thing.kind in kinds


def is_free(thing: Thing | None) -> bool:
    """Whether the agent may enter its cell and survive."""
    return thing is None or thing.kind in ("floor", "goal") or (thing.kind == "door" and thing.state == "open")
