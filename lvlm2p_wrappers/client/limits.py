"""What a call to a provider waits for: the budget, the rate limiter and, under a budget in dollars, the first bills."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable

from lvlm2p_wrappers.client import pricing
from lvlm2p_wrappers.client.budget import Budget
from lvlm2p_wrappers.client.litellm_backend import Request
from lvlm2p_wrappers.client.provider_errors import FailedCallError
from lvlm2p_wrappers.client.rate_limit import RateLimiter
from lvlm2p_wrappers.client.shared import LedgerThread, SharedRateLimiter
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.records import Reply


class Limits:
    """Holds calls to a budget and to what the providers bear. Belongs to one event loop.

    Args:
        concurrency: the most calls in flight.
        rpm: the most calls a minute; None for no limit.
        budget: what may be spent.
        starts: where all who share the rate limit note their calls; None for a limit of this process alone.
    """

    def __init__(self, concurrency: int, rpm: int | None, budget: Budget, starts: LedgerThread | None = None) -> None:
        self._budget = budget
        if rpm is None or starts is None:
            self._limiter = RateLimiter(concurrency, rpm)
        else:
            self._limiter = SharedRateLimiter(concurrency, rpm, starts)
        self._worst_case = pricing.WorstCase()
        self._one_by_one: defaultdict[Hashable, RateLimiter] = defaultdict(lambda: RateLimiter(1))

    def check(self, model: str) -> None:
        """Refuse a model whose price is not known where only that could hold the budget.

        Raises:
            UsageError: if it is such a one.
        """
        if self._budget.usd is not None and self._budget.calls is None and pricing.rates(model) is None:
            raise UsageError(
                f"{model} has no known price, so budget_usd cannot hold; limit it with budget_calls as well"
            )

    def recheck(self) -> None:
        """Have the calls that wait find out at once whether they are still wanted: their turn may be hours away."""
        for limiter in (self._limiter, *self._one_by_one.values()):
            limiter.recheck()

    async def hold(self, request: Request, call: Callable[[], Awaitable[Reply]], check: Callable[[], None]) -> Reply:
        """Make a call when its turn has come; under a budget alone, until a bill was within what was expected.

        Args:
            request: what is asked.
            call: makes the call.
            check: raises if it is not wanted any more.

        Raises:
            BudgetError: if the budget does not allow the call.
            FailedCallError: if the call fails.
        """
        if not self._is_price_sure(request):
            async with self._one_by_one[pricing.kind(request)].slot(urgent=_is_urgent(request), check=check):
                if not self._is_price_sure(request):
                    return await self._hold(request, call, check)
        return await self._hold(request, call, check)

    def _is_price_sure(self, request: Request) -> bool:
        is_free = self._budget.usd is None or not any(pricing.rates(request.model) or ())
        return is_free or self._worst_case.is_sure(request)

    async def _hold(self, request: Request, call: Callable[[], Awaitable[Reply]], check: Callable[[], None]) -> Reply:
        worst, urgent = 0.0 if self._budget.usd is None else self._worst_case.usd(request), _is_urgent(request)
        async with (
            self._budget.reserve(worst, urgent=urgent) as reservation,
            self._limiter.slot(urgent=urgent, check=check),
        ):
            check()
            started, reservation.is_made = time.monotonic(), True
            try:
                reply = await call()
            except FailedCallError as fault:
                if fault.turned_away:
                    reservation.cost_usd = 0.0
                if fault.too_many:
                    self._limiter.too_many(started, fault.wait_s)
                raise
            reservation.cost_usd = reply.cost_usd
            self._limiter.succeeded()
            self._worst_case.learn(request, reply.usage, within=reservation.charge <= reservation.nano)
            return reply


def _is_urgent(request: Request) -> bool:
    """A second stage goes first: a label is worth more than the beginning of another one."""
    return request.question.stage == "action"
