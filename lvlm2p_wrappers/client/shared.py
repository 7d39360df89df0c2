"""A budget and a rate limit that hold for all processes with one store."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

from lvlm2p_wrappers.client.budget import NANO, Budget, Reservation
from lvlm2p_wrappers.client.rate_limit import RateLimiter
from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Standing

LONGEST_PAUSE_S = 1.0
"""How long until a store is looked into again, for what other processes have ended."""

T = TypeVar("T")


class Ledger(Protocol):
    """Where the processes write what they spend and when they call; its methods may take long."""

    def reserve(self, uid: str, nano: int, *, usd: int | None, calls: int | None) -> Standing:
        """Set aside what a call may cost, unless that could go over the budget."""

    def settle(self, uid: str, nano: int, *, charge: int, is_made: bool) -> None:
        """End a reservation, if it was made."""

    def start(self, uid: str, *, rpm: int, window_s: float) -> float:
        """Let a call begin, or return the seconds after which to ask again."""

    def end(self, uid: str) -> None:
        """Note that a call has ended, if it has begun."""


class LedgerThread:
    """A ledger on a thread of its own, in the order of its calls.

    Args:
        ledger: what it uses.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lvlm2p-ledger")

    async def run(self, work: Callable[[], T]) -> T:
        """Do some work to its end, even if what waits for it is given up."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    async def finish(self, work: Callable[[], Any]) -> None:
        """Do what ends a call; where the store fails, the call's lease does, and its reply is kept."""
        with suppress(StoreError):
            await self.run(work)


class SharedBudget(Budget):
    """What all processes with one store may still spend, since its beginning.

    Args:
        usd: the most to spend, in US dollars; None for no limit.
        calls: the most calls; None for no limit.
        thread: where their reservations are.
    """

    def __init__(self, usd: float | None, calls: int | None, thread: LedgerThread) -> None:
        super().__init__(usd, calls)
        self._thread = thread
        self._turn = RateLimiter(1)

    @asynccontextmanager
    async def reserve(self, usd: float, *, urgent: bool) -> AsyncIterator[Reservation]:
        """Hold a call's worst case until it ends; see :meth:`Budget.reserve`."""
        reservation, uid = Reservation(math.ceil(usd * NANO)), uuid.uuid4().hex
        settle = partial(self._thread.ledger.settle, uid, reservation.nano)
        try:
            async with self._turn.slot(urgent=urgent):
                await self._wait_for_room(uid, reservation.nano)
            yield reservation
        finally:
            charge = reservation.charge
            self._spent += charge
            self.made_calls += reservation.is_made
            await self._thread.finish(partial(settle, charge=charge, is_made=reservation.is_made))

    async def _wait_for_room(self, uid: str, nano: int) -> None:
        reserve = partial(self._thread.ledger.reserve, uid, nano, usd=self._limit, calls=self.calls)
        pause = 0.02
        while not (standing := await self._thread.run(reserve)).is_held:
            if self.calls is not None and standing.calls >= self.calls:
                self._refuse(f"{self.calls} calls", standing)
            if standing.reserved == 0:
                self._refuse(f"${self.usd:g}", standing)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_S, 2 * pause)

    def _refuse(self, limit: str, standing: Standing) -> NoReturn:
        made = f"{standing.calls} calls, ${standing.spent / NANO:.4f}, of all who share the store"
        raise self._refusal(limit, made)


class SharedRateLimiter(RateLimiter):
    """Lets calls start: at most ``concurrency`` at a time of this process, and ``rpm`` a minute of all with one store.

    Args:
        concurrency: the most calls of this process in flight.
        rpm: the most calls of all processes that arrive at the provider within any ``window_s``.
        thread: where their starts are.
        window_s: seconds.
    """

    def __init__(self, concurrency: int, rpm: int, thread: LedgerThread, *, window_s: float = 60.0) -> None:
        super().__init__(concurrency, window_s=window_s)
        self._thread = thread
        self._turn_to_start = RateLimiter(1)
        self._start = partial(thread.ledger.start, rpm=rpm, window_s=window_s)

    @asynccontextmanager
    async def slot(self, *, urgent: bool, check: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
        """Wait for the turn of a call, and hold its place while it runs; see :meth:`RateLimiter.slot`."""
        uid = uuid.uuid4().hex
        async with super().slot(urgent=urgent, check=check):
            try:
                async with self._turn_to_start.slot(urgent=urgent, check=check):
                    await self._wait_for_start(uid, check)
                yield
            finally:
                await self._thread.finish(partial(self._thread.ledger.end, uid))

    def recheck(self) -> None:
        """Have the calls that wait checked again, all at once."""
        super().recheck()
        self._turn_to_start.recheck()

    async def _wait_for_start(self, uid: str, check: Callable[[], None]) -> None:
        while True:
            check()
            delay = self._closed_until - time.monotonic()
            if delay <= 0 and (delay := await self._thread.run(partial(self._start, uid))) <= 0:
                return
            await asyncio.sleep(min(delay, LONGEST_PAUSE_S))
