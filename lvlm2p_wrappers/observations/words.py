"""Text for a student, as a bag of its words and pairs of words."""

from __future__ import annotations

import functools
import itertools
import re
import zlib

import numpy as np
from numpy.typing import NDArray

WORDS = 128
"""Elements of a text."""

_ARTICLES = {"a", "an", "the"}


@functools.lru_cache(maxsize=4096)
def words(text: str) -> NDArray[np.uint8]:
    """Encode a text: each word, and each pair of neighbours, sets two elements that its hash chooses.

    The pairs tell ``"the red ball next to the blue box"`` from ``"the blue ball next to the red box"``. Two elements
    each keep texts apart where one hash would not.

    Args:
        text: a mission, say; letter case and articles do not count.

    Returns:
        Zeros and ones, uint8, shape ``(WORDS,)``.
    """
    found = [word for word in re.findall(r"\w+", text.lower()) if word not in _ARTICLES]
    encoded = np.zeros(WORDS, np.uint8)
    for entry in (*found, *map(" ".join, itertools.pairwise(found))):
        hashed = zlib.crc32(entry.encode())
        encoded[[hashed % WORDS, hashed // WORDS % WORDS]] = 1
    encoded.flags.writeable = False
    return encoded
