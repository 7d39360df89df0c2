"""Pictures out of files: PNG bytes that may come from anybody, or only a digest."""

from __future__ import annotations

import re
import struct

from lvlm2p_wrappers.picture import Picture, Pixels
from lvlm2p_wrappers.png import decoded

_DIGEST = re.compile(r"[0-9a-zA-Z]{1,128}")


class SavedPicture(Picture):
    """A picture that nobody draws any more: a PNG file, decoded only where pixels are wanted, or its digest alone.

    Args:
        png: the file's bytes, which may be anything.
    """

    def __init__(self, png: bytes) -> None:
        self._strips, self._digest = (), ""
        self._png: bytes | None = png

    @classmethod
    def named(cls, digest: str) -> SavedPicture:
        """A picture of which only the digest is known; its bytes are kept elsewhere.

        Raises:
            ValueError: if it could be no digest: it may become the name of a file.
        """
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest[:80]!r} is no digest of a picture")
        picture = cls(b"")
        picture._png, picture._digest = None, digest
        return picture

    @property
    def pixels(self) -> Pixels:
        """(height, width, 3) uint8 RGB.

        Raises:
            ValueError: if it cannot be decoded, has more than 50 megapixels, or only its digest is known.
        """
        return decoded(self.png)

    @property
    def digest(self) -> str:
        """That of the same picture drawn anew."""
        if not self._digest:
            self._digest = Picture(self.pixels).digest
        return self._digest

    @property
    def png(self) -> bytes:
        """The picture as a PNG file.

        Raises:
            ValueError: if only its digest is known.
        """
        if self._png is None:
            raise ValueError(f"of the picture {self._digest} only the digest is known")
        return self._png

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels that its header names.

        Raises:
            ValueError: if only its digest is known.
        """
        width, height = struct.unpack(">II", self.png[16:24].ljust(8, b"\0"))
        return height, width

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SavedPicture) and self._png is not None and other._png is not None:
            return self._png == other._png
        return super().__eq__(other)

    __hash__ = Picture.__hash__
