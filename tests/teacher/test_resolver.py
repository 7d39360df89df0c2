"""The resolver: a store that is locked, calls that fail in a repair turn, questions that share an answer."""

import sqlite3
import threading
import time
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import Advice, BadReplyError, BudgetError, ModelError, Teacher, TransportError, View
from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.store import Store, calls
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.views import viewer
from tests.provider import FAULTS

MODEL = "openai/gpt-4o-mini"


def views(count):
    env = gym.make("MiniGrid-Fetch-6x6-N2-v0")
    for seed in range(count):
        env.reset(seed=seed)
        yield viewer(env).view()


def noise(count):
    frames = np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3), np.uint8)
    return [View((frame,), ("left", "right"), mission="go") for frame in frames]


@contextmanager
def locked(file, seconds):
    """Another process's write lock, as far as SQLite knows: a connection of its own in another thread."""
    begun = threading.Event()

    def hold():
        connection = sqlite3.connect(file, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        begun.set()
        time.sleep(seconds)
        connection.execute("ROLLBACK")
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    yield
    thread.join()


def test_replies_that_arrive_while_the_store_is_locked_are_kept_and_not_paid_again(provider, tmp_path):
    """A store locked for longer than a call may take threw arrived replies away, and they were paid for again."""
    file = tmp_path / "locked.sqlite"
    teacher = Teacher(MODEL, store=file, timeout_s=2.5, max_retries=2)
    shown = list(views(9))
    teacher.advise(shown[0])  # LiteLLM is there
    provider.latency = 0.5
    rows = [teacher.submit(view) for view in shown[1:]]
    while provider.in_flight < len(rows):
        time.sleep(0.01)
    with locked(file, 4.0):
        time.sleep(3.0)  # longer than a call may take
        assert provider.in_flight == 0, "the replies arrive meanwhile"
    outcomes = teacher.collect(rows, on_error="raise")
    assert all(isinstance(outcome, Advice) for outcome in outcomes)
    assert len(provider.log) == 2 * len(shown)
    with Store(file) as store:
        assert [row.call.outcome for row in calls(store)] == ["ok"] * len(provider.log)


def test_what_waits_for_a_store_that_stays_locked_waits_no_minute_each(provider, tmp_path, monkeypatch):
    """Each of the replies in flight waited a minute of its own for the lock, and so did the end of the run."""
    monkeypatch.setattr("lvlm2p_wrappers.store.sqlite.BUSY_S", 4.0)
    teacher = Teacher(MODEL, store=tmp_path / "locked.sqlite", max_retries=0)
    shown = list(views(9))
    teacher.advise(shown[0])
    teacher.close()
    teacher.advise(shown[0])  # opened anew, with the shorter wait
    provider.latency = 0.5
    rows = [teacher.submit(view) for view in shown[1:]]
    while provider.in_flight < len(rows):
        time.sleep(0.01)
    began = time.monotonic()
    with locked(tmp_path / "locked.sqlite", 20.0):
        with pytest.raises(StoreError, match="locked"):
            teacher.collect(rows, on_error="raise")
        assert time.monotonic() - began < 18  # of 8 times 4 s


def test_a_locked_store_stops_no_other_teachers_calls(provider, tmp_path):
    """A store blocked the event loop on which all calls of the process run."""
    busy, free = Teacher(MODEL, store=tmp_path / "busy.sqlite"), Teacher(MODEL, store=tmp_path / "free.sqlite")
    first, second = views(2)
    free.advise(first)
    with locked(tmp_path / "busy.sqlite", 2.0):
        waiting = busy.submit(first)
        free.advise(second)
        assert not waiting.future.done()
        assert len(provider.log) == 4
    assert busy.collect([waiting], on_error="raise")[0].probs.shape == (7,)


def test_an_attempt_that_fails_in_a_repair_turn_is_logged_under_its_question(provider, tmp_path):
    """A failed repair turn was logged under a key of its own, where nobody who asked about the view saw it."""
    provider.faults = [FAULTS["malformed_json"], FAULTS["503"], FAULTS["503"]]
    (view,) = views(1)
    with Store(tmp_path / "s.sqlite") as store:
        teacher = Teacher(MODEL, store=store.path, max_retries=1)
        with pytest.raises(TransportError, match="503"):
            teacher.advise(view)
        (analysis,) = conversation(teacher, view)
        logged = [row.call for row in calls(store)][::-1]
    assert [call.outcome for call in logged] == ["bad_reply", "error", "error"]
    assert len({call.key for call in logged}) == 1
    assert (analysis.outcome, analysis.reply) == ("error", None)
    assert "503" in analysis.problem
    assert len(analysis.messages) == 4, "what was sent last: the repair turn"
    assert analysis.latency_s == pytest.approx(sum(call.latency_s for call in logged))


def test_many_views_are_labelled_at_once_and_each_failure_says_why(provider):
    provider.latency = 0.1
    good, refused, lost = noise(3)
    faults = {refused.picture.png: FAULTS["refusal"], lost.picture.png: FAULTS["503"]}
    provider.faults = lambda seen: faults.get(seen.pictures[-1])
    teacher = Teacher(MODEL, store=None, max_retries=0)
    advice, bad, failed, again = teacher.label([good, refused, lost, good])
    assert advice.probs.shape == (2,)
    assert np.array_equal(advice.probs, again.probs)
    assert (advice.cached, again.cached, again.cost_usd) == (False, True, 0.0)
    assert isinstance(bad, BadReplyError)
    assert isinstance(failed, TransportError)
    assert provider.peak_in_flight == 3
    counters = teacher.counters
    assert (counters.labels, counters.cached, counters.failures) == (2, 1, 2)


def test_what_only_the_user_can_mend_ends_labelling(provider):
    provider.faults = lambda _: FAULTS["401"]
    with pytest.raises(ModelError):
        Teacher(MODEL, store=None).label(noise(3))
    assert Teacher(MODEL, store=None).label([]) == []


def test_views_that_the_budget_did_not_allow_are_told_apart(provider):  # noqa: ARG001
    outcomes = Teacher(MODEL, store=None, budget_calls=2, concurrency=1).label(noise(3))
    assert isinstance(outcomes[0], Advice)
    assert all(isinstance(outcome, BudgetError) for outcome in outcomes[1:])


def test_advice_asked_for_again_says_that_it_cost_nothing(provider):
    teacher, (view,) = Teacher(MODEL, store=None), noise(1)
    first, second = teacher.advise(view), teacher.advise(View(view.pictures, view.actions, mission="go"))
    assert np.array_equal(first.probs, second.probs)
    assert first.cost_usd > 0
    assert (second.cached, second.cost_usd) == (True, 0.0)
    assert len(provider.log) == 2


def test_questions_that_wait_for_a_locked_store_do_not_keep_their_pixels(provider, tmp_path):  # noqa: ARG001
    teacher = Teacher(MODEL, store=tmp_path / "s.sqlite")
    frames = np.random.default_rng(0).integers(0, 4, (60, 200, 200, 3), np.uint8)
    with locked(tmp_path / "s.sqlite", 2.0):
        asked = [View((frame,), ("left", "right")) for frame in frames]
        rows = [teacher.submit(view) for view in asked]
        deadline = time.monotonic() + 1.5
        while (kept := sum(_pixels(view) for view in asked)) > 25 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kept <= 25
    teacher.drain(rows)


def _pixels(view):
    return any(strip.pixels is not None for strip in view.picture._strips)
