"""PNG files that may come from anybody: their size and their pixels."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_PIXELS = 50_000_000
"""A PNG that holds more is not decoded: a few bytes of it may mean gigabytes."""


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG file, by its header and its checksums: its pixels are not unpacked.

    Raises:
        ValueError: if it is no PNG file, is damaged, or has more than 50 megapixels.
    """
    if png[:16] != b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" or len(png) < 24:
        raise ValueError("it is no PNG file, or a damaged one")
    width, height = struct.unpack(">II", png[16:24])
    if width * height > MAX_PIXELS:
        raise ValueError(f"a picture of {width} x {height} pixels is too large")
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error):
        raise ValueError("it is no PNG file, or a damaged one") from None
    return width, height


def decoded(png: bytes) -> NDArray[np.uint8]:
    """The pixels of a PNG file: (height, width, 3) uint8 RGB.

    Raises:
        ValueError: if it is no PNG file that can be decoded, or has more than 50 megapixels.
    """
    png_size(png)
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, struct.error, zlib.error) as error:
        raise ValueError(f"it is no PNG that can be decoded: {error}") from None
