"""A budget holds, whatever a provider says that its replies took and cost."""

import asyncio
import itertools
import logging
import os
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvlm2p_wrappers import BudgetError, Teacher, TeacherError, UsageError
from lvlm2p_wrappers.client import Budget, pricing, submit
from lvlm2p_wrappers.client.litellm_loader import load_litellm
from tests.client.asking import MODEL, client, ignore, labels, request_of, views
from tests.provider import FAULTS, WIRES, Provider, random_faults
from tests.provider.conversation import Refused

PRICED = ["openai", *(pytest.param(wire, marks=pytest.mark.slow) for wire in ("gemini", "anthropic"))]
MIXED = ["429", "500", "503", "reset", "dropped_mid_body", "html", "sum_7", "thinking_ate_the_tokens"]
USAGES = ["usage_missing", "usage_zero", "usage_negative", "usage_absurd"]


class Watched(Budget):
    """A budget that remembers the most that was ever set aside."""

    reserved = 0.0

    @asynccontextmanager
    async def reserve(self, usd, *, urgent):
        async with super().reserve(usd, urgent=urgent) as reservation:
            self.reserved = max(self.reserved, self.reserved_usd)
            yield reservation


def spend(provider, model, fault):
    """What a budget is charged for one call, and what was reserved for it."""
    slow = fault in ("time_out", "endless_drip")
    if slow:  # the first call of a process takes longer
        submit(client().ask(request_of(next(views(1)), model), ignore)).result()
        provider.log.clear()
    provider.faults = [FAULTS[fault]]
    budget = Watched(usd=1.0)
    asked = client(budget=budget, timeout_s=1.5 if slow else 20)
    submitted = submit(asked.ask(request_of(next(views(1)), model), ignore))
    failed = submitted.exception() is not None
    assert len(provider.log) == 1
    return budget.spent_usd, budget.reserved, failed


@pytest.mark.parametrize(
    "fault",
    ["time_out", "endless_drip", "reset", "dropped_mid_body", "html", "500", "500_in_other_words", "408", "gzip_bomb"],
)
@pytest.mark.parametrize("wire", PRICED)
def test_a_call_of_unknown_outcome_is_charged_at_its_reservation(provider, wire, fault):
    spent, reserved, failed = spend(provider, WIRES[wire].model, fault)
    assert failed
    assert spent == reserved > provider.cost_usd


@pytest.mark.parametrize("fault", USAGES)
@pytest.mark.parametrize("wire", PRICED)
def test_a_reply_whose_usage_cannot_be_true_is_charged_at_its_reservation(provider, wire, fault):
    """A provider that reports no usage, zeros, negative or absurd counts could be called without limit, or for less.

    Counts of 2**63 ended the run in an OverflowError.
    """
    spent, reserved, failed = spend(provider, WIRES[wire].model, fault)
    assert failed == (fault == "usage_missing" and wire != "openai")  # LiteLLM cannot read the others' without it
    assert spent == reserved > provider.cost_usd


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("said", [{"code": 429}, {"type": "overloaded_error"}])
@pytest.mark.parametrize("wire", PRICED)
def test_an_error_is_charged_by_its_status_whatever_its_body_says(provider, monkeypatch, wire, said, status):
    """A 500 whose body said code 429 was charged nothing: the body's word took the place of the status."""
    monkeypatch.setitem(FAULTS, "coded", replace(FAULTS["500"], refused=Refused(status, "")))
    body = {"type": "error", "error": {"message": "Busy"} | said}
    monkeypatch.setattr(type(WIRES[wire]), "error", lambda *_: (body, {}))
    spent, reserved, failed = spend(provider, WIRES[wire].model, "coded")
    assert failed
    assert spent == reserved > 0


@pytest.mark.parametrize("wire", PRICED)
def test_tokens_beyond_max_tokens_are_charged_as_the_provider_counts_them(provider, wire):
    """A reply billed at more than `max_tokens`, as some models' thinking is, was charged at its lower reservation."""
    spent, reserved, _ = spend(provider, WIRES[wire].model, "usage_beyond_max_tokens")
    assert spent > reserved
    assert spent == pytest.approx(WIRES[wire].price[1] * 16_000 / 1e6, rel=0.15)


