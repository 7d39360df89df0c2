"""What may still be spent."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import NamedTuple

from lvlm2p_wrappers.errors import BudgetError

log = logging.getLogger(__name__)

NANO = 10**9
"""Sums are whole nano-dollars: the residue of a sum of floats could keep a call waiting for ever."""


class _Waiting(NamedTuple):
    nano: int
    turn: asyncio.Future[None]


class Budget:
    """What may still be spent. Each call reserves its worst case before it starts and settles for what it cost.

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
        self._spent = math.ceil(spent_usd * NANO)
        self._reserved = 0
        self._waiting: deque[_Waiting] = deque()
        self._warned = False

    @property
    def spent_usd(self) -> float:
        """US dollars; a call of unknown outcome at its reservation."""
        return self._spent / NANO

    @property
    def reserved_usd(self) -> float:
        """US dollars set aside for the calls under way."""
        return self._reserved / NANO

    async def reserve(self, usd: float, *, urgent: bool) -> int:
        """Set a call's worst case aside, waiting while only the calls under way leave no room for it.

        Args:
            usd: the most the call can cost.
            urgent: whether it goes before the others that wait.

        Returns:
            What was reserved, in nano-dollars, to be given to :meth:`settle`.

        Raises:
            BudgetError: if the call could go over the budget.
        """
        nano = math.ceil(usd * NANO)
        turn = asyncio.get_running_loop().create_future()
        waiting = _Waiting(nano, turn)
        self._waiting.appendleft(waiting) if urgent else self._waiting.append(waiting)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # admitted just before
                self.give_back(nano)
            raise
        return nano

    def give_back(self, reserved: int) -> None:
        """Undo a reservation: the call was not made."""
        self.made_calls -= 1
        self.settle(reserved, 0.0)

    def settle(self, reserved: int, cost: float | None) -> None:
        """Replace a reservation by the call's cost; a call of unknown outcome is charged at its reservation."""
        self._reserved -= reserved
        self._spent += reserved if cost is None else math.ceil(cost * NANO)
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

    def _refusal(self, limit: str) -> BudgetError:
        made = f"{self.made_calls} calls, ${self.spent_usd:.4f}"
        message = f"the budget of {limit} is spent ({made}); what was answered is kept"
        if not self._warned:
            self._warned = True
            log.warning("%s; going on without new labels", message)
        return BudgetError(message)
