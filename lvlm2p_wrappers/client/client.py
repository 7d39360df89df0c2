"""From a request to a reply: attempts, what ends them, and what they came to."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakSet

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.client.budget import Budget
from lvlm2p_wrappers.client.event_loop import background_loop
from lvlm2p_wrappers.client.limits import Limits
from lvlm2p_wrappers.client.litellm_backend import Request, send
from lvlm2p_wrappers.client.litellm_loader import IN_PROCESS
from lvlm2p_wrappers.client.provider_errors import USERS, FailedCallError, pause
from lvlm2p_wrappers.client.shared import LedgerThread
from lvlm2p_wrappers.errors import BudgetError, ModelError
from lvlm2p_wrappers.records import Call, Reply

Log = Callable[[Call], object]


class Client:
    """Makes calls, within the limits. Belongs to one event loop.

    Args:
        concurrency: the most calls in flight.
        rpm: the most calls a minute; None for no limit.
        budget: what may be spent.
        timeout_s: seconds after which a call without a whole answer counts as failed.
        max_retries: how often the same request is repeated after faults that may pass.
        api_bases: for each model whose server is not its provider's own, the server's address.
        starts: where all who share ``rpm`` note their calls; None if it is this process's own.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        rpm: int | None,
        budget: Budget,
        timeout_s: float,
        max_retries: int,
        api_bases: Mapping[str, str],
        starts: LedgerThread | None = None,
    ) -> None:
        self.budget = budget
        self.calls = 0
        self.cost_usd = 0.0
        self.unpriced_calls = 0
        self._limits = Limits(concurrency, rpm, budget, starts)
        self._is_limited = (rpm, budget.usd, budget.calls) != (None, None, None)
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._api_bases = api_bases
        self._checked: set[str] = set()
        self._refused: dict[str, ModelError] = {}
        self._stopped = ""
        self._sending: set[asyncio.Task[Any] | None] = set()
        self._given_up: WeakSet[asyncio.Task[Any] | None] = WeakSet()

    async def ask(self, request: Request, log: Log) -> Reply:
        """Make a call, repeating it after faults that may pass.

        Args:
            request: what to ask.
            log: told of every attempt that brought no reply, as soon as it has failed.

        Raises:
            ModelError: if the user has to mend something.
            TransportError: if no reply came, after the retries.
            BudgetError: if the budget does not allow the call.
        """
        self.check(request.model)
        attempts = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, FailedCallError) and error.retry),
            stop=stop_after_attempt(1 + self._max_retries),
            wait=pause,
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    return await self._turn(request, attempt.retry_state.attempt_number, log)
        except FailedCallError as fault:
            if isinstance(fault.error, ModelError) and (fault.status in USERS or not fault.is_sent):
                self._refused[request.model] = fault.error  # the questions that wait would get the same
                self._limits.recheck()
            raise fault.error from None
        raise AssertionError("unreachable")

    def check(self, model: str) -> None:
        """Find what would keep every call to a model from working, unless that has been done.

        Raises:
            UsageError: if there is such a thing.
        """
        if model in self._checked:
            return
        catalogue.check(model, self._api_bases.get(model))
        self._limits.check(model)
        self._checked.add(model)

    def give_up(self, task: asyncio.Task[Any]) -> None:
        """End a task that asks; where it has sent a call, that is paid for, and the task ends after it."""
        if task in self._sending:
            self._given_up.add(task)
        else:
            task.cancel()

    def raise_if_given_up(self) -> None:
        """End the running task if it was given up while it had sent a call."""
        if asyncio.current_task() in self._given_up:
            raise asyncio.CancelledError

    def stop(self, why: str) -> None:
        """Make no call more, from whatever thread; those in flight go on."""
        self._stopped = why
        background_loop().call_soon_threadsafe(self._limits.recheck)

    def go_on(self) -> None:
        """Call again, also the models that refused: what only the user could mend may be mended."""
        self._stopped = ""
        self._refused.clear()

    def _raise_if_stopped(self, model: str) -> None:
        if self._stopped:
            raise BudgetError(f"{model} was not asked: {self._stopped}")
        if refused := self._refused.get(model):
            raise ModelError(str(refused))

    async def _turn(self, request: Request, attempt: int, log: Log) -> Reply:
        """Make a call when its turn has come; a model in this process has no provider that would have to be spared."""
        self.raise_if_given_up()
        check = partial(self._raise_if_stopped, request.model)
        check()
        call = partial(self._attempt, request, attempt, log)
        try:
            if request.model.startswith(IN_PROCESS) and not self._is_limited:
                return await call()
            return await self._limits.hold(request, call, check)
        except FailedCallError:
            self.raise_if_given_up()
            raise

    async def _attempt(self, request: Request, attempt: int, log: Log) -> Reply:
        started, task = time.monotonic(), asyncio.current_task()
        self.calls += 1
        self._sending.add(task)
        try:
            reply = await send(request, timeout_s=self._timeout_s, api_base=self._api_bases.get(request.model))
        except FailedCallError as fault:
            failed = {"problem": str(fault), "status": fault.status, "latency_s": time.monotonic() - started}
            call = Call.of(request.model, request.question, request.sampling, key=request.key)
            log(call.model_copy(update={**failed, "attempt": attempt}))
            raise
        finally:
            self._sending.discard(task)
        self.unpriced_calls += reply.cost_usd is None
        self.cost_usd += reply.cost_usd or 0.0
        return dataclasses.replace(reply, attempt=attempt)
