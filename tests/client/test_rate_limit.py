"""How fast a client calls: concurrency that gives way and comes back, and requests a minute."""

import asyncio
import functools
import random
import time
from dataclasses import replace

import numpy as np
import pytest

from lvlm2p_wrappers import Teacher
from lvlm2p_wrappers.client import submit
from lvlm2p_wrappers.client.rate_limit import RateLimiter
from lvlm2p_wrappers.records import Reply
from tests.client.asking import MODEL, client, ignore, labels, request_of, views
from tests.provider import FAULTS, WIRES


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


@pytest.mark.parametrize("pace", ["all at once", "a steady trickle", "around a boundary"])
def test_no_more_calls_than_rpm_arrive_within_any_minute(pace):
    """With `rpm=20` and 64 calls at once, 40 arrived within the first 59 s: they were counted before they were sent.

    A minute is 0.3 s here.
    """

    async def play():
        limiter = RateLimiter(64, rpm=20, window_s=0.3)
        arrivals = []

        async def call(number):
            await asyncio.sleep({"all at once": 0, "a steady trickle": number / 200}.get(pace, 0.28 * (number > 19)))
            async with limiter.slot(urgent=number % 3 == 0):
                await asyncio.sleep(random.uniform(0, 0.2))  # until it arrives
                arrivals.append(time.monotonic())
                await asyncio.sleep(random.uniform(0, 0.05))  # until it is answered

        await asyncio.gather(*(call(number) for number in range(80)))
        arrivals.sort()
        assert min(later - earlier for earlier, later in zip(arrivals, arrivals[20:], strict=False)) >= 0.3
        assert arrivals[-1] - arrivals[0] < 3

    asyncio.run(play())


def test_no_more_calls_than_rpm_reach_the_provider_although_the_first_take_longest(provider, monkeypatch):
    limiter = functools.partial(RateLimiter, window_s=1.0)
    monkeypatch.setattr("lvlm2p_wrappers.client.limits.RateLimiter", limiter)
    provider.latency = 0.1
    labels(Teacher(MODEL, store=None, concurrency=64, rpm=20), views(24))
    arrivals = sorted(each.received for each in provider.log)
    assert len(arrivals) == 48
    assert min(later - earlier for earlier, later in zip(arrivals, arrivals[20:], strict=False)) >= 1.0


def test_after_ctrl_c_thousands_of_open_questions_are_not_sent_any_more_within_a_second(provider):
    """The first Ctrl-C went on paying for some 500 calls, for 41 s."""
    provider.latency = 0.5
    request, asked = request_of(next(views(1))), client(concurrency=16, max_retries=3)

    async def rush():
        tasks = [asyncio.ensure_future(asked.ask(request, ignore)) for _ in range(4000)]
        while provider.in_flight < 16:
            await asyncio.sleep(0.01)
        started = time.monotonic()
        for task in tasks:
            asked.give_up(task)
        waited_for = time.monotonic() - started
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        return waited_for, time.monotonic() - started, outcomes

    at_once, in_all, outcomes = submit(rush()).result()
    assert at_once < 1
    assert in_all < 5 + provider.latency  # a second, on an idle machine
    assert len(provider.log) == 16
    assert sum(isinstance(each, asyncio.CancelledError) for each in outcomes) == 4000 - 16
    assert sum(isinstance(each, Reply) for each in outcomes) == 16  # what is paid for is kept


@pytest.mark.parametrize("wire", ["openai", "anthropic", "vllm"])
def test_a_time_to_come_back_may_be_a_date(provider, wire):
    """`Retry-After` as a date was ignored."""
    busy = FAULTS["429_retry_after"]
    provider.faults = [replace(busy, refused=replace(busy.refused, retry_after=2.0, as_date=True))]
    Teacher(WIRES[wire].model, store=None).advise(next(views(1)))
    refused, again, *_ = provider.log
    assert 1.9 <= again.received - refused.sent < 6


@pytest.mark.parametrize("why", ["the run is over", "the key is refused"])
def test_calls_that_wait_for_a_minutes_turn_end_at_once_when_no_call_is_wanted_any_more(provider, why):
    """With `rpm=20`, thousands of questions each waited for a turn in order to find out that they were not asked."""
    provider.latency = 0.2
    provider.faults = [FAULTS["401"]] * 2 if why == "the key is refused" else ()
    request, asked = request_of(next(views(1))), client(rpm=2)
    waiting = [submit(asked.ask(request, ignore)) for _ in range(300)]
    while len(provider.log) < 2:
        time.sleep(0.01)
    if why == "the run is over":
        asked.stop(why)
    errors = [call.exception(timeout=20) for call in waiting]
    assert len(provider.log) == 2
    assert sum(why in str(error) or "refused the key" in str(error) for error in errors) >= 298
