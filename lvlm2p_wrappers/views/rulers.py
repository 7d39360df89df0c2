"""The margin of a grid's picture: the numbers of its rows and columns, without which LVLMs misplace cells."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.picture import STRIP, Pixels, Strip
from lvlm2p_wrappers.records import EnvInfo, rgb

TILE = STRIP
"""Pixels per MiniGrid cell; also the width of the margin that carries the row and column numbers."""


def with_rulers(env_info: EnvInfo, frame: Any) -> Pixels:
    """Print the 0-based row and column numbers on all four sides."""
    pixels = rgb(env_info.env_id, frame)
    height, width = pixels.shape[:2]
    if height % TILE or width % TILE:
        raise UsageError(
            f"{env_info.env_id} draws {width}x{height} pixels when asked by get_frame for {TILE} a cell: "
            "no whole number of cells, so that they cannot be numbered."
        )
    side, edge = np.concatenate([numeral(row) for row in range(height // TILE)]), _edge(width // TILE)
    return np.concatenate([edge, np.concatenate([side, pixels, side], axis=1), edge])


@functools.lru_cache(maxsize=32)
def edge_strip(columns: int) -> Strip:
    """The margin above and below the frame, hashed and compressed."""
    strip = Strip(_edge(columns))
    strip.pack()
    return strip


@functools.lru_cache(maxsize=32)
def _edge(columns: int) -> Pixels:
    """The margin above and below the frame: (TILE, (columns + 2) * TILE, 3)."""
    corner = np.full((TILE, TILE, 3), 255, np.uint8)
    return np.concatenate([corner, *map(numeral, range(columns)), corner], axis=1)


@functools.lru_cache(maxsize=256)
def numeral(value: int) -> Pixels:
    """A cell of the margin: (TILE, TILE, 3)."""
    image = Image.new("RGB", (TILE, TILE), "white")
    middle, font = (TILE / 2, TILE / 2), ImageFont.load_default(size=TILE // 2)
    ImageDraw.Draw(image).text(middle, str(value), fill="black", font=font, anchor="mm")
    return np.asarray(image)
