"""Texts and pictures, each kept once under the digest of its content."""

from __future__ import annotations

import hashlib
import zlib
from functools import lru_cache
from typing import NamedTuple

from lvlm2p_wrappers.png import png_size

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


def unpack(part: Part) -> str | bytes:
    """Return a part's text, or its PNG file's bytes.

    Raises:
        ValueError: it is damaged, or larger than anything a teacher is sent.
    """
    raw = _inflated(part.data) if part.kind == "text+zlib" else part.data
    if not isinstance(raw, bytes) or digest(raw) != part.digest:
        raise ValueError("its content does not have its digest")
    if part.kind != "png":
        return raw.decode()
    png_size(raw)
    return raw


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    try:
        raw = inflating.decompress(data, MAX_BYTES)
    except (TypeError, zlib.error) as problem:
        raise ValueError(str(problem)) from None
    if not inflating.eof:
        raise ValueError(f"it is cut off, or unpacks to more than {MAX_BYTES:,} bytes")
    return raw
