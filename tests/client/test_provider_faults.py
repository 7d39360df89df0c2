"""The table of faults: everything that can go wrong with a call, over HTTP, in the words of five providers.

`EXPECTED` says what becomes of each fault, docs/teachers.md says the same to people, and every row of it is played by
the loopback provider to a wrapped environment that asks through the real LiteLLM: once, and then for good.
"""

import json
import logging
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import BadReplyError, ModelError, Teacher, TeacherError, TransportError, VectorTeacherWrapper
from lvlm2p_wrappers.replies import MAX_REPLY_CHARS
from lvlm2p_wrappers.store import Store, calls
from lvlm2p_wrappers.views import viewer
from tests.provider import FAULTS, WIRES, Provider, closed_url, environment, random_faults
from tests.provider.answers import fitting_answer

ERRORS = {error.__name__: error for error in (BadReplyError, TransportError, ModelError)}
DOCS = Path(__file__).parents[2] / "docs" / "teachers.md"
RETRIES = 1
RETRY_AFTER_S = 0.4


class Expected(NamedTuple):
    """What becomes of a fault: how the question is asked again, and how it ends if the fault stays."""

    again: str
    end: str


LABEL = Expected("no", "label")
RETRIED = Expected("as it was", "TransportError")
REPAIRED = Expected("with a repair turn", "BadReplyError")
TAKEN_FOR_AN_ANSWER = Expected("no", "BadReplyError")
GIVEN_UP = Expected("no", "TransportError")
STOPS = Expected("no", "ModelError")

EXPECTED = {
    **dict.fromkeys(["401", "401_echoing_key", "403", "404"], STOPS),
    **dict.fromkeys(["400", "413", "redirect", "gzip_bomb", "endless_body"], GIVEN_UP),
    **dict.fromkeys(["408", "429", "429_retry_after", "500", "503", "529", "escape_sequences"], RETRIED),
    **dict.fromkeys(["connection_refused", "reset", "dropped_mid_body", "time_out", "endless_drip"], RETRIED),
    **dict.fromkeys(["html", "invalid_utf8", "500_in_other_words"], RETRIED),
    **dict.fromkeys(["slow_drip", "fenced_json", "json_after_prose", "sum_0.97", "sum_1.3"], LABEL),
    **dict.fromkeys(["usage_missing", "usage_zero", "usage_negative", "usage_absurd"], LABEL),
    # LiteLLM cannot read an answer of theirs without it.
    **dict.fromkeys(["usage_missing (gemini)", "usage_missing (anthropic)"], RETRIED),
    **dict.fromkeys(["usage_beyond_max_tokens", "own_price", "other_model", "key_as_model"], LABEL),
    **dict.fromkeys(["refusal", "content_filter"], TAKEN_FOR_AN_ANSWER),
    # Ollama has no word for either: the one comes as prose, the other as an empty reply.
    **dict.fromkeys(["refusal (ollama)", "content_filter (ollama)"], REPAIRED),
    **dict.fromkeys(["empty_choices", "content_none", "truncated", "thinking_ate_the_tokens"], REPAIRED),
    **dict.fromkeys(["malformed_json", "wrong_keys", "missing_action", "unknown_action", "ten_megabytes"], REPAIRED),
    **dict.fromkeys(["negative", "nan", "infinity", "strings", "sum_0", "sum_7"], REPAIRED),
}

PLAYED = [name for name in FAULTS if name in EXPECTED]
SAMPLE = ["429_retry_after", "content_filter", "refusal", "html", "nan", "redirect", "usage_missing", "key_as_model"]
ROWS = [
    pytest.param(wire, fault, marks=[] if wire == "openai" or fault in SAMPLE else pytest.mark.slow)
    for wire in WIRES
    for fault in PLAYED
]
"""All of OpenAI's wire format, a sample of the others'; the rest is slow."""


def expected(wire, fault):
    return EXPECTED.get(f"{fault} ({wire})", EXPECTED[fault])


@pytest.fixture(scope="module")
def server():
    with Provider(drip=0.2) as provider:
        yield provider


