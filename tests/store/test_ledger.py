"""The budget and the rate limit that all who share a store keep, on each engine."""

import math
import threading
import time

import pytest

from lvlm2p_wrappers.store import Ledger, Store
from tests.store.store_samples import sql
from tests.store.test_store_processes import finish, worker


@pytest.fixture
def ledger(store):
    return Ledger(store)


@pytest.fixture
def other(location):
    """Another process's, as far as leases go."""
    with Store(location) as store:
        yield Ledger(store)


def held(ledger, uid, nano=10, **limits):
    return ledger.reserve(uid, nano, **{"usd": None, "calls": None} | limits)


class TestBudget:
    def test_what_one_sets_aside_or_spends_leaves_less_to_the_other(self, ledger, other):
        assert held(ledger, "a", 60, usd=100) == (True, 0, 60, 1)
        assert held(other, "b", 50, usd=100) == (False, 0, 60, 1)
        ledger.settle("a", 60, charge=45, is_made=True)
        assert held(other, "b", 50, usd=100) == (True, 45, 50, 2)
        assert held(ledger, "c", 6, usd=100) == (False, 45, 50, 2)
        assert held(ledger, "c", 5, usd=100).is_held

    def test_calls_are_counted_for_all(self, ledger, other):
        assert held(ledger, "a", calls=2).is_held
        assert held(other, "b", calls=2).is_held
        assert held(ledger, "c", calls=2) == (False, 0, 20, 2)
        other.settle("b", 10, charge=0, is_made=False)  # given up before it was sent
        assert held(ledger, "c", calls=2).is_held

    def test_a_reservation_is_made_and_settled_once_however_often_that_is_said(self, ledger):
        """Where a server goes away, nobody knows whether the last transaction has ended."""
        for _ in range(3):
            assert held(ledger, "a", 60, usd=100) == (True, 0, 60, 1)
        for _ in range(3):
            ledger.settle("a", 60, charge=5, is_made=True)
        assert held(ledger, "b", 95, usd=100) == (True, 5, 95, 2)

    def test_what_a_dead_process_had_set_aside_is_charged_as_spent(self, ledger, location):
        process = worker(
            """
from lvlm2p_wrappers.store import Ledger
ledger = Ledger(Store(sys.argv[1]))
say(ledger.reserve("a", 60, usd=100, calls=None).is_held); sys.stdin.read()
""",
            location,
        )
        assert process.stdout.readline().strip() == "True"
        assert held(ledger, "b", 50, usd=100) == (False, 0, 60, 1)
        process.kill()
        process.communicate()
        assert held(ledger, "b", 50, usd=100) == (False, 60, 0, 1)
        assert held(ledger, "b", 40, usd=100) == (True, 60, 40, 2)

    def test_a_lease_that_its_owner_renews_does_not_end(self, ledger, other, store, location):
        assert held(ledger, "a", 60, usd=100).is_held
        sql(location, "UPDATE reservations SET owner = 'another-host:1:token', expires = expires - 121")
        assert held(other, "b", 50, usd=100).spent == 60
        assert held(ledger, "c", 20, usd=100).is_held
        sql(location, "UPDATE reservations SET expires = expires - 121")
        store.renew(seconds=120)
        assert held(other, "d", 30, usd=100) == (False, 60, 20, 2)

    def test_processes_never_set_aside_more_than_there_is(self, location, ledger):
        code = """
from lvlm2p_wrappers.store import Ledger
ledger = Ledger(Store(sys.argv[1]))
for i in range(60):
    uid = f"{sys.argv[2]}-{i}"
    standing = ledger.reserve(uid, 7, usd=500, calls=None)
    assert standing.spent + standing.reserved <= 500, standing
    if standing.is_held:
        ledger.settle(uid, 7, charge=5, is_made=True)
        say(5)
"""
        spent = [int(each) for process in [worker(code, location, n) for n in range(2)] for each in finish(process)]
        assert sum(spent) == held(ledger, "last").spent
        assert 480 < sum(spent) <= 500


class TestStarts:
    def start(self, ledger, uid, rpm=2, window_s=0.3):
        return ledger.start(uid, rpm=rpm, window_s=window_s)

    def test_a_call_counts_from_its_start_until_a_window_after_its_end(self, ledger, other):
        assert self.start(ledger, "a") == self.start(ledger, "a") == self.start(other, "b") == 0
        assert self.start(ledger, "c") == math.inf
        other.end("b")
        ended = time.monotonic()
        delay = self.start(ledger, "c")
        assert 0 < delay <= 0.3
        time.sleep(delay)
        assert self.start(other, "c") == 0
        assert time.monotonic() - ended >= 0.299
        assert self.start(ledger, "d") == math.inf

    def test_calls_of_a_dead_process_count_for_one_window_more(self, ledger, location):
        code = """
from lvlm2p_wrappers.store import Ledger
ledger = Ledger(Store(sys.argv[1]))
say(*(ledger.start(uid, rpm=2, window_s=0.3) for uid in "ab")); sys.stdin.read()
"""
        process = worker(code, location)
        assert process.stdout.readline().split() == ["0.0", "0.0"]
        assert self.start(ledger, "c") == math.inf
        process.kill()
        process.communicate()
        died, delay = time.monotonic(), self.start(ledger, "c")
        assert 0.2 < delay <= 0.3
        time.sleep(delay)
        assert self.start(ledger, "c") == 0
        assert time.monotonic() - died >= 0.299

    def test_no_more_begin_within_any_window_than_rpm(self, ledger, other):
        starts, lock = [], threading.Lock()

        def work(ledger, name):
            for i in range(12):
                while (delay := self.start(ledger, f"{name}-{i}", rpm=5)) > 0:
                    time.sleep(min(delay, 0.05))
                with lock:
                    starts.append(time.monotonic())
                ledger.end(f"{name}-{i}")

        threads = [threading.Thread(target=work, args=each) for each in ((ledger, "a"), (other, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        starts.sort()
        assert len(starts) == 24
        assert min(later - earlier for earlier, later in zip(starts, starts[5:], strict=False)) >= 0.299
