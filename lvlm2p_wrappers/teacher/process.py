"""What happens to the teachers of a process when it forks, and when it ends."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 -- its own end is registered before ours, and so comes after it
import os
import threading
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class PerProcess(Protocol):
    """Has open questions, which belong to the process that asked them."""

    def begin(self) -> None:
        """Begin anew: nothing is open, remembered or counted."""

    def drain(self) -> None:
        """Let the calls in flight end, and store what they bring."""


TEACHERS: WeakSet[PerProcess] = WeakSet()


def _begin_anew() -> None:
    """A forked child has none of its parent's threads, and asks nothing of what was open there."""
    for teacher in tuple(TEACHERS):
        teacher.begin()


def _drain() -> None:
    """Where a script ends without closing its teacher, calls in flight end, so that what was paid for is stored."""
    for teacher in tuple(TEACHERS):
        with suppress(KeyboardInterrupt):
            teacher.drain()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
# Before the threads of executors end and LiteLLM closes its connections: `atexit` alone would come after both.
getattr(threading, "_register_atexit", atexit.register)(_drain)
