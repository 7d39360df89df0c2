"""The one event loop of a process on which all calls run.

LiteLLM keeps connections per loop, and misbehaves when loops come and go; a thread of our own also works inside
Jupyter, whose loop is already running.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the background loop, from any thread but its own."""
    return asyncio.run_coroutine_threadsafe(coroutine, background_loop())


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop, started in a daemon thread at first use in this process."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="lvlm2p-calls", daemon=True).start()
        return _loop


def _forget_the_parents_loop() -> None:
    """A forked child has the parent's loop object, but not the thread that ran it; the lock may have been held, too."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parents_loop)