@pytest.mark.parametrize("fault", ["own_price", "other_model"])
@pytest.mark.parametrize("wire", PRICED)
def test_no_header_no_field_and_no_other_models_name_sets_the_price(provider, wire, fault):
    """A provider's cost header of -$10 was taken off what had been spent, and a cheaper model's name lowered it."""
    spent, _, failed = spend(provider, WIRES[wire].model, fault)
    assert not failed
    assert spent == pytest.approx(provider.cost_usd, abs=2e-9)


@pytest.mark.parametrize("fault", ["400", "401", "403", "404", "413", "429", "503", "529", "redirect"])
@pytest.mark.parametrize("wire", PRICED)
def test_a_call_that_the_provider_refused_is_not_charged(provider, wire, fault):
    assert spend(provider, WIRES[wire].model, fault) == (0, pytest.approx(0, abs=0.1), True)
    assert provider.cost_usd == 0


def test_replies_of_unknown_usage_are_counted_as_unpriced_and_end_at_the_budget(provider):
    """With `usage` left out, a budget of one cent let 400 calls pass."""
    provider.faults = lambda _: FAULTS["usage_missing"]
    teacher = Teacher(MODEL, store=None, budget_usd=0.05)
    found = labels(teacher, views(20))
    assert 1 < len(provider.log) < 20
    assert {type(each) for each in found} == {np.ndarray, BudgetError}
    assert teacher.counters.unpriced_calls == len(provider.log)
    assert teacher.counters.cost_usd == 0


def test_pictures_of_any_price_are_let_go_only_after_the_first_bill(provider):
    """Pictures billed at more than 3,000 tokens, 64 calls at once, took $0.0618 of a budget of $0.05."""
    provider.tokens_per_picture, provider.latency = 20_000, 0.1
    teacher = Teacher(MODEL, store=None, budget_usd=0.05, concurrency=64)
    labels(teacher, views(40))
    assert 0.03 < provider.cost_usd <= 0.05
    assert provider.peak_in_flight > 1


def test_calls_go_one_at_a_time_until_a_bill_is_within_what_was_expected_and_again_after_one_that_is_not():
    request, worst = request_of(next(views(1))), pricing.WorstCase()
    cheap, dear = pricing.Usage(500, 50, 0), pricing.Usage(20_000, 50, 0)
    assert not worst.is_sure(request)
    first = worst.usd(request)
    for usage in (None, cheap, dear, dear):
        within = usage is not None and pricing.cost(MODEL, usage) <= worst.usd(request)
        worst.learn(request, usage, within=within)
        assert worst.is_sure(request) == within
        if usage is cheap:
            assert pricing.cost(MODEL, cheap) < worst.usd(request) < first
    assert worst.is_sure(request)
    assert worst.usd(request) > pricing.cost(MODEL, dear)


def test_a_provider_that_reports_no_usage_is_asked_one_call_at_a_time_labels_first(provider):
    provider.faults, provider.latency = lambda _: FAULTS["usage_zero"], 0.02
    labels(Teacher(MODEL, store=None, budget_usd=1.0), views(4))
    assert provider.peak_in_flight == 1
    is_action = [each.seen.asks_for_an_action for each in provider.log]
    assert len(is_action) == 8
    assert sum(is_action[:5]) >= 2  # an analysis goes first only while no action waits


def test_a_call_that_is_given_up_before_it_is_made_costs_no_budget(provider):
    provider.latency = 0.3
    budget = Budget(usd=1.0)
    asked = client(concurrency=1, budget=budget)
    first, second = (submit(asked.ask(request_of(each), ignore)) for each in views(2))
    while not provider.log:
        time.sleep(0.01)
    second.cancel()
    first.result()
    assert budget.made_calls == len(provider.log) == 1
    assert budget.spent_usd + budget.reserved_usd == pytest.approx(provider.cost_usd, abs=2e-9)


def test_what_a_run_spent_before_it_was_resumed_counts(provider):
    full = Teacher(MODEL, store=None, budget_usd=1.0, spent_usd=0.9999)
    with pytest.raises(BudgetError, match=r"\$1 is spent \(0 calls, \$0.9999\)"):
        full.advise(next(views(1)))
    with pytest.raises(BudgetError, match="5 calls is spent"):
        Teacher(MODEL, store=None, budget_calls=5, spent_calls=4).advise(next(views(1)))
    assert len(provider.log) == 1


