"""The teacher over real HTTP: what is asked, how often, what is kept, and what is never made up."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import (
    Advice,
    BadReplyError,
    BudgetError,
    ModelError,
    StoreError,
    Teacher,
    TeacherError,
    TeacherWrapper,
    TransportError,
    UsageError,
    VectorTeacherWrapper,
)
from lvlm2p_wrappers.store import Store, calls
from lvlm2p_wrappers.views import viewer, with_lines
from tests.provider import FAULTS, WIRES, RateLimit, closed_url
from tests.provider.answers import fitting_answer

MODEL = "openai/gpt-4o-mini"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.sqlite")


def views(count, env_id="MiniGrid-Fetch-6x6-N2-v0"):
    env = gym.make(env_id)
    for seed in range(count):
        env.reset(seed=seed)
        yield viewer(env).view()


def view():
    return next(views(1))


def probs_of(outcomes):
    return [outcome.probs if isinstance(outcome, Advice) else None for outcome in outcomes]


def label(teacher, views, on_error="skip"):
    return probs_of(teacher.collect([teacher.submit(view) for view in views], on_error=on_error))


def logged(store, **wanted):
    rows = [row.call for row in calls(store)]
    return [call for call in rows[::-1] if all(getattr(call, name) == value for name, value in wanted.items())]


@pytest.mark.parametrize("name", list(WIRES))
def test_every_providers_model_is_one_model_string_away(provider, name):
    advice = Teacher(WIRES[name].model, store=None).advise(view())
    sent = json.loads(provider.answers[-1])["probabilities"]
    expected = [sent.get(name, 0) for name in ("turn_left", "turn_right", *view().actions[2:])]
    assert np.allclose(advice.probs, np.array(expected) / sum(sent.values()))
    assert advice.model.startswith(WIRES[name].model.split("/")[0])
    assert not advice.cached
    analysis, action = provider.log
    assert analysis.seen.pictures == action.seen.pictures == (with_lines(view().picture).png,)
    assert "probabilities" in action.seen.schema["properties"]
    assert f"Analysis: {advice.analysis}" in action.seen.turns[-1].text
    assert json.loads(advice.analysis) == json.loads(analysis.answer)


def test_cost_and_tokens_are_the_providers_own_count(provider, store):
    teacher = Teacher(MODEL)
    advice = teacher.advise(view())
    assert advice.cost_usd == pytest.approx(provider.cost_usd) == pytest.approx(teacher.counters.cost_usd)
    assert [(call.prompt_tokens, call.completion_tokens) for call in logged(store)] == [x.tokens for x in provider.log]


def test_a_model_without_a_price_costs_none_not_nothing(provider):  # noqa: ARG001
    teacher = Teacher("hosted_vllm/Qwen/Qwen2.5-VL-7B-Instruct", store=None)
    assert teacher.advise(view()).cost_usd is None
    assert teacher.counters.unpriced_calls == 2


def test_equal_questions_are_asked_once_in_a_batch_later_and_by_the_next_teacher(provider):
    provider.latency = 0.1
    label(Teacher(MODEL), [view()] * 5)
    label(Teacher(MODEL), [view()] * 2)
    assert len(provider.log) == 2


def test_editing_the_action_template_does_not_pay_for_the_analysis_again(provider, tmp_path):
    Teacher(MODEL).advise(view())
    (tmp_path / "action.user.jinja").write_text("Mission: {{ mission }}\nAnalysis: {{ analysis }}\nThink.")
    Teacher(MODEL, prompts=tmp_path).advise(view())
    assert [exchange.seen.asks_for_an_action for exchange in provider.log] == [False, True, True]


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"max_tokens": 99}, {"fallback_models": ("openai/gpt-4o",)}])
def test_sampling_options_make_another_question_and_fallbacks_do_not(provider, change):
    Teacher(MODEL).advise(view())
    Teacher(MODEL, **change).advise(view())
    assert len(provider.log) == (2 if "fallback_models" in change else 4)


def test_two_models_do_not_share_answers(provider):
    for model in (MODEL, "openai/gpt-4o"):
        Teacher(model).advise(view())
    assert len(provider.log) == 4


def test_two_processes_with_one_store_never_pay_twice(provider):
    provider.latency = 0.3
    code = (
        "import gymnasium as gym; from lvlm2p_wrappers import TeacherWrapper; "
        f"env = TeacherWrapper(gym.make('MiniGrid-LavaGapS5-v0'), {MODEL!r}); "
        "print(env.reset(seed=0)[1]['teacher_probs'].tolist())"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=120)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(printed) == 1
    assert len(provider.log) == 2


@pytest.mark.parametrize(
    "fault", ["malformed_json", "wrong_keys", "missing_action", "sum_7", "truncated", "content_none"]
)
def test_a_bad_reply_gets_one_repair_turn_that_quotes_what_was_wrong(provider, store, fault):
    provider.faults = [None, FAULTS[fault]]
    teacher = Teacher(MODEL)
    advice = teacher.advise(view())
    assert len(provider.log) == 3
    repair = provider.log[2].seen.turns
    assert [turn.role for turn in repair] == ["system", "user", "assistant", "user"]
    bad = logged(store, outcome="bad_reply")
    assert bad[0].problem.split(": ", 1)[1] in repair[-1].text
    assert teacher.counters.bad_replies == 1
    assert np.allclose(advice.probs.sum(), 1)
    assert Teacher(MODEL).advise(view()).cached


def test_a_reply_that_stays_bad_is_no_label_is_not_asked_again_in_the_run_and_is_not_stored(provider):
    provider.faults = [None, FAULTS["sum_0"], FAULTS["negative"]]
    teacher = Teacher(MODEL)
    with pytest.raises(BadReplyError, match="not a probability") as bad:
        teacher.advise(view())
    assert len(bad.value.replies) == 2
    with pytest.raises(BadReplyError):
        teacher.advise(view())
    assert len(provider.log) == 3
    assert (teacher.counters.failures, teacher.counters.bad_replies) == (1, 2)
    assert label(teacher, [view()]) == [None]
    Teacher(MODEL).advise(view())  # another run may ask again
    assert len(provider.log) == 4


def test_a_refusal_is_not_argued_with(provider):
    provider.faults = [FAULTS["refusal"]]
    with pytest.raises(BadReplyError) as bad:
        Teacher(MODEL, store=None).advise(view())
    assert bad.value.kind == "refusal"
    assert len(provider.log) == 1


def test_thinking_that_ate_the_tokens_gets_twice_the_room(provider):
    provider.faults = [FAULTS["thinking_ate_the_tokens"]]
    Teacher(MODEL, store=None, max_tokens=500).advise(view())
    assert [exchange.seen.options["max_tokens"] for exchange in provider.log] == [500, 1000, 500]


@pytest.mark.parametrize("fault", ["408", "429", "500", "503", "529", "html", "reset", "dropped_mid_body"])
def test_a_fault_that_may_pass_is_retried_with_the_same_request(provider, store, fault):
    provider.faults = [FAULTS[fault]]
    Teacher(MODEL).advise(view())
    first, second, _ = provider.log
    assert first.seen.turns == second.seen.turns
    (failed,) = logged(store, outcome="error")
    assert failed.reply is None
    assert failed.problem


@pytest.mark.parametrize("fault", ["401", "403", "404"])
def test_what_only_the_user_can_mend_is_not_retried_and_stops_even_where_failures_are_skipped(provider, fault):
    provider.faults = lambda _: FAULTS[fault]
    with pytest.raises(ModelError, match=MODEL):
        label(Teacher(MODEL, store=None), [view()])
    assert len(provider.log) == 1


def test_a_refused_key_is_tried_once_and_again_when_a_new_wrapper_is_made(provider):
    provider.faults = [FAULTS["401"]]
    teacher = Teacher(MODEL, store=None, concurrency=1)
    with pytest.raises(ModelError):
        label(teacher, views(5))
    assert len(provider.log) == 1
    teacher.resume()
    assert teacher.advise(view()).probs.shape == (7,)


def test_the_papers_own_model_is_asked_and_its_end_explained(provider):
    with pytest.raises(
        ModelError, match=r"gemini/gemini-1.5-flash.*retired; the nearest today is gemini/gemini-2.5-flash-lite"
    ):
        Teacher("gemini/gemini-1.5-flash", store=None).advise(view())
    assert len(provider.log) == 1


def test_without_a_key_for_it_it_is_said_to_be_retired_too(monkeypatch):
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match=r"needs a key: .* is retired; the nearest today is gemini/gemini-2.5"):
        Teacher("gemini/gemini-1.5-flash", store=None).advise(view())


def test_a_reply_without_json_is_quoted(tmp_path):
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(BadReplyError, match=r"no JSON object. It said: .*MiniGrid"):
        Teacher("embedded/minigrid-planner", store=tmp_path / "s.sqlite").advise(viewer(env).view())


def test_a_key_that_a_provider_echoes_is_neither_shown_nor_logged(provider, tmp_path):
    provider.faults = [FAULTS["401_echoing_key"]]
    with pytest.raises(ModelError) as refused:
        Teacher(MODEL).advise(view())
    key = os.environ["OPENAI_API_KEY"]
    assert key not in str(refused.value)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and key.encode() in file.read_bytes()]


def test_a_connection_that_is_refused_ends_in_a_transport_error(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-key")
    with pytest.raises(TransportError, match=MODEL):
        Teacher(MODEL, store=None, api_base=closed_url(), max_retries=0).advise(view())


@pytest.mark.parametrize("fault", ["time_out", "endless_drip"])
def test_a_reply_that_does_not_come_is_given_up(provider, fault):
    provider.faults = lambda _: FAULTS[fault]
    started = time.monotonic()
    with pytest.raises(TransportError, match=r"no answer within 0\.3 s"):
        Teacher(MODEL, store=None, timeout_s=0.3, max_retries=0).advise(view())
    assert time.monotonic() - started < 30


def test_too_many_requests_slow_the_teacher_down_until_all_are_answered(provider):
    provider.faults = RateLimit(per_second=20, burst=5)
    teacher = Teacher(MODEL, store=None, concurrency=32, max_retries=8)
    assert all(probs is not None for probs in label(teacher, views(30)))


def test_requests_a_minute_are_limited(provider):
    provider.latency = 0.0
    teacher = Teacher(MODEL, store=None, rpm=4)
    rows = [teacher.submit(each) for each in views(5)]
    while len(provider.log) < 4:
        time.sleep(0.01)
    time.sleep(0.5)
    assert len(provider.log) == 4
    teacher.drain(rows)


def test_no_more_calls_are_in_flight_than_allowed(provider):
    provider.latency = 0.05
    label(Teacher(MODEL, store=None, concurrency=3), views(12))
    assert provider.peak_in_flight == 3


def test_a_budget_in_calls_is_kept_said_once_and_leaves_rows_without_label(provider, caplog):
    teacher = Teacher(MODEL, store=None, budget_calls=6, concurrency=1)
    rows = label(teacher, views(8), on_error="raise")
    assert len(provider.log) == 6
    assert sum(row is not None for row in rows) <= 3
    assert teacher.counters.unasked == sum(row is None for row in rows)
    assert len([record for record in caplog.records if "the budget of 6 calls is spent" in record.message]) == 1


def test_a_budget_in_dollars_holds_by_the_providers_own_count_with_many_calls_in_flight(provider):
    provider.latency = 0.05
    teacher = Teacher(MODEL, store=None, budget_usd=0.01, concurrency=64)
    rows = label(teacher, views(120))
    assert 0.005 < provider.cost_usd <= 0.01
    assert 0 < sum(row is not None for row in rows) < 120


def test_what_is_in_the_store_costs_no_budget(provider):  # noqa: ARG001
    Teacher(MODEL).advise(view())
    assert Teacher(MODEL, budget_calls=0).advise(view()).cached
    with pytest.raises(BudgetError, match="the budget of 0 calls is spent"):
        Teacher(MODEL, budget_calls=0).advise(list(views(2))[1])


def test_a_budget_in_dollars_needs_a_price(provider):  # noqa: ARG001
    with pytest.raises(UsageError, match=r"no known price.*budget_calls"):
        Teacher("hosted_vllm/Qwen/Qwen2.5-VL-7B-Instruct", store=None, budget_usd=1).advise(view())


def test_offline_answers_from_the_store_alone(provider, monkeypatch):
    probs = Teacher(MODEL).advise(view()).probs
    monkeypatch.delenv("OPENAI_API_KEY")
    teacher = Teacher(MODEL, offline=True)
    assert np.array_equal(teacher.advise(view()).probs, probs)
    with pytest.raises(TransportError, match=r"offline, and .*store\.sqlite has no answer"):
        teacher.advise(list(views(2))[1])
    assert len(provider.log) == 2


def test_offline_without_a_store_to_answer_from_is_refused(tmp_path):
    store = tmp_path / "no.sqlite"
    with pytest.raises(UsageError, match=f"offline, and there is no store {store} to answer from"):
        Teacher(MODEL, store=store, offline=True)


def test_offline_and_without_a_store_there_is_no_advice_and_no_key_is_needed():
    """Who learns from a label set alone has neither."""
    with pytest.raises(TransportError, match=r"offline, and the store none \(in memory\) has no answer"):
        Teacher(MODEL, store=None, offline=True).advise(view())


def test_a_fallback_answers_where_the_first_model_fails_and_the_label_says_so(provider, store):
    provider.faults = lambda seen: FAULTS["503"] if seen.model == "gpt-4o-mini" else None
    teacher = Teacher(MODEL, fallback_models=["gemini/gemini-2.5-flash-lite"], max_retries=0)
    assert teacher.advise(view()).model == "gemini/gemini-2.5-flash-lite"
    assert {call.answered_model for call in logged(store, outcome="ok")} == {"gemini/gemini-2.5-flash-lite"}
    provider.faults = ()
    assert Teacher(MODEL).advise(view()).model == MODEL  # the fallback's answer is not taken for the first model's
    assert Teacher("gemini/gemini-2.5-flash-lite").advise(view()).cached


def test_nothing_but_failures_stops_a_run_that_skips_them(provider):
    provider.faults = lambda _: FAULTS["500"]
    teacher = Teacher(MODEL, store=None, max_retries=0)
    with pytest.raises(TeacherError, match=r"20 questions in a row stayed without an answer\. The last: .*HTTP 500"):
        label(teacher, views(25))


def test_a_view_whose_reply_stays_bad_counts_as_one_failure_however_often_it_is_seen(provider):
    provider.faults = lambda _: FAULTS["refusal"]
    teacher = Teacher(MODEL, store=None)
    for _ in range(30):
        assert label(teacher, [view()]) == [None]
    assert teacher.counters.failures == 1
    assert len(provider.log) == 1


def test_a_teacher_works_where_an_event_loop_is_already_running(provider):  # noqa: ARG001
    import asyncio

    async def cell():
        return Teacher(MODEL, store=None).advise(view()).probs

    assert asyncio.run(cell()).shape == (7,)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_wrapper_works_in_worker_processes_after_the_parent_has_asked(provider, context):
    env = TeacherWrapper(gym.make("MiniGrid-LavaGapS5-v0"), MODEL)
    expected = env.reset(seed=0)[1]["teacher_probs"]
    asked = len(provider.log)
    envs = gym.vector.AsyncVectorEnv([wrapped_env] * 2, shared_memory=False, context=context)
    _, infos = envs.reset(seed=[0, 0])
    assert np.array_equal(infos["teacher_probs"], np.array([expected, expected]))
    assert len(provider.log) == asked
    envs.close()


def wrapped_env():
    return TeacherWrapper(gym.make("MiniGrid-LavaGapS5-v0"), MODEL)


def test_every_label_can_be_traced_to_a_logged_call(provider, store):
    provider.faults = [FAULTS["503"], None, FAULTS["sum_7"]]
    Teacher(MODEL).advise(view())
    assert [call.outcome for call in logged(store)] == ["error", "ok", "bad_reply", "ok"]
    last = logged(store)[-1]
    assert last.reply == provider.answers[-1]
    assert last.messages[1].picture.png == with_lines(view().picture).png
    assert (last.requested_model, last.answered_model, last.env_id) == (MODEL, MODEL, "MiniGrid-Fetch-6x6-N2-v0")
    assert last.latency_s > 0


def test_two_threads_may_ask_one_teacher(provider):
    teacher, found = Teacher(MODEL, store=None), []
    threads = [threading.Thread(target=lambda: found.append(teacher.advise(view()).probs)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(provider.log) == 2
    assert all(np.array_equal(found[0], probs) for probs in found)


def test_a_row_that_is_given_up_leaves_its_question_to_the_others(provider):
    provider.latency = 0.3
    teacher, seen = Teacher(MODEL, store=None), view()
    first, second, third = (teacher.submit(seen) for _ in range(3))
    while not provider.log:
        time.sleep(0.01)
    teacher.drain([first, third])
    (probs,) = probs_of(teacher.collect([second], on_error="raise"))
    assert probs.sum() == pytest.approx(1)
    assert len(provider.log) == 2, "what was sent for the row that was given up serves the others"


def test_a_state_whose_row_was_given_up_can_be_asked_about_again(provider):
    provider.latency = 0.3
    teacher, env = Teacher(MODEL, store=None), gym.make("MiniGrid-LavaGapS5-v0")
    env.reset(seed=0)
    row = teacher.ask(viewer(env))
    while not provider.log:
        time.sleep(0.01)
    row.future.cancel()
    assert teacher.ask(viewer(env)).future.result().probs.sum() == pytest.approx(1)


def test_what_was_sent_for_a_row_that_is_given_up_is_stored_and_what_was_not_is_not_sent(provider, store):
    provider.latency = 0.3
    teacher = Teacher(MODEL, store=store.path, concurrency=1)
    rows = [teacher.submit(each) for each in views(3)]
    while not provider.log:
        time.sleep(0.01)
    teacher.drain(rows)
    assert all(row.future.done() for row in rows)
    assert [call.stage for call in logged(store, outcome="ok")] == ["analysis"]
    teacher.advise(view())
    assert [call.stage for call in logged(store, outcome="ok")] == ["analysis", "action"]
    assert len(provider.log) == 2


def test_rows_that_are_given_up_while_they_wait_for_requests_a_minute_are_dropped_at_once(provider):
    teacher = Teacher(MODEL, store=None, rpm=1)
    rows = [teacher.submit(each) for each in views(4)]
    while len(provider.log) < 1:
        time.sleep(0.01)
    before = time.monotonic()
    teacher.drain(rows)
    assert time.monotonic() - before < 30  # not the minute that the next request has to wait
    assert len(provider.log) == 1


def test_when_answers_cannot_be_stored_any_more_nothing_more_is_paid_for(provider, store):
    provider.latency = 0.05
    teacher = Teacher(MODEL, store=store.path, concurrency=2)
    rows = [teacher.submit(each) for each in views(20)]
    while len(provider.answers) < 4:
        time.sleep(0.01)
    with store.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE turns")
    with pytest.raises(StoreError, match="no such table"):
        teacher.collect(rows, on_error="skip")
    assert len(provider.log) < 12


def test_a_question_that_waits_for_long_is_not_asked_by_another_process_too(provider, store, monkeypatch):
    monkeypatch.setattr("lvlm2p_wrappers.teacher.resolver.CLAIM_S", 0.8)
    provider.latency = 0.3
    teachers = [Teacher(MODEL, store=store.path, concurrency=1) for _ in range(2)]  # each with claims of its own
    rows = [(teacher, teacher.submit(each)) for teacher in teachers for each in views(5)]
    for teacher, row in rows:
        (probs,) = probs_of(teacher.collect([row], on_error="raise"))
        assert probs.sum() == pytest.approx(1)
    assert len(provider.log) == 10


def test_an_answer_of_the_store_that_no_model_can_have_given_is_no_label(provider, store):  # noqa: ARG001
    Teacher(MODEL, store=store.path).advise(view())
    with store.transaction() as connection:
        connection.exec_driver_sql("UPDATE answers SET text = replace(text, '\"probabilities\": {', '\"p\": {')")
    with pytest.raises(StoreError, match=r"an answer of openai/gpt-4o-mini that cannot be used.*store prune"):
        Teacher(MODEL, store=store.path).advise(view())


def test_a_store_that_was_deleted_meanwhile_is_made_anew(provider, store):  # noqa: ARG001
    teacher, (first, second) = Teacher(MODEL, store=store.path), views(2)
    teacher.advise(first)
    for file in Path(store.path).parent.glob("store.sqlite*"):
        file.unlink()
    teacher.advise(second)
    assert [call.stage for call in logged(Store(store.path), outcome="ok")] == ["analysis", "action"]


def test_a_secret_that_is_a_common_word_does_not_make_the_next_run_pay_again(provider, store, monkeypatch):
    monkeypatch.setenv("LOCAL_API_KEY", "anything")
    provider.answer = lambda seen: fitting_answer(seen).replace("picture ", "anything like ")
    analyses = [Teacher(MODEL, store=store.path).advise(view()).analysis for _ in range(2)]
    assert analyses[0] == analyses[1]
    assert "<LOCAL_API_KEY> like" in analyses[0]
    assert len(provider.log) == 2


def test_a_fallback_that_cannot_work_is_told_before_anything_is_paid_for(provider):
    with pytest.raises(ModelError, match="'nonsense' names no provider"):
        Teacher(MODEL, store=None, fallback_models=["nonsense"]).advise(view())
    assert not provider.log


def test_a_key_with_a_line_break_is_told_and_not_shown(provider, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789\n")
    with pytest.raises(ModelError, match="OPENAI_API_KEY begins or ends with white space") as caught:
        Teacher(MODEL, store=None).advise(view())
    assert "0123456789" not in str(caught.value)
    assert not provider.log


def test_the_same_arguments_mean_one_teacher_in_all_threads(store):
    barrier, found = threading.Barrier(8), []

    def share():
        barrier.wait()
        found.append(Teacher.shared(MODEL, {"store": store.path, "budget_calls": 2}))

    threads = [threading.Thread(target=share) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("wait", [Teacher.drain, lambda teacher: teacher.wait_below(0)])
def test_a_forked_process_does_not_wait_for_its_parents_questions(provider, wait):
    provider.latency = 20.0
    teacher = Teacher(MODEL, store=None)
    row = teacher.submit(view())
    child = multiprocessing.get_context("fork").Process(target=wait, args=(teacher,))
    child.start()
    child.join(timeout=10)
    exitcode = child.exitcode
    child.kill()
    row.future.cancel()
    assert exitcode == 0


def test_equal_views_that_wait_for_one_bad_reply_count_as_one_failure(provider):
    provider.latency = 0.2
    provider.faults = lambda _: FAULTS["refusal"]
    teacher = Teacher(MODEL, store=None)
    assert label(teacher, [view()] * 24) == [None] * 24
    assert teacher.counters.failures == 1
    assert len(provider.log) == 1


def test_one_view_that_always_fails_does_not_end_a_run_whose_other_rows_are_labelled(provider):
    good, bad = views(2)
    png = with_lines(bad.picture).png
    provider.faults = lambda seen: FAULTS["413"] if png in seen.pictures else None
    teacher = Teacher(MODEL, store=None, max_retries=0)
    for _ in range(30):
        assert [row is None for row in label(teacher, [good, bad])] == [False, True]


def test_what_the_store_lacks_is_said_once_and_does_not_end_a_run_that_is_offline(provider, caplog):
    Teacher(MODEL).advise(view())
    rows = label(Teacher(MODEL, offline=True), views(30))
    assert [row is None for row in rows] == [False] + [True] * 29
    assert len(provider.log) == 2
    assert caplog.text.count("what is missing gets no label") == 1


def test_an_outage_ends_a_run_before_every_question_has_been_retried(provider):
    provider.faults = lambda _: FAULTS["500"]
    teacher = Teacher(MODEL, store=None, max_retries=1, concurrency=4)
    with pytest.raises(TeacherError, match="20 questions in a row"):
        label(teacher, views(100))
    assert len(provider.log) < 160  # of 200


def test_after_an_outage_a_new_wrapper_begins_anew(provider):
    provider.faults = lambda _: FAULTS["500"]
    teacher = Teacher(MODEL, store=None, max_retries=0)
    with pytest.raises(TeacherError):
        label(teacher, views(25))
    provider.faults = [FAULTS["500"]]
    teacher.resume()
    assert sum(row is None for row in label(teacher, views(25))) == 1


def test_a_refused_model_uses_up_no_budget_and_its_fallback_answers(provider, caplog):
    provider.faults = lambda seen: FAULTS["401"] if seen.model == "gpt-4o-mini" else None
    teacher = Teacher(MODEL, store=None, fallback_models=["openai/gpt-4o"], budget_calls=21, concurrency=1)
    assert all(row is not None for row in label(teacher, views(10)))
    assert len(provider.log) == 21
    assert len([record for record in caplog.records if "asking the next model" in record.message]) == 1


def test_closing_the_wrapper_waits_for_the_calls_in_flight_and_stores_what_they_bring(provider, store):
    provider.latency = 0.3
    envs = gym.vector.SyncVectorEnv([lambda: gym.make("MiniGrid-LavaGapS7-v0")] * 2)
    envs = VectorTeacherWrapper(envs, MODEL, defer=True, concurrency=1)
    envs.reset(seed=[0, 5])
    while not provider.in_flight:
        time.sleep(0.01)
    envs.close()
    assert len(provider.log) == 1
    assert len(logged(store, outcome="ok")) == 1


@pytest.mark.parametrize("error", [BadReplyError("x", kind="sum", replies=("a",)), TransportError("y", status=503)])
def test_errors_travel_between_processes_whole(error):
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))