@pytest.fixture
def provider(server, monkeypatch):
    """The five providers, in order again, and clients that lose no time between attempts."""
    server.log.clear()
    server.faults = ()
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lvlm2p_wrappers.client.provider_errors.FIRST_PAUSE_S", 0.01)
    return server


def played(name):
    fault = FAULTS[name]
    return replace(fault, refused=replace(fault.refused, retry_after=RETRY_AFTER_S)) if "retry_after" in name else fault


def taught(wire, fault="", on_error="skip", **asking):
    options = {"timeout_s": 1.5 if fault in ("time_out", "endless_drip") else 20, "max_retries": RETRIES}
    envs = gym.make_vec("MiniGrid-LavaGapS5-v0", num_envs=1, vectorization_mode="sync")
    return VectorTeacherWrapper(envs, WIRES[wire].model, on_error=on_error, **asking, **options)


def ask(envs):
    """The advice about a first observation, and its mask, as they are in the infos."""
    _, infos = envs.reset(seed=0)
    assert infos["teacher_probs"].shape == (1, 7)
    assert infos["_teacher_probs"].shape == (1,)
    return infos["teacher_probs"][0], infos["_teacher_probs"][0]


def view_of(env):
    """What an environment shows first."""
    env.reset(seed=0)
    return viewer(env).view()


def actions(provider):
    """What the provider was asked about the action; the analysis is answered well in every row."""
    return [exchange for exchange in provider.log if exchange.seen.asks_for_an_action]


def sent(exchange):
    """The distribution that the provider says it sent, read without the package."""
    answer = exchange.answer
    given = json.loads(answer[answer.index("{") : answer.rindex("}") + 1])["probabilities"]
    # Actions that cannot matter are not asked about.
    actions = ("turn_left", "turn_right", "forward", "pickup", "drop", "toggle", "done")
    assert given.keys() <= set(actions)
    return np.array([given.get(name, 0) for name in actions]) / sum(given.values())


def logged():
    """The calls about the action, oldest first, of the one store of a test."""
    return [row.call for row in calls(Store()) if row.call.stage == "action"][::-1]


def assert_no_key(wire, tmp_path, *said):
    key = WIRES[wire].key
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    if key:
        assert not [file for file in files if key.encode() in file.read_bytes()]
        assert not [text for text in said if key in text]


def assert_no_label(probs, mask):
    assert not mask
    assert not probs.any()


@pytest.mark.parametrize(("wire", "fault"), ROWS)
def test_a_fault_that_happens_once_costs_a_repetition_or_a_label_and_invents_none(
    provider, tmp_path, caplog, wire, fault
):
    caplog.set_level(logging.DEBUG)
    again, end = expected(wire, fault)
    provider.faults = [None, played(fault)]
    envs = taught(wire, fault)
    if end == "ModelError":
        with pytest.raises(ModelError):
            ask(envs)
    else:
        probs, mask = ask(envs)
        if again == "no" and end != "label":
            assert_no_label(probs, mask)
        else:
            assert mask
            assert np.allclose(probs, sent(provider.log[-1]), atol=1e-6)
            assert logged()[-1].outcome == "ok"
            assert logged()[-1].reply == provider.log[-1].answer
    asked = actions(provider)
    assert len(asked) == (1 if again == "no" else 2)
    if again == "as it was":
        assert asked[0].seen == asked[1].seen
    if fault == "429_retry_after":
        assert asked[1].received - asked[0].sent >= RETRY_AFTER_S
    if again == "with a repair turn":
        first, second = (exchange.seen.turns for exchange in asked)
        assert first == second[:-2]
        assert logged()[0].problem.split(": ", 1)[1] in second[-1].text
        assert sum(len(turn.text) for turn in second[-2:]) < 10_000
    assert_no_key(wire, tmp_path, caplog.text)


