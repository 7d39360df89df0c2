"""Pictures in strips: what many pictures have in common is hashed and compressed once."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic_core import core_schema

from lvlm2p_wrappers.png import decoded

Pixels: TypeAlias = NDArray[np.uint8]

STRIP = 32
"""Pixel rows in a strip; the last one of a picture may have fewer."""

_ADLER = 65521
_DIGEST = re.compile(r"[0-9a-zA-Z]{1,128}")


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

    def __init__(self, pixels: Pixels) -> None:
        self._strips: tuple[Strip, ...] = _cut(pixels)
        self._png: bytes | None = None
        self._digest: str | None = None

    @classmethod
    def of(cls, strips: Iterable[Strip]) -> Picture:
        """A picture of strips, from top to bottom; all but the last have ``STRIP`` rows."""
        return cls._made(strips=tuple(strips))

    @classmethod
    def from_png(cls, png: bytes) -> Picture:
        """A picture from a PNG file's bytes, which may be anything: they are decoded only where pixels are wanted."""
        return cls._made(png=png)

    @classmethod
    def named(cls, digest: str) -> Picture:
        """A picture of which only the digest is known; its bytes are kept elsewhere.

        Raises:
            ValueError: if it could be no digest: it may become the name of a file.
        """
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest[:80]!r} is no digest of a picture")
        return cls._made(digest=digest)

    @classmethod
    def _made(cls, *, strips: tuple[Strip, ...] = (), png: bytes | None = None, digest: str | None = None) -> Picture:
        picture = cls.__new__(cls)
        picture._strips, picture._png, picture._digest = strips, png, digest
        return picture

    @property
    def pixels(self) -> Pixels:
        """(height, width, 3) uint8 RGB.

        Raises:
            ValueError: if it is a PNG that cannot be decoded, or one of more than 50 megapixels.
        """
        parts = [strip.pixels for strip in self._strips]
        kept = [part for part in parts if part is not None]
        if not parts or len(kept) < len(parts):
            return decoded(self.png)
        return np.concatenate(kept)

    @property
    def digest(self) -> str:
        """Of the pixels and their shape: two encoders' PNGs of one picture have the same digest."""
        if self._digest is not None:
            return self._digest
        strips = self._strips or _cut(self.pixels)
        height, width = sum(strip.shape[0] for strip in strips), strips[0].shape[1]
        digest = hashlib.sha256(str((height, width, 3)).encode())
        for strip in strips:
            digest.update(strip.digest)
        self._digest = digest.hexdigest()
        return self._digest

    @property
    def png(self) -> bytes:
        """The picture as a PNG file.

        Raises:
            ValueError: if only its digest is known.
        """
        if self._png is not None:
            return self._png
        if not self._strips:
            raise ValueError(f"of the picture {self._digest} only the digest is known")
        height, width, channels = sum(strip.shape[0] for strip in self._strips), self._strips[0].shape[1], 3
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
        """Height and width in pixels; a PNG's are those that its header names.

        Raises:
            ValueError: if only its digest is known.
        """
        if self._strips:
            return sum(strip.shape[0] for strip in self._strips), self._strips[0].shape[1]
        width, height = struct.unpack(">II", self.png[16:24].ljust(8, b"\0"))
        return height, width

    def pack(self) -> None:
        """Take little memory from now on, for as long as a question waits."""
        for strip in self._strips:
            strip.pack()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Picture):
            return NotImplemented
        if self._png is not None and other._png is not None:
            return self._png == other._png
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """In files a picture is its digest."""

        def read(value: Any) -> Picture:
            if isinstance(value, cls):
                return value
            if isinstance(value, str):
                return cls.named(value)
            raise ValueError("a picture is given by its digest")

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(lambda picture: picture.digest)
        )


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
