"""How fast, and for how much, a client calls: concurrency that gives way and comes back, and a budget that holds."""

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import BudgetError, Teacher, TeacherError
from lvlm2p_wrappers.client import Budget, Client, Request, submit
from lvlm2p_wrappers.client.rate_limit import RateLimiter
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.views import viewer
from tests.provider import FAULTS, WIRES, Provider, random_faults

MODEL = "openai/gpt-4o-mini"
PRICED = ["openai", *(pytest.param(wire, marks=pytest.mark.slow) for wire in ("gemini", "anthropic"))]
MIXED = ["429", "500", "503", "reset", "dropped_mid_body", "html", "sum_7", "thinking_ate_the_tokens"]


@pytest.fixture
def provider(monkeypatch):
    monkeypatch.setattr("lvlm2p_wrappers.client.client.FIRST_PAUSE_S", 0.02)
    with Provider() as provider:
        for name, value in provider.env.items():
            monkeypatch.setenv(name, value)
        yield provider


def views(count, first=0):
    env = gym.make("MiniGrid-Fetch-6x6-N2-v0")
    for seed in range(first, first + count):
        env.reset(seed=seed)
        yield viewer(env).view()


def labels(teacher, views):
    """What came of each view, all asked about at once: a distribution, or the error."""

    def ask(view):
        try:
            return teacher.advise(view).probs
        except TeacherError as error:
            return error

    with ThreadPoolExecutor(128) as pool:
        return list(pool.map(ask, views))


class Traffic:
    """Calls through a limiter, as many at a time as it lets."""

    def __init__(self, limiter):
        self.limiter, self.running, self.peak, self.starts = limiter, 0, 0, []

    async def call(self, *, urgent=False, takes=0.001):
        async with self.limiter.slot(urgent=urgent):
            self.starts.append(time.monotonic())
            self.running += 1
            self.peak = max(self.peak, self.running)
            await asyncio.sleep(takes)
            self.running -= 1

    async def rush(self, count):
        self.peak = 0
        await asyncio.gather(*(self.call() for _ in range(count)))
        return self.peak


def test_too_many_requests_halve_the_calls_at_a_time_and_successes_bring_them_back_one_a_round():
    async def play():
        limiter = RateLimiter(8)
        traffic = Traffic(limiter)
        assert await traffic.rush(40) == 8
        limiter.too_many(time.monotonic(), None)
        assert await traffic.rush(40) == 4
        for _ in range(5):
            limiter.succeeded()
        assert await traffic.rush(40) == 5
        for _ in range(100):
            limiter.succeeded()
        assert await traffic.rush(40) == 8

    asyncio.run(play())


def test_refusals_of_calls_that_were_under_way_together_count_once():
    async def play():
        limiter = RateLimiter(16)
        together = time.monotonic()
        for _ in range(10):
            limiter.too_many(together, None)
        assert await Traffic(limiter).rush(40) == 8
        for _ in range(10):
            limiter.too_many(time.monotonic(), None)
        assert await Traffic(limiter).rush(3) == 1  # and never none

    asyncio.run(play())


def test_nothing_starts_before_the_time_that_the_provider_asked_for():
    async def play():
        limiter = RateLimiter(8)
        traffic = Traffic(limiter)
        refused = time.monotonic()
        limiter.too_many(refused, 0.3)
        limiter.too_many(refused, 0.1)  # a later answer does not shorten an earlier one
        await traffic.rush(3)
        assert 0.3 <= min(traffic.starts) - refused < 1

    asyncio.run(play())


def test_an_urgent_call_goes_before_the_others_that_wait_and_one_that_gave_up_takes_no_place():
    async def play():
        traffic, order = Traffic(RateLimiter(1)), []

        async def call(name, *, urgent):
            await traffic.call(urgent=urgent)
            order.append(name)

        calls = [asyncio.ensure_future(call(name, urgent=False)) for name in ("first", "second", "third", "fourth")]
        await asyncio.sleep(0)
        calls.append(asyncio.ensure_future(call("urgent", urgent=True)))
        await asyncio.sleep(0)
        calls[2].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert order == ["first", "urgent", "second", "fourth"]
        assert traffic.peak == 1

    asyncio.run(play())


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_no_call_starts_while_one_was_asked_to_come_back_later(provider, wire):
    provider.latency = 0.02
    provider.faults = [None] * 5 + [FAULTS["429_retry_after"]]  # "in 1 s": as a header, and as Gemini says it
    teacher = Teacher(WIRES[wire].model, store=None, concurrency=4)
    assert all(isinstance(label, np.ndarray) for label in labels(teacher, views(6)))
    (refused,) = (exchange for exchange in provider.log if exchange.status == 429)
    after = [each.received - refused.sent for each in provider.log]
    assert len([seconds for seconds in after if seconds > 1]) >= 4
    assert not [seconds for seconds in after if 0.5 < seconds < 1]  # before, some may not have heard of it yet


