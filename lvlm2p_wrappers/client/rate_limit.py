"""The rate limiter: requests a minute, and a concurrency that falls with every 429 and rises again."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class RateLimiter:
    """Lets calls start: at most ``concurrency`` at a time and ``rpm`` a minute, fewer while the provider says so.

    Concurrency follows AIMD, as TCP does: a "too many requests" halves the number of calls that may run at once, once
    per round of calls, and stops new ones for as long as the provider asked; every success raises it again by one per
    round. Belongs to one event loop.

    Args:
        concurrency: the most calls in flight.
        rpm: the most calls that arrive at the provider within any ``window_s``; None for no limit.
        window_s: seconds.
    """

    def __init__(self, concurrency: int, rpm: int | None = None, *, window_s: float = 60.0) -> None:
        self._most, self._rpm, self._window_s = concurrency, rpm, window_s
        self._allowed = float(concurrency)
        self._running = 0
        self._closed_until = 0.0
        self._last_cut = -math.inf
        self._ends: deque[float] = deque(maxlen=rpm or 0)
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, *, urgent: bool, check: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
        """Wait for the turn of a call, and hold its place while it runs.

        Args:
            urgent: whether it goes before others that wait.
            check: raises if the call is not wanted any more; called when :meth:`recheck` is.
        """
        turn = self._turn(urgent)
        try:
            while not await turn:
                check()
                turn = self._turn(urgent)
            yield
        finally:
            if turn.done() and not turn.cancelled() and turn.result():  # it was admitted
                self._running -= 1
                self._ends.append(time.monotonic())
                self._admit()

    def recheck(self) -> None:
        """Have the calls that wait checked again, all at once."""
        while self._waiting:
            if not (turn := self._waiting.popleft()).done():
                turn.set_result(False)

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

    def _turn(self, urgent: bool) -> asyncio.Future[bool]:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if urgent else self._waiting.append)(turn)
        self._admit()
        return turn

    def _delay(self) -> float:
        """Seconds until a call may start; infinite while only the end of another one can make room."""
        now = time.monotonic()
        if self._running >= max(1, int(self._allowed)):
            return math.inf
        delay = self._closed_until - now
        # When a call arrived is known only to lie before its end, so that one still running counts as just arrived.
        if self._rpm is not None and (over := len(self._ends) + self._running - self._rpm) >= 0:
            delay = max(delay, self._ends[over] + self._window_s - now) if self._running < self._rpm else math.inf
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
            self._waiting.popleft().set_result(True)
