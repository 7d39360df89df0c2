"""The space of a student's observation: one vector, and what it consists of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray

_UNBOUNDED = 1e9
"""Bounds beyond this one say nothing of how large a value is."""


class StudentSpace(Box):
    """A flat ``Box`` that knows the shapes of what is laid out in it.

    One after another, each row by row: its parts, which are grids of symbols, ``(height, width)``, or pictures,
    ``(height, width, channels)``; then the rest, which is everything without neighbours: words, positions, numbers.

    Args:
        low: the lower bounds, as a ``Box`` has them.
        high: the upper bounds.
        dtype: of the vector.
        parts: the shapes of the parts.
        table: for grids of symbols: the zeros and ones that each symbol stands for, shape ``(symbols, planes)``.

    Attributes:
        parts: the shapes of the parts.
        table: what each symbol stands for; None without grids.
        rest: how many elements come after the parts.

    Example:
        >>> space = StudentSpace(0, np.array([255] * 12 + [1, 4]), np.uint8, parts=((2, 2, 3),))
        >>> space.rest, space.scale
        (2, array([1., 4.], dtype=float32))
    """

    def __init__(
        self,
        low: ArrayLike,
        high: ArrayLike,
        dtype: Any,
        *,
        parts: tuple[tuple[int, ...], ...] = (),
        table: NDArray[np.uint8] | None = None,
    ) -> None:
        high = np.asarray(high)
        super().__init__(np.broadcast_to(low, high.shape).astype(dtype), high.astype(dtype), dtype=dtype)
        self.parts, self.table = parts, table
        self.rest = len(high) - sum(math.prod(part) for part in parts)

    @property
    def scale(self) -> NDArray[np.float32]:
        """What to divide the rest by: the largest magnitude of each element, or 1 if it is unbounded. ``(rest,)``."""
        largest = np.maximum(np.abs(self.low.astype(np.float64)), np.abs(self.high.astype(np.float64)))
        largest = largest[len(largest) - self.rest :]
        return np.where((largest > 0) & (largest < _UNBOUNDED), largest, 1).astype(np.float32)
