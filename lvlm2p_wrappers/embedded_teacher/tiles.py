"""Template matching: from the pixels of a picture to the grid, by comparing each tile with MiniGrid's drawings.

MiniGrid draws the agent over what it stands on, and each mixture is different, so open doors, goals, lava and floors
are recognised under the agent too. What a box holds is not in the picture, nor which unlocked door was locked before.
The line of pixels above and to the left of a tile is not compared: it says nothing of what is in the tile.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from lvlm2p_wrappers.views import with_line

from .grid import COLORS, WALL, Scene, Thing, World

TILE = 32
"""Pixels along a side of a tile."""

MAX_PIXELS = 50_000_000
"""A larger picture is not decoded: a few bytes of a PNG may mean gigabytes."""

_WHITE = b"\xff" * ((TILE - 1) * (TILE - 1) * 3)


class UnreadableError(Exception):
    """The picture does not show a MiniGrid grid; the message says what it shows instead."""


class _Tile(NamedTuple):
    thing: Thing | None
    heading: int | None


def _tiles() -> Iterator[_Tile]:
    """Everything that MiniGrid can draw in one tile, most frequent first."""
    headings = (0, 1, 2, 3)
    yield _Tile(None, None)
    yield _Tile(WALL, None)
    yield from (_Tile(None, heading) for heading in headings)
    yield from (_Tile(Thing("goal", "green"), None), _Tile(Thing("lava"), None))
    doors = [Thing("door", color, state) for state in ("closed", "locked", "open") for color in COLORS]
    yield from (_Tile(door, None) for door in doors)
    yield from (_Tile(Thing(kind, color), None) for kind in ("ball", "key", "box", "floor") for color in COLORS)
    underfoot = [Thing("goal", "green"), *(door for door in doors if door.state == "open"), Thing("lava")]
    underfoot += [Thing("floor", color) for color in COLORS]
    yield from (_Tile(thing, heading) for thing in underfoot for heading in headings)


def _draw(tile: _Tile) -> tuple[bytes, bytes]:
    """The pixels of a tile as MiniGrid renders it, and those with an outline around what is in it."""
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
    from minigrid.core.grid import Grid
    from minigrid.core.world_object import WorldObj

    kind, color, state = tile.thing or ("empty", "", "")
    drawn = WorldObj.decode(OBJECT_TO_IDX[kind], COLOR_TO_IDX[color or "grey"], STATE_TO_IDX[state or "open"])
    pixels = Grid.render_tile(drawn, agent_dir=tile.heading, tile_size=TILE)
    plain = np.asarray(pixels).astype(np.uint8)
    return plain[1:, 1:].tobytes(), with_line(plain.tobytes(), False, False)[1:, 1:].tobytes()


class _Templates:
    """MiniGrid's drawings and what they show, drawn on demand: all of them take seconds, those of one task far less."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Tile] = {}
        self._not_drawn = _tiles()
        self._lock = threading.Lock()

    def match(self, pixels: bytes) -> _Tile | None:
        found = self._known.get(pixels)
        return found if found is not None else self._draw_until(pixels)

    def _draw_until(self, pixels: bytes) -> _Tile | None:
        with self._lock:
            while pixels not in self._known:
                tile = next(self._not_drawn, None)
                if tile is None:
                    return None
                for drawn in _draw(tile):
                    self._known.setdefault(drawn, tile)
            return self._known[pixels]


_templates = _Templates()


# The second stage sends the picture of the first one again.
@lru_cache(maxsize=64)
def read_picture(url: str) -> Scene:
    """Recognise the grid in a picture.

    Args:
        url: a ``data:`` URL of a PNG whose tiles are 32 pixels wide, with or without a margin of one tile on all sides.
            What is printed in the margin does not matter.

    Raises:
        UnreadableError: it is no picture, has more than 50 megapixels, or shows no MiniGrid grid with one agent in it.
    """
    tiles = _cut(_decode(url))
    height, width = tiles.shape[:2]
    stride = width + 2
    cells: list[Thing | None] = [WALL] * (stride * (height + 2))
    agents = []
    pixels, size = tiles.tobytes(), len(_WHITE)
    for number in range(height * width):
        tile = _templates.match(pixels[number * size : (number + 1) * size])
        row, column = divmod(number, width)
        if tile is None:
            raise UnreadableError(f"the tile at row {row}, column {column} is none that MiniGrid draws")
        cell = (row + 1) * stride + column + 1
        cells[cell] = tile.thing
        if tile.heading is not None:
            agents.append((cell, tile.heading))
    if len(agents) != 1:
        raise UnreadableError(f"it shows {len(agents) or 'no'} agents, not one")
    return Scene(World(width, height, tuple(cells)), *agents[0])


def _decode(url: str) -> npt.NDArray[np.uint8]:
    head, _, data = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise UnreadableError("it was not sent as a base64 data URL")
    try:
        with Image.open(BytesIO(base64.b64decode(data, validate=True))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            return np.asarray(image.convert("RGB"))
    except (binascii.Error, UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"it is no picture ({error})") from error


def _cut(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Cut a picture into tiles without their lines, and drop the margin: (rows, columns, 31, 31, 3) uint8."""
    height, width = pixels.shape[:2]
    if height % TILE or width % TILE:
        raise UnreadableError(f"{width} x {height} pixels are no whole number of {TILE}-pixel tiles")
    tiles = pixels.reshape(height // TILE, TILE, width // TILE, TILE, 3).swapaxes(1, 2)[:, :, 1:, 1:]
    # A corner of a grid is never white; the corner of the margin always is.
    if min(tiles.shape[:2]) > 2 and tiles[0, 0].tobytes() == _WHITE:
        tiles = tiles[1:-1, 1:-1]
    return tiles
