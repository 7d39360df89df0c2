"""How fast a client may call: concurrency and requests a minute."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class RateLimiter:
    """Lets calls start: at most ``concurrency`` at a time and ``rpm`` a minute, fewer while the provider says so.

    A "too many requests" halves the number of calls that may run at once, once per round of calls, and stops new ones
    for as long as the provider asked; every success raises it again by one per round (AIMD, as TCP does). Belongs to
    one event loop.

    Args:
        concurrency: the most calls in flight.
        rpm: the most calls started within any 60 seconds; None for no limit.
    """

    def __init__(self, concurrency: int, rpm: int | None = None) -> None:
        self._most = concurrency
        self._rpm = rpm
        self._allowed = float(concurrency)
        self._running = 0
        self._closed_until = 0.0
        self._last_cut = -math.inf
        self._starts: deque[float] = deque(maxlen=rpm)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for the turn of a call, and hold its place while it runs; urgent ones go before others that wait."""
        if self._waiting or self._delay() > 0:
            await self._queue(urgent)
        else:
            self._start()
        try:
            yield
        finally:
            self._running -= 1
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
        if self._rpm is not None and len(self._starts) == self._rpm:
            delay = max(delay, self._starts[0] + 60 - now)
        return max(0.0, delay)

    def _start(self) -> None:
        self._running += 1
        self._starts.append(time.monotonic()) if self._rpm else None

    async def _queue(self, urgent: bool) -> None:
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
            self._start()
            self._waiting.popleft().set_result(None)
