"""From a request to a reply: retries, rate limit, price and budget."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from lvlm2p_wrappers.client import pricing
from lvlm2p_wrappers.client.budget import Budget
from lvlm2p_wrappers.client.litellm_backend import Reply, Request, send
from lvlm2p_wrappers.client.provider_errors import Fault, classify
from lvlm2p_wrappers.client.rate_limit import RateLimiter
from lvlm2p_wrappers.errors import BudgetError, ModelError, UsageError
from lvlm2p_wrappers.records import Call

FIRST_PICTURE_TOKENS = 3000
"""Reserved for a picture until a first reply tells what the model really bills (gpt-4o-mini: 2,833 for a small one)."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""The pauses between attempts, where the provider names none: from the first on, each is twice as long as the last."""


class Client:
    """Makes calls, within the limits. Belongs to one event loop.

    Args:
        concurrency: the most calls in flight.
        rpm: the most calls a minute; None for no limit.
        budget: what may be spent.
        timeout_s: seconds after which a call without a whole answer counts as failed.
        max_retries: how often the same request is repeated after faults that may pass.
        api_base: the address of the model's server, where it is not the provider's own.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        rpm: int | None,
        budget: Budget,
        timeout_s: float,
        max_retries: int,
        api_base: str | None,
    ) -> None:
        self.budget = budget
        self.calls = 0
        self.cost_usd = 0.0
        self.unpriced_calls = 0
        self._limiter = RateLimiter(concurrency, rpm)
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._api_base = api_base
        self._checked: set[str] = set()
        self._refused: dict[str, ModelError] = {}
        self._stopped = ""
        self._sending: set[asyncio.Task[Any] | None] = set()
        self._given_up: WeakSet[asyncio.Task[Any] | None] = WeakSet()
        self._most_prompt_tokens: dict[str, int] = {}

    async def ask(self, request: Request, log: Callable[[Call], object]) -> Reply:
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
        for attempt in range(1, self._max_retries + 2):
            outcome = await self._turn(request, attempt, log)
            if isinstance(outcome, Reply):
                return outcome
            if not outcome.retry or attempt > self._max_retries:
                if isinstance(outcome.error, ModelError) and outcome.status in {401, 403, 404}:
                    self._refused[request.model] = outcome.error  # the questions that wait would get the same
                raise outcome.error
            self.raise_if_given_up()
            await asyncio.sleep(self._pause(attempt, outcome.wait_s))
        raise AssertionError("unreachable")

    def check(self, model: str) -> None:
        """Find what would keep every call to a model from working, unless that has been done.

        Raises:
            ModelError: if there is such a thing.
        """
        if model not in self._checked:
            pricing.check(model, self._api_base)
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
        """Make no call more; those in flight go on."""
        self._stopped = why

    def go_on(self) -> None:
        """Call again, also the models that refused: what only the user could mend may be mended."""
        self._stopped = ""
        self._refused.clear()

    def _raise_if_stopped(self, model: str) -> None:
        if self._stopped:
            raise BudgetError(f"{model} was not asked: {self._stopped}")
        if refused := self._refused.get(model):
            raise ModelError(str(refused))

    async def _turn(self, request: Request, attempt: int, log: Callable[[Call], object]) -> Reply | Fault:
        """Wait until the call may be made, and make it."""
        self.raise_if_given_up()
        self._raise_if_stopped(request.model)
        # A second stage first: a label is worth more than the beginning of another one.
        urgent = request.question.stage == "action"
        reserved = await self.budget.reserve(self._worst_case(request), urgent=urgent)
        task, is_sent = asyncio.current_task(), False
        try:
            async with self._limiter.slot(urgent=urgent):
                self._raise_if_stopped(request.model)
                is_sent = True
                self._sending.add(task)
                return await self._attempt(request, attempt, reserved, log)
        finally:
            self._sending.discard(task)
            if not is_sent:
                self.budget.give_back(reserved)

    async def _attempt(
        self, request: Request, attempt: int, reserved: float, log: Callable[[Call], object]
    ) -> Reply | Fault:
        started = time.monotonic()
        self.calls += 1
        cost: float | None = None
        try:
            reply = await send(request, timeout_s=self._timeout_s, api_base=self._api_base)
            cost = reply.cost_usd
        except Exception as error:  # noqa: BLE001 -- LiteLLM's own errors, its clients', and those of its bugs
            fault = classify(error, request.model, self._timeout_s)
            if fault.turned_away:
                cost = 0.0
            if fault.too_many:
                self._limiter.too_many(started, fault.wait_s)
            log(
                call_of(request).model_copy(
                    update={
                        "problem": str(fault.error),
                        "status": fault.status,
                        "attempt": attempt,
                        "latency_s": time.monotonic() - started,
                    }
                )
            )
            return fault
        finally:
            self.budget.settle(reserved, cost)
        self._limiter.succeeded()
        self._learn(request.model, reply)
        return dataclasses.replace(reply, attempt=attempt)

    def _learn(self, model: str, reply: Reply) -> None:
        self.unpriced_calls += reply.cost_usd is None
        self.cost_usd += reply.cost_usd or 0.0
        if reply.prompt_tokens:
            self._most_prompt_tokens[model] = max(reply.prompt_tokens, self._most_prompt_tokens.get(model, 0))

    def _worst_case(self, request: Request) -> float | None:
        """The most a call can cost, from LiteLLM's price list and the largest prompt billed so far."""
        if self.budget.usd is None:
            return None
        price = pricing.prices(request.model)
        if price is None:
            if self.budget.calls is None:
                raise UsageError(
                    f"{request.model} has no known price, so budget_usd cannot hold; limit it with budget_calls as well"
                )
            return None
        messages = request.question.messages
        guess = sum(len(m.text) // 2 + FIRST_PICTURE_TOKENS * (m.picture is not None) for m in messages)
        prompt = max(guess, int(1.2 * self._most_prompt_tokens.get(request.model, 0)))
        return price[0] * prompt + price[1] * int(request.sampling.get("max_tokens", 4096))

    @staticmethod
    def _pause(attempt: int, asked_s: float | None) -> float:
        """Seconds until the next attempt: as long as the provider asked, else twice as long each time, with jitter."""
        backoff = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.5)
        return backoff if asked_s is None else asked_s + backoff / 4


def call_of(request: Request, reply: Reply | None = None, *, key: str = "") -> Call:
    """The log's row for a request: an error until there is a reply, then a success until it is judged.

    Args:
        request: what was asked.
        reply: what came back, if anything did.
        key: that of the question which the request repairs; its own by default.
    """
    asked: dict[str, Any] = dict(
        key=key or request.key,
        stage=request.question.stage,
        env_id=request.question.env_id,
        requested_model=request.model,
        messages=request.question.messages,
        schema_text=request.question.schema.text,
        options=json.dumps(dict(request.sampling)),
    )
    if reply is None:
        return Call(**asked, reply=None, answered_model=None, outcome="error")
    return Call(
        **asked,
        reply=reply.text,
        answered_model=reply.model,
        outcome="ok",
        attempt=reply.attempt,
        latency_s=reply.latency_s,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        cost_usd=reply.cost_usd,
    )
