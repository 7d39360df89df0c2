"""The stand-in for model providers: what LiteLLM sends arrives, and LiteLLM understands what it sends."""

import asyncio
import base64
import io
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import aiohttp
import litellm
import openai
import pytest
from PIL import Image

from tests.provider import FAULTS, WIRES, Provider, RateLimit, closed_url, environment, random_faults

ACTIONS = ["left", "right", "forward"]
POLICY = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string"},
        "probabilities": {
            "type": "object",
            "properties": {action: {"type": "number"} for action in ACTIONS},
            "required": ACTIONS,
            "additionalProperties": False,
        },
    },
    "required": ["reasoning", "probabilities"],
    "additionalProperties": False,
}
REFUSALS = [name for name, fault in FAULTS.items() if fault.kind == "http"]


@pytest.fixture
def provider(monkeypatch):
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    monkeypatch.setenv("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
    with Provider(drip=0.2) as provider:
        for name, value in provider.env.items():
            monkeypatch.setenv(name, value)
        yield provider


@pytest.fixture(scope="module")
def loop():
    """LiteLLM keeps its connections for the life of a loop: one loop, then, for all tests."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def ask(loop):
    """Ask a model by its wire's name, or by its own; the call has 5 s."""

    def ask(name, picture=None, **options):
        return loop.run(_completion(name, picture, **options))

    return ask


async def _completion(name, picture=None, **options):
    model = WIRES[name].model if name in WIRES else name
    content = [{"type": "text", "text": "Mission: go"}]
    if picture is not None:
        url = "data:image/png;base64," + base64.b64encode(picture).decode()
        content.append({"type": "image_url", "image_url": {"url": url}})
    wanted = {"type": "json_schema", "json_schema": {"name": "policy", "strict": True, "schema": POLICY}}
    settings = {"response_format": wanted, "temperature": 0, "max_tokens": 512, "timeout": 5} | options
    messages = [{"role": "system", "content": "You are a teacher."}, {"role": "user", "content": content}]
    call = litellm.acompletion(
        model=model, messages=messages, num_retries=0, max_retries=0, drop_params=True, **settings
    )
    return await asyncio.wait_for(call, 5)


def png(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def probabilities(response):
    return json.loads(response.choices[0].message.content)["probabilities"]


@pytest.mark.parametrize("wire", WIRES)
def test_a_picture_its_text_and_a_schema_arrive_and_a_fitting_answer_comes_back(provider, ask, wire):
    response = ask(wire, png(1))
    (exchange,) = provider.log
    seen = exchange.seen
    assert [(turn.role, turn.text) for turn in seen.turns] == [
        ("system", "You are a teacher."),
        ("user", "Mission: go"),
    ]
    assert seen.pictures == (png(1),)
    assert seen.schema == POLICY
    assert seen.key in (WIRES[wire].key, None)
    assert (seen.options["temperature"], seen.options["max_tokens"]) == (0, 512)
    assert response.choices[0].message.content == exchange.answer
    assert list(probabilities(response)) == ACTIONS
    assert sum(probabilities(response).values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize("wire", WIRES)
def test_equal_pictures_get_equal_answers_and_different_ones_do_not(ask, wire):
    first, again, other = (probabilities(ask(wire, png(shade))) for shade in (1, 1, 2))
    assert first == again
    assert first != other


def test_an_older_anthropic_model_is_forced_to_answer_through_a_tool(provider, ask):
    response = ask("anthropic/claude-3-haiku-20240307", png(1))
    (exchange,) = provider.log
    assert exchange.seen.options["tool"] == "json_tool_call"
    assert exchange.seen.schema == POLICY
    assert probabilities(response) == json.loads(exchange.answer)["probabilities"]


@pytest.mark.parametrize("wire", ["openai", "gemini", "anthropic"])
def test_litellm_and_the_provider_count_the_same_cost(provider, ask, wire):
    response = ask(wire, png(1))
    assert provider.cost_usd > 0
    assert response._hidden_params["response_cost"] == pytest.approx(provider.cost_usd)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_reaches_the_client_as_an_error_and_costs_nothing(provider, ask, wire, fault):
    provider.faults = [FAULTS[fault]]
    with pytest.raises(openai.APIError):
        ask(wire, png(1))
    (exchange,) = provider.log
    assert exchange.status == FAULTS[fault].refused.status
    assert exchange.answer is None
    assert provider.cost_usd == 0


@pytest.mark.parametrize("wire", ["openai", "gemini", "vllm"])
def test_only_one_refusal_repeats_the_key(provider, ask, wire):
    def echoes(fault):
        provider.faults = [FAULTS[fault]]
        with pytest.raises(openai.APIError) as caught:
            ask(wire)
        return WIRES[wire].key in str(caught.value)

    assert [fault for fault in REFUSALS if echoes(fault)] == ["401_echoing_key"]


@pytest.mark.parametrize("wire", ["openai", "anthropic", "ollama", "vllm"])
def test_retry_after_is_a_header_where_the_provider_has_one(provider, ask, wire):
    provider.faults = [FAULTS["429_retry_after"]]
    with pytest.raises(litellm.RateLimitError) as caught:
        ask(wire)
    assert caught.value.litellm_response_headers["retry-after"] == "1"


def test_gemini_says_in_the_body_when_to_come_back(provider, ask):
    provider.faults = [FAULTS["429_retry_after"]]
    with pytest.raises(litellm.RateLimitError, match='"retryDelay": "1s"') as caught:
        ask("gemini")
    assert "retry-after" not in caught.value.litellm_response_headers


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", ["html", "invalid_utf8", "dropped_mid_body"])
def test_a_broken_reply_is_an_error_to_the_client_but_is_charged(provider, ask, wire, fault):
    provider.faults = [FAULTS[fault]]
    with pytest.raises(openai.APIError):
        ask(wire, png(1))
    (exchange,) = provider.log
    assert exchange.fault == fault
    assert exchange.tokens > (0, 0)


def test_a_reset_connection_brings_nothing_back(provider, ask):
    provider.faults = [FAULTS["reset"]]
    with pytest.raises(litellm.InternalServerError, match="Connection error"):
        ask("openai")
    assert [exchange.status for exchange in provider.log] == [None]


def test_nobody_listens_on_a_closed_url(monkeypatch, ask):
    for name, value in environment(closed_url()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(litellm.InternalServerError, match="Cannot connect"):
        ask("anthropic")


@pytest.mark.parametrize("wire", WIRES)
def test_a_reply_that_never_comes_ends_when_the_client_leaves(provider, ask, wire):
    provider.faults = [FAULTS["time_out"]]
    with pytest.raises(litellm.Timeout):
        ask(wire, timeout=0.3)
    patience = time.monotonic() + 5
    while provider.in_flight and time.monotonic() < patience:
        time.sleep(0.01)
    assert provider.in_flight == 0


@pytest.mark.parametrize("wire", WIRES)
def test_a_slow_drip_arrives_and_an_endless_one_does_not(provider, wire, loop):
    provider.faults = [FAULTS["slow_drip"], FAULTS["endless_drip"]]

    async def both():
        response = await _completion(wire, timeout=5)
        with pytest.raises(TimeoutError):  # LiteLLM's own time-out sees a byte now and then, and is content
            await asyncio.wait_for(_completion(wire, timeout=0.3), 1.0)
        return response

    assert probabilities(loop.run(both()))
    assert [exchange.status for exchange in provider.log] == [200, None]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", ["empty_choices", "content_none", "refusal", "thinking_ate_the_tokens"])
def test_a_reply_without_an_answer_has_no_usable_text(provider, ask, wire, fault):
    provider.faults = [FAULTS[fault]]
    response = ask(wire, png(1))
    texts = [choice.message.content or "" for choice in response.choices]
    assert not any(text.startswith("{") for text in texts)


@pytest.mark.parametrize(
    ("wire", "finish"),
    [
        ("openai", "stop"),
        ("vllm", "stop"),
        ("ollama", "stop"),
        ("gemini", "content_filter"),
        ("anthropic", "content_filter"),
    ],
)
def test_each_provider_refuses_to_answer_in_its_own_way(provider, ask, wire, finish):
    provider.faults = [FAULTS["refusal"]]
    (choice,) = ask(wire, png(1)).choices
    assert choice.finish_reason == finish
    fields = getattr(choice.message, "provider_specific_fields", None) or {}
    says = (choice.message.content or "") + (fields.get("refusal") or "")
    assert says.startswith("I'm sorry") == (finish == "stop")


def test_anthropic_filters_an_answer_with_an_error_and_charges_for_it(provider, ask):
    provider.faults = [FAULTS["content_filter"]]
    with pytest.raises(litellm.BadRequestError, match="content filtering policy"):
        ask("anthropic", png(1))
    assert provider.cost_usd > 0


@pytest.mark.parametrize("wire", WIRES)
def test_truncation_is_half_a_text_that_says_so(provider, ask, wire):
    provider.faults = [FAULTS["truncated"]]
    (choice,) = ask(wire, png(1)).choices
    assert choice.finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(choice.message.content)


SPOILT = {
    "missing_action": lambda p: list(p) == ACTIONS[1:],
    "unknown_action": lambda p: "teleport" in p,
    "negative": lambda p: p["left"] < 0,
    "nan": lambda p: math.isnan(p["left"]),
    "infinity": lambda p: math.isinf(p["left"]),
    "strings": lambda p: all(isinstance(value, str) for value in p.values()),
    "sum_0": lambda p: sum(p.values()) == 0,
    "sum_0.97": lambda p: sum(p.values()) == pytest.approx(0.97, abs=1e-4),
    "sum_1.3": lambda p: sum(p.values()) == pytest.approx(1.3, abs=1e-4),
    "sum_7": lambda p: sum(p.values()) == pytest.approx(7, abs=1e-4),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_distribution_arrives_spoilt(provider, ask, wire, fault):
    provider.faults = [FAULTS[fault]]
    assert SPOILT[fault](probabilities(ask(wire, png(1))))


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", ["malformed_json", "fenced_json", "json_after_prose", "ten_megabytes"])
def test_a_text_that_is_more_or_less_than_json_arrives_as_it_was_sent(provider, ask, wire, fault):
    provider.faults = [FAULTS[fault]]
    text = ask(wire, png(1)).choices[0].message.content
    assert text == provider.log[0].answer
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


@pytest.mark.usefixtures("provider")
def test_a_stranger_is_refused_in_the_words_of_each_provider(ask, monkeypatch):
    for variable in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(variable, "made-up")
    for wire in ("openai", "gemini", "anthropic"):
        with pytest.raises(litellm.AuthenticationError):
            ask(wire)


@pytest.mark.usefixtures("provider")
def test_a_retired_model_is_not_found(ask):
    with pytest.raises(litellm.NotFoundError, match="is not found for API version"):
        ask("gemini/gemini-1.5-flash")


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize("wire", ["anthropic", "ollama"])
def test_thinking_is_refused_where_the_real_provider_refuses_it(ask, wire):
    with pytest.raises(litellm.BadRequestError, match="thinking"):
        ask(wire, reasoning_effort="low")


@pytest.mark.usefixtures("provider")
def test_an_open_schema_is_refused_in_strict_mode(ask):
    open_schema = {"type": "object", "properties": {"p": {"type": "object"}}, "required": ["p"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "policy", "strict": True, "schema": open_schema}}
    with pytest.raises(litellm.BadRequestError, match="additionalProperties"):
        ask("openai", response_format=wanted)


def test_random_faults_are_the_same_for_the_same_seed_and_as_many_as_asked():
    def draw(seed):
        source = random_faults(0.3, seed=seed, names=["500", "429"])
        return [next(source) for _ in range(2_000)]

    assert draw(0) == draw(0) != draw(1)
    assert 0.25 < sum(fault is not None for fault in draw(0)) / 2_000 < 0.35


def test_a_rate_limit_refuses_what_comes_too_fast_and_says_when_to_come_back(provider, ask):
    provider.faults = RateLimit(per_second=1, burst=1)
    ask("openai")
    with pytest.raises(litellm.RateLimitError) as caught:
        ask("openai")
    time.sleep(float(caught.value.litellm_response_headers["retry-after"]) + 0.01)
    ask("openai")
    assert [exchange.status for exchange in provider.log] == [200, 429, 200]


def test_requests_wait_out_their_latency_together(provider, loop):
    provider.latency = 2.0

    async def many():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            body = {"model": "llava", "messages": [{"role": "user", "content": "look"}], "format": POLICY}
            url = provider.url + "/ollama/api/chat"
            replies = await asyncio.gather(*(session.post(url, json=body) for _ in range(256)))
            assert {reply.status for reply in replies} == {200}

    loop.run(many())
    assert provider.peak_in_flight == 256
    assert all(exchange.sent - exchange.received >= 2.0 for exchange in provider.log)


def test_it_runs_in_a_process_of_its_own_and_shows_its_log():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.provider", "--fault-rate", "1", "--faults", "503"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        body = json.dumps({"model": "llava", "messages": []}).encode()
        with pytest.raises(HTTPError, match="503"):
            urlopen(Request(url + "/ollama/api/chat", body, {"Content-Type": "application/json"}))
        (exchange,) = json.load(urlopen(url + "/log"))
        process.terminate()
    assert (exchange["provider"], exchange["status"], exchange["fault"]) == ("ollama", 503, "503")
    assert process.returncode == 0
