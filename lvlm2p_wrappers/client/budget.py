"""What may still be spent."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lvlm2p_wrappers.errors import BudgetError

log = logging.getLogger(__name__)

NANO = 10**9
"""Sums are whole nano-dollars: the residue of a sum of floats could keep a call waiting for ever."""


@dataclass
class Reservation:
    """What is set aside for one call.

    Attributes:
        nano: its worst case, in nano-dollars.
        is_made: whether the call was made; otherwise nothing is charged.
        cost_usd: what it cost; None while that is not known, and then the worst case is charged.
    """

    nano: int
    is_made: bool = False
    cost_usd: float | None = None

    @property
    def charge(self) -> int:
        """Nano-dollars to be charged."""
        return 0 if not self.is_made else self.nano if self.cost_usd is None else math.ceil(self.cost_usd * NANO)


class Budget:
    """What may still be spent. Each call reserves its worst case before it starts, and is then charged what it cost.

    Args:
        usd: the most to spend, in US dollars; None for no limit.
        calls: the most calls; None for no limit.
        spent_usd: what earlier parts of the same run have spent.
        spent_calls: how many calls they have made.
    """

    def __init__(
        self, usd: float | None = None, calls: int | None = None, *, spent_usd: float = 0.0, spent_calls: int = 0
    ) -> None:
        self.usd, self.calls = usd, calls
        self.made_calls = spent_calls
        self._limit = None if usd is None else math.floor(usd * NANO)
        self._before, self._reserved = math.ceil(spent_usd * NANO), 0
        self._spent = self._before
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._warned = False

    @property
    def spent_usd(self) -> float:
        """US dollars; calls of unknown outcome at their reservations."""
        return self._spent / NANO

    @property
    def charged_usd(self) -> float:
        """US dollars of ``spent_usd`` that were spent here."""
        return (self._spent - self._before) / NANO

    @property
    def reserved_usd(self) -> float:
        """US dollars set aside for the calls under way."""
        return self._reserved / NANO

    @asynccontextmanager
    async def reserve(self, usd: float, *, urgent: bool) -> AsyncIterator[Reservation]:
        """Hold a call's worst case until it ends, after waiting while only calls under way leave no room for it.

        Args:
            usd: the most the call can cost.
            urgent: whether it goes before the others that wait.

        Raises:
            BudgetError: if the call could go over the budget.
        """
        reservation = Reservation(math.ceil(usd * NANO))
        turn = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if urgent else self._waiting.append)((reservation.nano, turn))
        self._admit()
        try:
            await turn
            yield reservation
        finally:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # it was admitted
                self._reserved -= reservation.nano
                self._spent += reservation.charge
                self.made_calls -= not reservation.is_made
                self._admit()

    def _admit(self) -> None:
        """Let those that wait go, in turn, as far as there is room."""
        while self._waiting:
            nano, turn = self._waiting[0]
            if not turn.done():  # not cancelled while it waited
                if self.calls is not None and self.made_calls >= self.calls:
                    turn.set_exception(self._refusal(f"{self.calls} calls"))
                elif self._limit is None or self._spent + self._reserved + nano <= self._limit:
                    self.made_calls += 1
                    self._reserved += nano
                    turn.set_result(None)
                elif self._reserved == 0:
                    turn.set_exception(self._refusal(f"${self.usd:g}"))
                else:
                    return
            self._waiting.popleft()

    def _refusal(self, limit: str, made: str = "") -> BudgetError:
        made = made or f"{self.made_calls} calls, ${self.spent_usd:.4f}"
        message = f"the budget of {limit} is spent ({made}); what was answered is kept"
        if not self._warned:
            self._warned = True
            log.warning("%s; going on without new labels", message)
        return BudgetError(message)
