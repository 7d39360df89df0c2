"""The rate limiter: concurrency that adapts to the provider, and requests a minute."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class RateLimiter:
    """A rate limiter: at most ``concurrency`` calls at a time and ``rpm`` a minute, fewer while the provider says so.

    Concurrency follows AIMD, as TCP does: a "too many requests" halves the number of calls that may run at once, once
    per round of calls, and stops new ones for as long as the provider asked; every success raises it again by one per
    round. Belongs to one event loop.

    Args:
        concurrency: the most calls in flight.
        rpm: the most calls that arrive at the provider within any ``window_s``; None for no limit.
        window_s: seconds.
    """

    def __init__(self, concurrency: int, rpm: int | None = None, *, window_s: float = 60.0) -> None:
        self._most = concurrency
        self._rpm = rpm
        self._window_s = window_s
        self._allowed = float(concurrency)
        self._running = 0
        self._closed_until = 0.0
        self._last_cut = -math.inf
        self._ends: deque[float] = deque(maxlen=rpm)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for the turn of a call, and hold its place while it runs; urgent ones go before others that wait."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.appendleft(turn) if urgent else self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted just before
                self._running -= 1
                self._admit()
            raise
        try:
            yield
        finally:
            self._running -= 1
            self._ends.append(time.monotonic()) if self._rpm else None
            self._admit()

    def succeeded(self) -> None:
        """A call was answered: allow a little more again."""
        self._allowed = min(self._most, self._allowed + 1 / self._allowed)

    def too_many(self, started: float, wait_s: float | None) -> None:
        """The provider refused a call that began at ``started`` (``time.monotonic``): slow down."""
        if started > self._last_cut:  # the other calls of the same round say nothing new
            self._last_cut = time.monotonic()
            self._allowed = max(1.0, self._allowed / 2)
        if wait_s is not None:
            self._closed_until = max(self._closed_until, time.monotonic() + wait_s)

    def _delay(self) -> float:
        """Seconds until a call may start; infinite while only the end of another one can make room."""
        now = time.monotonic()
        if self._running >= max(1, int(self._allowed)):
            return math.inf
        delay = self._closed_until - now
        if self._rpm is not None:
            # When a call arrived is known only to lie before its end, so that one still running counts as just arrived.
            if self._running >= self._rpm:
                return math.inf
            if len(self._ends) + self._running >= self._rpm:
                delay = max(delay, self._ends[len(self._ends) + self._running - self._rpm] + self._window_s - now)
        return max(0.0, delay)

    def _admit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            if self._waiting[0].done():  # cancelled while it waited
                self._waiting.popleft()
                continue
            delay = self._delay()
            if delay > 0:
                if math.isfinite(delay):
                    self._timer = asyncio.get_running_loop().call_later(delay, self._admit)
                return
            self._running += 1
            self._waiting.popleft().set_result(None)
