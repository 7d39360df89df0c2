"""A process's claims on open questions: renewed while these are asked, released where they stay without an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.store import Store

CLAIM_S = 120.0
"""How long a question is left to a process that has fallen silent; one that died is passed over at once."""


class Claims:
    """Keeps up the claims of one store, on the thread on which alone the store is used.

    Args:
        store: holds the claims.
        is_open: whether any question is still open.

    Attributes:
        thread: the store's.
        renewal: the next one; None while nothing is asked.
    """

    def __init__(self, store: Store, is_open: Callable[[], bool]) -> None:
        self._store, self._is_open = store, is_open
        self._unanswered: deque[str] = deque()
        self.thread = _thread()
        self.renewal: asyncio.TimerHandle | None = None

    def renew_later(self) -> None:
        """Renew them from now on: questions may wait for a budget, for requests a minute, for a provider to be back."""
        self.renewal = asyncio.get_running_loop().call_later(CLAIM_S / 4, self._renew)

    def release(self, key: str) -> None:
        """End the claim on a question that stayed without an answer."""
        self._unanswered.append(key)
        self.thread.submit(self._release)

    def close(self) -> None:
        """End all claims, and free the store's handles and its thread; using it again opens them again."""
        self.thread.submit(self._store.close).result()
        self.thread.shutdown()
        self.thread = _thread()

    def _renew(self) -> None:
        self.renewal = None
        if self._is_open():
            self.thread.submit(self._store.renew, seconds=CLAIM_S)
            self.renew_later()

    def _release(self) -> None:
        """Thousands of them, after Ctrl-C, are one transaction."""
        keys = [self._unanswered.popleft() for _ in range(len(self._unanswered))]
        with contextlib.suppress(StoreError):  # they end with their time
            self._store.release(*keys)


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="lvlm2p-store")
