"""Lines and outlines on a numbered grid: LVLMs lose count among black cells, and lose grey things on grey walls."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.picture import Picture, Pixels, Strip
from lvlm2p_wrappers.views.rulers import TILE, edge_strip

LINE = (150, 150, 150)
GUIDE = (255, 255, 255)
"""The line above and to the left of every fifth row and column."""

OUTLINE = (225, 225, 225)

KNOWN_STRIPS = 4096

_BLACK = 50  # the brightest channel of floor, and of what blends into it
_FILLED = 0.6  # the share of its tile that a door, a box or an agent does not cover, and walls, goals and lava do
_strips: dict[tuple[int, bytes], Strip] = {}


def with_lines(picture: Picture) -> Picture:
    """A numbered grid's picture with a line around every cell, and a light outline around every thing.

    A picture that has them already, and one of anything else, is returned as it is.
    """
    if picture.lined:
        return picture
    height, width = picture.size
    rows, columns = height // TILE - 2, width // TILE - 2
    if height % TILE or width % TILE or min(rows, columns) < 1:
        return picture
    strips = picture.strips
    if strips[0].digest != edge_strip(columns).digest:
        return picture
    drawn = [_strips.get((row, strip.digest)) for row, strip in enumerate(strips[1:-1])]
    if None in drawn:
        pixels = picture.pixels
        if tuple(pixels[TILE, TILE]) == GUIDE:
            return picture
        drawn = _drawn(pixels, strips[1:-1])
    if all(old.digest == new.digest for old, new in zip(strips[1:-1], drawn, strict=True) if new is not None):
        return picture
    return Picture.of((strips[0], *drawn, strips[-1]))  # type: ignore[arg-type]  # there is no None left


def _drawn(pixels: Pixels, strips: Sequence[Strip]) -> list[Strip | None]:
    if len(_strips) > KNOWN_STRIPS:
        _strips.clear()
    drawn: list[Strip | None] = []
    for row, strip in enumerate(strips):
        known = _strips.get((row, strip.digest)) or _ruled(pixels[(row + 1) * TILE : (row + 2) * TILE], row)
        _strips[row, strip.digest] = _strips[row, known.digest] = known
        drawn.append(known)
    return drawn


def _ruled(row: Pixels, number: int) -> Strip:
    """A row of tiles between its numbers, with lines and outlines."""
    tiles = row.reshape(TILE, -1, TILE, 3).swapaxes(0, 1)
    drawn = [with_line(tile.tobytes(), number % 5 == 0, column % 5 == 0) for column, tile in enumerate(tiles[1:-1])]
    strip = Strip(np.concatenate([tiles[0], *drawn, tiles[-1]], axis=1))
    strip.pack()
    return strip


@functools.lru_cache(maxsize=2048)
def with_line(tile: bytes, is_guide_above: bool, is_guide_left: bool) -> Pixels:
    """A tile with its line above and to the left, and an outline around what is in it: (TILE, TILE, 3)."""
    pixels = np.frombuffer(tile, np.uint8).reshape(TILE, TILE, 3).copy()
    thing = _thing(pixels)
    around = np.zeros_like(thing)
    around[:-1] |= thing[1:]
    around[1:] |= thing[:-1]
    around[:, :-1] |= thing[:, 1:]
    around[:, 1:] |= thing[:, :-1]
    pixels[around & ~thing] = OUTLINE
    pixels[0], pixels[:, 0] = GUIDE if is_guide_above else LINE, GUIDE if is_guide_left else LINE
    return pixels


def _thing(pixels: Pixels) -> NDArray[np.bool_]:
    """Which pixels are a thing's: those that are not black; where something fills the tile, the red of an agent."""
    thing: NDArray[np.bool_] = pixels.max(axis=2) > _BLACK
    thing[0] = thing[:, 0] = False  # MiniGrid's own thin lines
    if thing.mean() > _FILLED:
        red = pixels.astype(int)
        thing &= (red[..., 0] > 200) & (red[..., 1:].max(axis=2) < 80)
        if thing[-1].any():  # a red thing that fills the tile
            thing[:] = False
    return thing
