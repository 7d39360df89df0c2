"""Texts and pictures, each kept once under the digest of its content."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from functools import lru_cache
from typing import NamedTuple

from PIL import Image

from lvlm2p_wrappers.picture import MAX_PIXELS

MAX_BYTES = 64 * 2**20
"""The most that a compressed text may unpack to."""


class Part(NamedTuple):
    """A row of ``parts``; ``kind`` is ``"text"``, ``"text+zlib"`` or ``"png"``."""

    digest: str
    kind: str
    data: bytes


def digest(raw: bytes) -> str:
    """Return the address of a part: BLAKE2b of its uncompressed bytes, 128 bits, in hexadecimal."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


@lru_cache(maxsize=64)  # system prompts and schemas come back with every call
def pack_text(value: str) -> Part:
    """Return the part that holds a text, compressed where that pays."""
    raw = value.encode()
    small = zlib.compress(raw)
    return Part(digest(raw), "text", raw) if len(small) >= len(raw) else Part(digest(raw), "text+zlib", small)


def pack_png(png: bytes) -> Part:
    """Return the part that holds a picture."""
    return Part(digest(png), "png", png)


def unpack(kind: str, data: bytes) -> str | bytes:
    """Return a part's text, or its PNG file's bytes.

    Raises:
        ValueError: it is damaged, or larger than anything a teacher is sent.
    """
    if kind == "png":
        check_png(data)
        return data
    if kind != "text+zlib":
        return data.decode()
    try:
        unpacking = zlib.decompressobj()
        raw = unpacking.decompress(data, MAX_BYTES)
    except zlib.error as problem:
        raise ValueError(str(problem)) from None
    if not unpacking.eof:
        raise ValueError(f"it is cut off, or unpacks to more than {MAX_BYTES:,} bytes")
    return raw.decode()


def check_png(png: bytes) -> None:
    """Look at a PNG file's header and checksums, without unpacking its pixels.

    Raises:
        ValueError: it is no PNG file, is damaged, or has more than 50 megapixels.
    """
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"a picture of {image.width} x {image.height} pixels is too large")
            image.verify()
    except (OSError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError):
        raise ValueError("it is no PNG file, or a damaged one") from None
