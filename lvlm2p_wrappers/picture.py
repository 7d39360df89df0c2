"""Pictures in strips: what many pictures have in common is hashed and compressed once."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.png import decoded

Pixels: TypeAlias = NDArray[np.uint8]

STRIP = 32
"""Pixel rows in a strip; the last one of a picture may have fewer."""

_ADLER = 65521


class Strip:
    """Some rows of a picture, with what its digest and its PNG need of them.

    Attributes:
        shape: (rows, width, 3).
        pixels: (rows, width, 3) uint8 RGB; None once packed.
    """

    # Not cached_property: in Python 3.11 it holds a lock, which a process forked meanwhile would wait for, for ever.

    def __init__(self, pixels: Pixels) -> None:
        self.shape = pixels.shape
        self.pixels: Pixels | None = pixels
        self._digest = b""
        self._deflated = b"", 0

    @property
    def digest(self) -> bytes:
        """SHA-256 of the pixels."""
        pixels = self.pixels  # before looking: another thread may pack meanwhile
        if not self._digest:
            assert pixels is not None
            self._digest = hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
        return self._digest

    @property
    def deflated(self) -> tuple[bytes, int]:
        """The rows as PNG has them, compressed so that strips can be joined; and their Adler-32 checksum."""
        pixels = self.pixels
        if not self._deflated[0]:
            assert pixels is not None
            self._deflated = _deflated(pixels)
        return self._deflated

    def pack(self) -> None:
        """Keep digest and PNG data instead of the pixels: a thirtieth of the memory."""
        _ = self.digest, self.deflated
        self.pixels = None


class Picture:
    """A picture, with what is made of it once and used in both stages.

    Args:
        pixels: (height, width, 3) uint8 RGB.
    """

    lined = False  # whether a viewer has drawn lines over its cells

    def __init__(self, pixels: Pixels) -> None:
        self._strips = _cut(pixels)
        self._digest = ""

    @classmethod
    def of(cls, strips: Iterable[Strip]) -> Picture:
        """A picture of strips, from top to bottom; all but the last have ``STRIP`` rows."""
        picture = cls.__new__(cls)
        picture._strips, picture._digest = tuple(strips), ""
        return picture

    @property
    def pixels(self) -> Pixels:
        """(height, width, 3) uint8 RGB."""
        kept = [pixels for strip in self._strips if (pixels := strip.pixels) is not None]
        return np.concatenate(kept) if len(kept) == len(self._strips) else decoded(self.png)

    @property
    def strips(self) -> tuple[Strip, ...]:
        """The picture from top to bottom."""
        return self._strips or _cut(self.pixels)

    @property
    def digest(self) -> str:
        """Of the pixels and their shape: two encoders' PNGs of one picture have the same digest."""
        if not self._digest:
            digest = hashlib.sha256(str((*self.size, 3)).encode())
            for strip in self._strips:
                digest.update(strip.digest)
            self._digest = digest.hexdigest()
        return self._digest

    @property
    def png(self) -> bytes:
        """The picture as a PNG file."""
        (height, width), channels = self.size, 3
        checksum, data = 1, [b"\x78\x01"]  # zlib's header
        for strip in self._strips:
            deflated, adler = strip.deflated
            checksum = _joined(checksum, adler, strip.shape[0] * (1 + channels * width))
            data.append(deflated)
        data += [b"\x03\x00", struct.pack(">I", checksum)]  # an empty last block
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, the only compression and filters
        chunks = (b"IHDR", header), (b"IDAT", b"".join(data)), (b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return sum(strip.shape[0] for strip in self._strips), self._strips[0].shape[1]

    def pack(self) -> None:
        """Take little memory from now on, for as long as a question waits."""
        for strip in self._strips:
            strip.pack()

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Picture) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)


def _cut(pixels: Pixels) -> tuple[Strip, ...]:
    return tuple(Strip(pixels[top : top + STRIP]) for top in range(0, len(pixels), STRIP))


def _deflated(pixels: Pixels) -> tuple[bytes, int]:
    """Without row filters: Pillow would try every one, which takes three times as long, for nothing on flat tiles."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    deflate = zlib.compressobj(3, zlib.DEFLATED, -zlib.MAX_WBITS)  # without zlib's header and checksum
    return deflate.compress(rows.data) + deflate.flush(zlib.Z_FULL_FLUSH), zlib.adler32(rows.data)


def _joined(first: int, second: int, size: int) -> int:
    """The Adler-32 checksum of two runs of bytes, from those of each; the second has so many bytes (RFC 1950)."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + size * ((first & 0xFFFF) - 1)
    return high % _ADLER << 16 | low % _ADLER