@pytest.mark.parametrize(("wire", "fault"), ROWS)
def test_a_fault_that_stays_ends_as_the_table_says(provider, tmp_path, caplog, wire, fault):
    caplog.set_level(logging.DEBUG)
    again, end = expected(wire, fault)
    provider.faults = lambda seen: played(fault) if seen.asks_for_an_action else None
    envs = taught(wire, fault)
    if end == "label":
        probs, mask = ask(envs)
        assert mask
        assert np.allclose(probs, sent(provider.log[-1]), atol=1e-6)
        assert len(actions(provider)) == 1
        return
    if end != "ModelError":
        assert_no_label(*ask(envs))
        assert envs.teacher.counters.failures == 1
        assert len(actions(provider)) == {"no": 1, "with a repair turn": 2, "as it was": 1 + RETRIES}[again]
    asked = len(provider.log)
    with pytest.raises(ERRORS[end]) as raised:
        ask(taught(wire, fault, on_error="raise"))
    if end == "BadReplyError":
        assert len(provider.log) == asked  # it is remembered, not asked again
    message = str(raised.value)
    assert WIRES[wire].model in message
    assert message.isprintable()
    assert len(message) < 600
    refused = FAULTS[fault].refused
    for call, exchange in zip(logged(), actions(provider), strict=True):
        assert call.status in ({refused.status} if refused else {None, 200})
        assert call.problem.isprintable()
        assert 0 < len(call.problem) < 600
        if end == "BadReplyError":
            assert call.outcome == "bad_reply"
            assert len(call.reply) <= MAX_REPLY_CHARS + 1
            assert json.dumps(call.reply, ensure_ascii=False)[1:-1] in exchange.body
        else:
            assert (call.outcome, call.reply) == ("error", None)
    assert_no_key(wire, tmp_path, caplog.text, message)


