"""A budget and a rate limit for all who share a store, by the provider's count."""

import functools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lvlm2p_wrappers import BudgetError, Teacher, UsageError
from lvlm2p_wrappers.client.shared import SharedRateLimiter
from tests.client.asking import MODEL, labels, views
from tests.provider import FAULTS

ROOT = Path(__file__).parents[2]


def together(*works):
    """Run functions at the same time, and return what they return."""
    found = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: works[i]()})) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(len(works))]


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    return request.getfixturevalue("postgres").url() if request.param == "postgresql" else str(tmp_path / "a.sqlite")


def least_window(provider, rpm):
    """The shortest time within which one call more than ``rpm`` arrived."""
    arrivals = sorted(each.received for each in provider.log)
    return min(later - earlier for earlier, later in zip(arrivals, arrivals[rpm:], strict=False))


def test_teachers_with_one_store_spend_one_budget(provider, location):
    provider.latency = 0.02
    options = {"store": location, "budget_scope": "store", "budget_usd": 0.01, "max_tokens": 400}
    teachers = [Teacher(MODEL, **options, concurrency=4 + i) for i in range(2)]
    works = [functools.partial(labels, each, list(views(30, first=100 * i))) for i, each in enumerate(teachers)]
    found = [each for part in together(*works) for each in part]
    assert {type(each) for each in found} == {np.ndarray, BudgetError}
    assert 0.005 < provider.cost_usd <= 0.01
    with pytest.raises(BudgetError, match=r"\$0.01 is spent \(\d+ calls, \$0.00\d\d, of all who share the store\)"):
        Teacher(MODEL, **options).advise(next(views(1, first=500)))
    assert sum(teacher.counters.charged_usd for teacher in teachers) == pytest.approx(provider.cost_usd, abs=1e-6)
    more = Teacher(MODEL, **options | {"budget_usd": 0.02}, spent_usd=1.0)  # what the run has spent is counted there
    assert more.advise(next(views(1, first=500))).probs.sum() == pytest.approx(1)


def test_calls_are_counted_for_all_and_what_is_not_made_is_not(provider, location):
    provider.faults = [FAULTS["401"]]
    options = {"store": location, "budget_scope": "store", "budget_calls": 5}
    with pytest.raises(UsageError):
        Teacher(MODEL, **options).advise(next(views(1)))
    second, third = Teacher(MODEL, **options), Teacher(MODEL, **options, max_retries=1)
    found = labels(second, list(views(3, first=10))) + labels(third, list(views(3, first=20)))
    assert len(provider.log) == 5
    assert 1 <= sum(isinstance(each, np.ndarray) for each in found) <= 2


def test_teachers_with_one_store_keep_one_rate_limit(provider, location, monkeypatch):
    """A minute is a second here."""
    limiter = functools.partial(SharedRateLimiter, window_s=1.0)
    monkeypatch.setattr("lvlm2p_wrappers.client.limits.SharedRateLimiter", limiter)
    provider.latency = 0.05
    teachers = [Teacher(MODEL, store=location, rpm=12, rpm_scope="store", max_retries=i) for i in range(2)]
    works = [functools.partial(labels, each, list(views(9, first=100 * i))) for i, each in enumerate(teachers)]
    found = [each for part in together(*works) for each in part]
    assert all(isinstance(each, np.ndarray) for each in found)
    assert len(provider.log) == 36
    assert least_window(provider, 12) >= 1.0


def test_calls_that_wait_for_others_starts_end_when_they_are_given_up(provider, location):
    first = Teacher(MODEL, store=location, rpm=2, rpm_scope="store")
    first.advise(next(views(1)))
    with Teacher(MODEL, store=location, rpm=2, rpm_scope="store", max_retries=1) as waiting:
        rows = [waiting.submit(view) for view in views(3, first=10)]
        waiting.drain(rows)
        assert all(row.future.done() for row in rows)
    assert len(provider.log) == 2


@pytest.mark.parametrize("scope", ["machine", None, ""])
def test_another_scope_is_refused(scope):
    with pytest.raises(UsageError, match=f"budget_scope must be 'process' or 'store', not {scope!r}"):
        Teacher(MODEL, budget_scope=scope)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_eight_processes_some_of_them_killed_keep_budget_and_rate(provider, location):
    """A minute is three seconds here."""
    code = """
import functools, sys
from lvlm2p_wrappers import Teacher
from lvlm2p_wrappers.client import limits, shared
from tests.client.asking import MODEL, views
limits.SharedRateLimiter = functools.partial(shared.SharedRateLimiter, window_s=3.0)
options = dict(budget_usd=0.03, budget_scope="store", rpm=60, rpm_scope="store", concurrency=6, max_tokens=400)
with Teacher(MODEL, store=sys.argv[1], **options) as teacher:
    print("ready", flush=True)
    teacher.label(views(40, first=20 * int(sys.argv[2])))
"""
    provider.latency = 0.2

    def begin(number):
        command = [sys.executable, "-c", code, location, str(number)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})

    processes = [begin(number) for number in range(8)]
    for process in processes:
        process.stdout.readline()
    for number in (2, 5):
        while len(provider.log) < 12 * number:
            time.sleep(0.01)
        processes[number].kill()
        processes[number].wait()
        processes[number] = begin(number)
    assert [process.wait(200) for process in processes] == [0] * 8
    assert 0.02 < provider.cost_usd <= 0.03
    assert least_window(provider, 60) >= 3.0
