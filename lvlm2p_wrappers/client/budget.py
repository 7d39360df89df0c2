"""What may still be spent."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from lvlm2p_wrappers.errors import BudgetError

log = logging.getLogger(__name__)


class Budget:
    """What may still be spent. Each call reserves its worst case before it starts and settles for what it cost.

    Args:
        usd: the most to spend, in US dollars; None for no limit.
        calls: the most calls; None for no limit.
    """

    def __init__(self, usd: float | None = None, calls: int | None = None) -> None:
        self.usd, self.calls = usd, calls
        self.spent_usd = 0.0
        self.made_calls = 0
        self._reserved_usd = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._said = False

    async def reserve(self, usd: float | None, *, urgent: bool) -> float:
        """Set a call's worst case aside, waiting while only the calls under way leave no room for it.

        Args:
            usd: the most the call can cost; None if the model has no known price.
            urgent: whether it goes before the others that wait.

        Returns:
            What was reserved, to be given to :meth:`settle`.

        Raises:
            BudgetError: if the call could go over the budget.
        """
        worst = usd or 0.0
        while self.usd is not None and self.spent_usd + self._reserved_usd + worst > self.usd:
            if self._reserved_usd < 1e-12:
                raise self._spent(f"${self.usd:g}")
            turn = asyncio.get_running_loop().create_future()
            self._waiting.appendleft(turn) if urgent else self._waiting.append(turn)
            await turn
        if self.calls is not None and self.made_calls >= self.calls:
            raise self._spent(f"{self.calls} calls")
        self.made_calls += 1
        self._reserved_usd += worst
        return worst

    def give_back(self, reserved: float) -> None:
        """Undo a reservation: the call was not made."""
        self.made_calls -= 1
        self.settle(reserved, 0.0)

    def settle(self, reserved: float, cost: float | None) -> None:
        """Replace a reservation by the call's cost; a call of unknown outcome is charged at its reservation."""
        self._reserved_usd -= reserved
        self.spent_usd += reserved if cost is None else cost
        waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)

    def _spent(self, limit: str) -> BudgetError:
        made = f"{self.made_calls} calls, ${self.spent_usd:.4f}"
        message = f"the budget of {limit} is spent ({made}); what was answered is kept"
        if not self._said:
            self._said = True
            log.warning("%s; going on without new labels", message)
        return BudgetError(message)
