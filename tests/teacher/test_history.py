"""How advice came about, told from the store: as it was held with a real provider, and without asking again."""

import json

import gymnasium as gym
import pytest

from lvlm2p_wrappers import BadReplyError, Teacher, TransportError
from lvlm2p_wrappers.store import Store, calls, prune
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.views import viewer, with_lines
from tests.provider import FAULTS

MODEL = "openai/gpt-4o-mini"
EMBEDDED = "embedded/minigrid-planner"


@pytest.fixture
def view():
    env = gym.make("MiniGrid-LavaGapS5-v0")
    env.reset(seed=0)
    return viewer(env).view()


def test_before_anything_is_asked_it_shows_what_would_be(provider, view):
    (analysis,) = conversation(Teacher(MODEL), view)
    assert (analysis.stage, analysis.outcome, analysis.problem) == ("analysis", None, "")
    assert [turn.role for turn in analysis.messages] == ["system", "user"]
    assert analysis.messages[-1].picture == with_lines(view.picture)
    assert analysis.reply is analysis.answer is analysis.model is analysis.latency_s is analysis.cost_usd is None
    assert not provider.log


def test_afterwards_it_shows_what_was_sent_what_came_back_and_what_it_took(provider, view):
    advice = Teacher(MODEL).advise(view)
    told = conversation(Teacher(MODEL), view)
    assert len(provider.log) == 2
    for exchange, sent in zip(told, provider.log, strict=True):
        assert [(turn.role, turn.text) for turn in exchange.messages] == [(t.role, t.text) for t in sent.seen.turns]
        assert exchange.reply == sent.answer
        assert (exchange.prompt_tokens, exchange.completion_tokens) == sent.tokens
        assert (exchange.model, exchange.outcome, exchange.problem) == (advice.model, "ok", "")
        assert exchange.latency_s > 0
    assert [exchange.stage for exchange in told] == ["analysis", "action"]
    assert told[0].answer == advice.analysis
    assert sum(exchange.cost_usd for exchange in told) == pytest.approx(advice.cost_usd)


def test_a_repair_turn_belongs_to_the_stage_it_repaired(provider, view):
    provider.faults = [FAULTS["malformed_json"]]
    advice = Teacher(MODEL).advise(view)
    analysis, action = conversation(Teacher(MODEL), view)
    assert [turn.role for turn in analysis.messages] == ["system", "user", "assistant", "user"]
    assert (analysis.outcome, analysis.reply) == ("ok", provider.log[1].answer)
    assert analysis.prompt_tokens == sum(sent.tokens[0] for sent in provider.log[:2])
    assert analysis.cost_usd + action.cost_usd == pytest.approx(advice.cost_usd)


def test_retries_count_into_the_time_and_nothing_else(provider, view, monkeypatch):
    monkeypatch.setattr("lvlm2p_wrappers.client.provider_errors.FIRST_PAUSE_S", 0.01)
    provider.latency, provider.faults = 0.2, [FAULTS["503"]]
    Teacher(MODEL).advise(view)
    analysis, action = conversation(Teacher(MODEL), view)
    assert analysis.latency_s >= 0.4 > action.latency_s
    assert analysis.prompt_tokens == provider.log[1].tokens[0]


def test_a_reply_that_stayed_bad_is_shown_with_what_was_wrong(provider, view):
    provider.faults = lambda seen: FAULTS["missing_action"] if seen.asks_for_an_action else None
    with pytest.raises(BadReplyError):
        Teacher(MODEL).advise(view)
    analysis, action = conversation(Teacher(MODEL), view)
    assert analysis.outcome == "ok"
    assert (action.outcome, action.answer, action.reply) == ("bad_reply", None, provider.log[-1].answer)
    assert "no probability for" in action.problem
    assert action.completion_tokens == sum(sent.tokens[1] for sent in provider.log[1:])


def test_an_earlier_failure_does_not_count_into_the_conversation_that_brought_the_answer(provider, view):
    provider.faults = [FAULTS["malformed_json"]] * 2
    with pytest.raises(BadReplyError):
        Teacher(MODEL).advise(view)
    Teacher(MODEL).advise(view)
    analysis, _ = conversation(Teacher(MODEL), view)
    assert len(provider.log) == 4
    assert (analysis.outcome, analysis.prompt_tokens) == ("ok", provider.log[2].tokens[0])


def test_where_nothing_came_back_it_says_why(provider, view):
    provider.faults = lambda _: FAULTS["503"]
    with pytest.raises(TransportError):
        Teacher(MODEL, max_retries=0).advise(view)
    (analysis,) = conversation(Teacher(MODEL), view)
    assert (analysis.outcome, analysis.reply, analysis.model, analysis.cost_usd) == ("error", None, None, None)
    assert "503" in analysis.problem


def test_a_fallback_models_answer_is_told_as_its_own(provider, view):
    provider.faults = lambda seen: FAULTS["malformed_json"] if seen.model == "gpt-4o-mini" else None
    models = {"model": MODEL, "fallback_models": ("gemini/gemini-2.5-flash-lite",)}
    advice = Teacher(**models).advise(view)
    told = conversation(Teacher(**models), view)
    assert [exchange.model for exchange in told] == [advice.model] * 2
    assert told[0].model.startswith("gemini/")
    (alone,) = conversation(Teacher(MODEL), view)
    assert alone.outcome == "bad_reply"


def test_one_stage_is_one_exchange(view, tmp_path):
    (tmp_path / "set.toml").write_text("stages = 1")
    teacher = Teacher(EMBEDDED, prompts=tmp_path)
    for asked in (False, True):
        (action,) = conversation(teacher, view)
        assert (action.stage, action.answer is not None) == ("action", asked)
        teacher.advise(view)


def test_a_store_without_a_log_still_has_the_answers(view):
    teacher = Teacher(EMBEDDED, store=None)
    advice = teacher.advise(view)
    analysis, action = conversation(teacher, view)
    assert (analysis.answer, analysis.outcome) == (advice.analysis, "ok")
    assert analysis.reply is analysis.latency_s is analysis.prompt_tokens is None
    assert f"Analysis: {advice.analysis}" in action.messages[-1].text
    assert set(json.loads(action.answer)["probabilities"]) == {"turn_left", "turn_right", "forward"}


def test_a_pruned_log_still_leaves_the_answers(view, tmp_path):
    Teacher(EMBEDDED).advise(view)
    with Store(tmp_path / "store.sqlite") as store:
        prune(store, model=EMBEDDED, keep_answers=True)
        assert not list(calls(store))
    assert [exchange.outcome for exchange in conversation(Teacher(EMBEDDED), view)] == ["ok", "ok"]
