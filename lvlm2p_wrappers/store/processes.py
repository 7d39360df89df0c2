"""The processes that share a store: what a fork does to it, and whether the one that claims a question is alive."""

from __future__ import annotations

import os
import socket
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Protocol


def _host() -> str:
    told = [socket.gethostname()]
    with suppress(OSError):
        told += [Path("/proc/sys/kernel/random/boot_id").read_text()[:8], str(Path("/proc/self/ns/pid").stat().st_ino)]
    return "-".join(told)


HOST = _host()
"""This machine: many have one name, and in a container processes have numbers of their own."""

LONGEST_CLAIM_S = 600.0
"""A claim that pretends to hold longer is none of ours, which are renewed: nobody shall wait for it."""


class Shared(Protocol):
    """A store, as its process's forks need it."""

    def before_fork(self) -> None:
        """Keep everybody else off the store, and close its connection: none survives a fork."""

    def after_fork(self) -> None:
        """Let them in again."""


_STORES: weakref.WeakValueDictionary[str, Shared] = weakref.WeakValueDictionary()  # by token
_STORES_LOCK = threading.Lock()
_LOCKED: list[Shared] = []


def register(token: str, store: Shared) -> None:
    """Take note of a store of this process, whose claims have this token."""
    with _STORES_LOCK:
        _STORES[token] = store


def _before_fork() -> None:
    _STORES_LOCK.acquire()
    for store in list(_STORES.values()):
        _LOCKED.append(store)
        store.before_fork()


def _after_fork() -> None:
    while _LOCKED:
        _LOCKED.pop().after_fork()
    _STORES_LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def holds(owner: str, until: float, now: float) -> bool:
    """Whether somebody else's claim is still worth something; a store may come from anywhere, and claim anything."""
    try:
        host, number, token = owner.rsplit(":", 2)
        process = int(number)
        if process <= 0 or not now <= until < now + LONGEST_CLAIM_S:
            return False
    except (AttributeError, TypeError, ValueError):
        return False
    if host != HOST or sys.platform == "win32":  # where nothing can be known, the claim's time decides
        return True
    if process == os.getpid():  # one of our own stores, or a dead process that had our number, as in a container
        return token in _STORES
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