def test_a_provider_that_refuses_is_asked_less_at_a_time_until_it_does_not(provider):
    provider.latency = 0.05
    provider.faults = lambda _: FAULTS["429"] if provider.in_flight > 4 else None
    teacher = Teacher(MODEL, store=None, concurrency=12, max_retries=30)
    labels(teacher, views(12))
    provider.peak_in_flight = 0
    labels(teacher, views(12, first=100))
    assert 2 <= provider.peak_in_flight <= 8
    provider.faults, provider.latency = (), 0.2
    labels(teacher, views(50, first=200))
    assert provider.peak_in_flight > 8


@pytest.mark.parametrize(
    "fault", ["time_out", "endless_drip", "reset", "dropped_mid_body", "html", "invalid_utf8", "500", "408"]
)
@pytest.mark.parametrize("wire", PRICED)
def test_a_call_of_unknown_outcome_is_charged_at_its_reservation(provider, wire, fault):
    spent, reserved = spend(provider, WIRES[wire].model, fault)
    assert spent == reserved > provider.cost_usd


@pytest.mark.parametrize("fault", ["400", "401", "403", "404", "413", "429", "503", "529"])
@pytest.mark.parametrize("wire", PRICED)
def test_a_call_that_the_provider_refused_is_not_charged(provider, wire, fault):
    assert spend(provider, WIRES[wire].model, fault)[0] == provider.cost_usd == 0


def test_a_call_that_is_given_up_before_it_is_made_costs_no_budget(provider):
    provider.latency = 0.3
    budget = Budget(usd=1.0)
    client = Client(concurrency=1, rpm=None, budget=budget, timeout_s=20, max_retries=0, api_bases={})
    first, second = (submit(client.ask(request_of(each), lambda _: None)) for each in views(2))
    while not provider.log:
        time.sleep(0.01)
    second.cancel()
    first.result()
    assert budget.made_calls == len(provider.log) == 1
    assert budget.spent_usd + budget.reserved_usd == pytest.approx(provider.cost_usd)


def request_of(view, model=MODEL):
    question = PromptSet(None, view.env_info.family).analysis(view)
    return Request(model, question, question.sampling)


def spend(provider, model, fault):
    """What a budget is charged for one failed call, and what was reserved for it."""

    class Watched(Budget):
        async def reserve(self, usd, *, urgent):
            reserved = await super().reserve(usd, urgent=urgent)
            self.reserved = self.reserved_usd
            return reserved

    provider.faults = [FAULTS[fault]]
    budget = Watched(usd=1.0)
    slow = fault in ("time_out", "endless_drip")
    client = Client(concurrency=1, rpm=None, budget=budget, timeout_s=1.5 if slow else 20, max_retries=0, api_bases={})
    with pytest.raises(TeacherError):
        submit(client.ask(request_of(next(views(1)), model), lambda _: None)).result()
    assert len(provider.log) == 1
    return budget.spent_usd, budget.reserved


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["openai", "gemini", "anthropic"])
def test_a_budget_holds_by_the_providers_count_with_64_calls_in_flight_and_every_third_failing(provider, wire):
    provider.faults = itertools.chain([None] * 66, random_faults(0.3, names=MIXED))
    budget = {"openai": 0.08, "gemini": 0.05, "anthropic": 0.5}[wire]
    teacher = Teacher(WIRES[wire].model, store=None, budget_usd=budget, concurrency=64, max_tokens=512, max_retries=3)
    labels(teacher, views(1, first=1000))  # the first bill comes alone
    provider.together = 50
    found = labels(teacher, list(views(150)))
    assert provider.peak_in_flight >= 50
    assert budget / 4 < provider.cost_usd <= budget
    assert {exchange.fault for exchange in provider.log} == {None, *MIXED}
    assert {type(each) for each in found} >= {np.ndarray, BudgetError}