@pytest.mark.parametrize("wire", ["openai", *(pytest.param(wire, marks=pytest.mark.slow) for wire in list(WIRES)[1:])])
def test_a_connection_that_is_refused_is_tried_again_until_somebody_listens(monkeypatch, wire):
    url = closed_url()
    for name, value in environment(url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lvlm2p_wrappers.client.provider_errors.FIRST_PAUSE_S", 0.01)
    envs = taught(wire)
    assert_no_label(*ask(envs))
    assert envs.teacher.counters.calls == 1 + RETRIES
    with pytest.raises(TransportError, match=WIRES[wire].model):
        ask(taught(wire, on_error="raise"))
    monkeypatch.setattr("lvlm2p_wrappers.client.provider_errors.FIRST_PAUSE_S", 1.0)
    failed = len(list(calls(Store())))
    envs = taught(wire, defer=True)
    envs.reset(seed=0)
    while len(list(calls(Store()))) == failed:
        time.sleep(0.01)
    with Provider(port=int(url.rsplit(":", 1)[1])) as provider:
        envs.step(np.array([2]))
        probs, mask = envs.gather()
        assert mask.all()
        assert np.allclose(probs[0, 0], sent(actions(provider)[0]), atol=1e-6)


@pytest.mark.parametrize("wire", WIRES)
def test_a_request_whose_connection_is_lost_is_sent_again_by_nobody_below_us(provider, wire):
    provider.faults = lambda _: FAULTS["reset"]
    with pytest.raises(TransportError):
        Teacher(WIRES[wire].model, store=None, max_retries=0).advise(view_of(gym.make("MiniGrid-LavaGapS5-v0")))
    assert len(provider.log) == 1


@pytest.mark.slow
@pytest.mark.parametrize("wire", WIRES)
def test_a_label_that_comes_through_mixed_faults_is_what_the_provider_sent_for_its_picture(provider, wire):
    provider.faults = random_faults(0.3, names=[name for name in FAULTS if expected(wire, name) != STOPS])
    teacher = Teacher(WIRES[wire].model, timeout_s=1, max_retries=4)
    env = gym.make("MiniGrid-Fetch-6x6-N2-v0")
    given = 0
    for seed in range(30):
        env.reset(seed=seed)
        view = teacher.viewer(env).view()  # as the teacher shows it
        try:
            probs = teacher.advise(view).probs
        except (BadReplyError, TransportError):
            continue
        given += 1
        last = [exchange for exchange in actions(provider) if exchange.seen.pictures[-1] == view.picture.png][-1]
        assert np.allclose(probs, sent(last), atol=1e-6)
    assert given > 15


def test_a_request_that_the_provider_cannot_work_with_costs_its_own_row_only(provider):
    """One HTTP 400, about a length or a picture, ended a run that skips errors; the rollout's other rows were lost."""
    envs = gym.make_vec("MiniGrid-Fetch-6x6-N2-v0", num_envs=4, vectorization_mode="sync")
    pictures = []

    def refuse_the_third(seen):
        pictures.append(seen.pictures) if seen.pictures not in pictures else None
        return played("400") if pictures.index(seen.pictures) == 2 else None

    provider.faults = refuse_the_third
    _, infos = VectorTeacherWrapper(envs, WIRES["openai"].model, on_error="skip").reset(seed=[3, 4, 5, 6])
    assert sorted(infos["_teacher_probs"]) == [False, True, True, True]


def test_a_request_that_no_provider_can_work_with_ends_the_run_and_says_what_the_provider_says(provider):
    provider.faults = lambda _: played("400")
    envs = gym.make_vec("MiniGrid-Fetch-6x6-N2-v0", num_envs=40, vectorization_mode="sync")
    taught = VectorTeacherWrapper(envs, WIRES["openai"].model, on_error="skip")
    with pytest.raises(TeacherError, match=r"20 questions in a row .*HTTP 400: Request contains an invalid argument"):
        taught.reset(seed=0)


def test_googles_word_for_a_refused_key_is_the_users_mistake_although_its_status_is_400(provider, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "made-up-key")
    with pytest.raises(ModelError, match="refused the key in GEMINI_API_KEY or GOOGLE_API_KEY"):
        ask(taught("gemini"))
    assert len(provider.log) == 1


def test_what_is_wrong_with_a_reply_is_quoted_in_short_however_long_its_keys(provider):
    def answer(seen):
        said = fitting_answer(seen)
        bad = not seen.asks_for_an_action and seen.turns[-2].role != "assistant"
        return json.dumps(json.loads(said) | {"\n".join("ab" * 10_000): 1}) if bad else said

    provider.answer = answer
    try:
        assert ask(taught("openai"))[1]
    finally:
        provider.answer = fitting_answer
    bad = next(row.call for row in calls(Store()) if row.call.outcome == "bad_reply")
    assert "\n" not in bad.problem
    assert len(bad.problem) < 600
    assert len(provider.log[1].seen.turns[-1].text) < 5_000


@pytest.mark.parametrize(
    ("model", "route"),
    [("ollama_chat/llava", "/ollama"), ("hosted_vllm/my-model", "/vllm/v1"), ("openai/my-model", "/vllm/v1")],
)
def test_a_server_of_ones_own_needs_its_address_and_no_real_key(server, monkeypatch, model, route):
    server.faults = ()
    if model.startswith("openai/"):  # LiteLLM wants one to be there
        monkeypatch.setenv("OPENAI_API_KEY", "none")
    view = view_of(gym.make("MiniGrid-LavaGapS5-v0"))
    advice = Teacher(model, api_base=server.url + route).advise(view)
    assert advice.model == model
    assert not advice.cost_usd


def test_the_table_for_people_says_what_is_tested():
    ends = {
        "label": "label",
        "label, renormalised": "label",
        "masked, `TransportError`": "TransportError",
        "masked, `BadReplyError`": "BadReplyError",
        "stops, `ModelError`": "ModelError",
    }
    table = DOCS.read_text(encoding="utf-8").split("## Faults")[1]
    rows = re.findall(r"^\| `(\S+)`( \(\w+\))? \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    assert {name + wire: Expected(again, ends[end]) for name, wire, again, end in rows} == EXPECTED


def test_every_fault_that_the_provider_can_play_is_in_the_table():
    assert set(FAULTS) <= set(EXPECTED)