def test_a_fallback_without_a_price_is_told_before_anything_is_paid(provider):
    """It was told only when the fallback was needed, after the first model's calls had been paid for."""
    teacher = Teacher(MODEL, store=None, budget_usd=1.0, fallback_models=["hosted_vllm/my-model"])
    with pytest.raises(UsageError, match="hosted_vllm/my-model has no known price, so budget_usd cannot hold"):
        teacher.advise(next(views(1)))
    assert not provider.log


def test_thousands_of_calls_that_wait_for_the_last_dollars_end(caplog):
    """A residue of 5e-12 dollars, left by a sum of floats, kept 4,096 open calls waiting for ever."""
    caplog.set_level(logging.WARNING)

    async def play():
        budget = Budget(usd=1000.0)

        async def call(number):
            async with budget.reserve(0.7 + number / 3e5, urgent=number % 2 == 0) as reservation:
                await asyncio.sleep(0)
                reservation.is_made, reservation.cost_usd = True, 0.1 + number / 7e5

        outcomes = await asyncio.gather(*(call(number) for number in range(20_000)), return_exceptions=True)
        assert {type(each) for each in outcomes} == {type(None), BudgetError}
        assert 999 < budget.spent_usd <= 1000
        assert budget.reserved_usd == 0

    asyncio.run(asyncio.wait_for(play(), 60))
    ours = [record for record in caplog.records if record.name.startswith("lvlm2p_wrappers")]
    assert len(ours) == 1  # of the end of the budget, once


CALLS = st.tuples(st.floats(0, 2), st.one_of(st.none(), st.floats(0, 1)), st.booleans(), st.integers(0, 6))


@settings(max_examples=200, deadline=None)
@given(
    usd=st.one_of(st.none(), st.floats(0, 5)),
    most=st.one_of(st.none(), st.integers(0, 20)),
    calls=st.lists(CALLS, max_size=40),
    given_up=st.sets(st.integers(0, 39)),
)
def test_whatever_calls_cost_and_whenever_they_end_no_more_is_set_aside_than_is_left(usd, most, calls, given_up):
    async def play():
        budget, costs = Budget(usd, most), []

        async def call(worst, share, urgent, turns):
            async with budget.reserve(worst, urgent=urgent) as reservation:
                assert usd is None or budget.spent_usd + budget.reserved_usd <= usd
                for _ in range(turns):
                    await asyncio.sleep(0)
                reservation.is_made, reservation.cost_usd = True, None if share is None else share * worst
                costs.append(worst if share is None else share * worst)

        tasks = [asyncio.ensure_future(call(*each)) for each in calls]
        await asyncio.sleep(0)
        for number in given_up & set(range(len(tasks))):
            tasks[number].cancel()
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert {type(each) for each in outcomes} <= {type(None), BudgetError, asyncio.CancelledError}
        assert budget.made_calls == len(costs) <= (len(calls) if most is None else most)
        assert 0 <= budget.spent_usd - sum(costs) + 1e-12 <= 1e-9 * len(costs) + 2e-12  # rounded up
        assert usd is None or budget.spent_usd <= usd
        assert budget.reserved_usd == 0

    asyncio.run(play())


@pytest.fixture(scope="module")
def server():
    with Provider() as server:
        yield server


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    wire=st.sampled_from(["openai", "gemini", "anthropic"]),
    tokens=st.integers(0, 50_000),
    room=st.floats(1, 8),
    faults=st.lists(st.sampled_from([None, *USAGES, "own_price", "other_model", *MIXED]), max_size=20),
)
def test_a_budget_holds_for_whatever_a_provider_reports_after_its_first_bill(server, wire, tokens, room, faults):
    server.log.clear()
    server.tokens_per_picture = tokens
    server.faults = [None, *(FAULTS.get(fault) for fault in faults)]
    os.environ.update(server.env)  # the fixture that clears the keys has begun before, and ends after all examples
    sent, received = WIRES[wire].price
    budget = Budget(usd=room * (sent * (tokens + 12_000) + received * 512) / 1e6)
    asked = client(budget=budget, max_retries=1)

    async def ask(each):
        request = request_of(each, WIRES[wire].model)
        return await asked.ask(type(request)(request.model, request.question, {"max_tokens": 512}), ignore)

    calls = [submit(ask(each)) for each in views(12)]
    failures = [call.exception() for call in calls]
    assert all(failure is None or isinstance(failure, TeacherError) for failure in failures)
    assert 0 < server.cost_usd <= budget.spent_usd + 1e-9
    assert budget.spent_usd <= budget.usd


