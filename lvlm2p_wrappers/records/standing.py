"""Limits that several processes share."""

from __future__ import annotations

from typing import Literal, NamedTuple

Scope = Literal["process", "store"]
"""Whose calls a limit counts: this process's, or those of all that share the store and count so."""


class Standing(NamedTuple):
    """How a common budget stands after a reservation was tried.

    Attributes:
        is_held: whether the reservation was made.
        spent: nano-dollars that calls were charged.
        reserved: nano-dollars set aside for the calls under way.
        calls: how many calls were made or are under way.
    """

    is_held: bool
    spent: int
    reserved: int
    calls: int