@given(cached=st.one_of(st.none(), st.integers(0, 10**6), st.floats(), st.text()))
def test_a_discount_for_cached_tokens_is_no_larger_than_our_own_list_says(cached):
    request = SimpleNamespace(model=MODEL, sampling={"max_tokens": 100})
    usage = SimpleNamespace(
        prompt_tokens=1000, completion_tokens=10, prompt_tokens_details=SimpleNamespace(cached_tokens=cached)
    )
    cost = pricing.cost(MODEL, pricing.checked(usage, request, "ten tokens"))
    assert 0.075e-6 * 1000 + 6e-6 <= cost <= 0.15e-6 * 1000 + 6e-6
    assert (cost < 156e-6) == (type(cached) is int and 0 < cached <= 1000)


def test_counts_that_contradict_each_other_are_read_the_dearest_way():
    """Thinking that was in the total alone was not charged; a negative count of cached tokens was a discount."""
    request = SimpleNamespace(model="anthropic/claude-haiku-4-5", sampling={"max_tokens": 100})

    def cost(written=10, total=1010, thinking=None, **of_prompt):
        details = SimpleNamespace(**of_prompt), SimpleNamespace(reasoning_tokens=thinking)
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        counts = dict(zip(names, (1000, written, total), strict=True))
        usage = SimpleNamespace(**counts, prompt_tokens_details=details[0], completion_tokens_details=details[1])
        return pricing.cost(request.model, pricing.checked(usage, request, "text"))

    assert cost() == pytest.approx(1050e-6)
    assert cost(total=3000) == cost(thinking=2000) == pytest.approx(11_000e-6)
    assert cost(cache_creation_tokens=1000) == pytest.approx(1300e-6)
    assert cost(cached_tokens=1000, cache_creation_tokens=1000) == pytest.approx(150e-6)
    assert cost(cached_tokens=-500) is cost(total=2**40) is cost(written=-1) is None


@pytest.mark.usefixtures("provider")
def test_fees_are_charged_and_what_the_list_cannot_price_is_refused(monkeypatch):
    """Fees for each call and picture were left out, and a price of 0, the list's word for an unknown one, was free."""
    entry = {"litellm_provider": "openai", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
    prices = {
        "openai/fees": entry | {"input_cost_per_request": 0.01, "input_cost_per_image": 0.001},
        "openai/zero": entry | {"input_cost_per_token": 0, "output_cost_per_token": 0},
        "openai/half": {"litellm_provider": "openai", "input_cost_per_token": 1e-6},
        "openai/gpt-search": entry | {"search_context_cost_per_query": {"search_context_size_low": 0.03}},
    }
    for name, each in prices.items():
        monkeypatch.setitem(load_litellm().model_cost, name, each)
    assert pricing.cost("openai/fees", pricing.Usage(100, 100, 0), pictures=2) == pytest.approx(0.0122)
    fees = pricing.WorstCase().usd(replace(request_of(next(views(1))), model="openai/fees"))
    assert fees > 0.011 + 4096e-6
    for name in ("openai/zero", "openai/half", "openai/gpt-search"):
        with pytest.raises(UsageError, match="no known price"):
            client(budget=Budget(usd=1.0)).check(name)


def test_a_price_is_that_of_the_model_string_not_of_another_providers_model_of_the_same_name():
    assert pricing.rates("openai/gpt-4o-mini").prompt == 0.15e-6
    assert pricing.rates("hosted_vllm/gpt-4o-mini") is None
    assert pricing.rates("ollama_chat/gpt-4o-mini") == (0, 0, 0, 0, 0, 0)
    long, short = (pricing.rates("gemini/gemini-2.5-pro", tokens) for tokens in (250_000, 1000))
    assert long.prompt > short.prompt


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
