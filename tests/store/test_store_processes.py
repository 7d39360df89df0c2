"""One store in several processes: written at once, forked, killed, and asked so that nothing is paid for twice."""

import contextlib
import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import Message
from lvlm2p_wrappers.store import Store
from lvlm2p_wrappers.store.processes import HOST
from tests.store.store_samples import ANSWER, CALL, FAILURE, changed, sql

ROOT = Path(__file__).parents[2]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def worker(code, *arguments):
    """Start another Python process that has the store's names, CALL and ANSWER."""
    prelude = (
        "import os, sys, time\n"
        "from lvlm2p_wrappers.store import Store\n"
        "from tests.store.store_samples import ANSWER, CALL, changed\n"
        "def say(*words): print(*words, flush=True)\n"
    )
    command = [sys.executable, "-c", prelude + code, *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.split()


def in_fork(work):
    """Run something in a forked child and return the child's id; its exit status is 0 if nothing was raised."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            work()
            status = 0
        os._exit(status)
    return child


def exit_status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestProcesses:
    def test_processes_may_make_the_same_store_at_once(self, location):
        code = "s = Store(sys.argv[1]); s.record(changed(CALL, key=sys.argv[2]), ANSWER)"
        for process in [worker(code, location, n) for n in range(4)]:
            finish(process)
        with Store(location) as store:
            assert all(store.get(str(n)) == ANSWER for n in range(4))

    def test_two_processes_write_and_read_at_once_and_nothing_is_locked_or_lost(self, location):
        code = """
store = Store(sys.argv[1])
for i in range(300):
    store.record(changed(CALL, key=f"{sys.argv[2]}-{i}"), ANSWER)
    assert store.get(f"{sys.argv[2]}-{i}") == ANSWER
    store.get(f"{1 - int(sys.argv[2])}-{i}")
"""
        for process in [worker(code, location, n) for n in range(2)]:
            finish(process)
        with Store(location) as store:
            found = stores.stats(store)
        assert found.answers == {ANSWER.model: 600}
        assert found.calls == {"ok": 600}

    @pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
    def test_kill_9_takes_no_answer_that_was_recorded(self, location):
        process = worker(
            """
store = Store(sys.argv[1])
for i in range(10**9):
    store.record(changed(CALL, key=str(i)), ANSWER)
    say(i)
""",
            location,
        )
        recorded = [process.stdout.readline().strip() for _ in range(100)]
        process.kill()
        rest, _ = process.communicate()
        recorded += rest.split("\n")[:-1]  # a last line cut short was not said to be recorded
        assert process.returncode == -signal.SIGKILL
        with Store(location) as store:
            assert all(store.get(key) == ANSWER for key in recorded)
            logged = {logged.call.key for logged in stores.calls(store)}
            assert logged == {stored.key for stored in stores.answers(store)}  # a call and its answer come together
            store.record(changed(CALL, key="after"), ANSWER)

    def test_pruning_takes_nothing_that_an_import_brings_meanwhile(self, store, new_location, tmp_path):
        """An import during `prune --yes` lost texts and pictures: 738 of 1,448 calls could still be listed."""
        for i in range(300):
            picture = Picture(np.full((8, 8, 3), i % 256, np.uint8))
            store.record(changed(CALL, key=str(i), messages=(Message("user", f"view {i}", picture),)), ANSWER)
        exported = io.StringIO()
        stores.export(store, exported)
        with Store(new_location()) as copy:
            pruner = worker(
                """
from lvlm2p_wrappers.store import prune
store = Store(sys.argv[1]); say("ready")
while not os.path.exists(sys.argv[2]):
    prune(store, older_than_days=0)
""",
                copy.path,
                tmp_path / "stop",
            )
            pruner.stdout.readline()
            for _ in range(5):
                exported.seek(0)
                stores.load(copy, exported)
                for column in ("text", "png"):
                    lost = f"SELECT count(*) FROM turns WHERE {column} NOT IN (SELECT digest FROM parts)"
                    assert sql(copy.path, lost) == [(0,)]
                stores.prune(copy, older_than_days=0)
            (tmp_path / "stop").touch()
            finish(pruner)

    @needs_fork
    def test_a_forked_child_and_its_parent_use_one_store_while_threads_write(self, store):
        stop = threading.Event()
        written = []

        def write():
            while not stop.is_set():
                store.record(changed(CALL, key=f"parent-{len(written)}"), ANSWER)
                written.append(f"parent-{len(written)}")

        def in_child(name):
            for i in range(20):
                store.record(changed(CALL, key=f"child-{name}-{i}"), ANSWER)
                assert store.get(f"child-{name}-{i}") == ANSWER

        thread = threading.Thread(target=write)
        thread.start()
        try:
            children = [in_fork(lambda name=name: in_child(name)) for name in range(4)]
            assert [exit_status(child) for child in children] == [0] * 4
        finally:
            stop.set()
            thread.join()
        keys = {stored.key for stored in stores.answers(store)}
        assert keys == {*written, *(f"child-{name}-{i}" for name in range(4) for i in range(20))}

    @needs_fork
    def test_a_child_loses_nothing_when_its_parent_closes_the_store(self, location):
        store = Store(location)
        store.record(changed(CALL, key="before"), ANSWER)
        closed, close = os.pipe()

        def in_child():
            os.close(close)
            store.record(changed(CALL, key="first"), ANSWER)
            os.read(closed, 1)  # until the parent's end is shut
            store.record(changed(CALL, key="second"), ANSWER)

        child = in_fork(in_child)
        try:
            deadline = time.monotonic() + 30
            while store.get("first") is None and time.monotonic() < deadline:
                time.sleep(0.01)
            store.close()
        finally:
            os.close(close)
        assert exit_status(child) == 0
        os.close(closed)
        with Store(location) as fresh:
            assert [stored.key for stored in stores.answers(fresh)] == ["before", "first", "second"]

    @needs_fork
    def test_a_child_keeps_the_answers_of_a_store_in_memory(self):
        store = Store(None)
        store.record(CALL, ANSWER)

        def in_child():
            assert store.get("k") == ANSWER
            store.record(changed(CALL, key="mine"), ANSWER)
            assert store.get("mine") == ANSWER

        assert exit_status(in_fork(in_child)) == 0
        assert store.get("mine") is None


class TestClaims:
    def test_a_key_is_asked_by_one_store_at_a_time(self, store, location):
        with Store(location) as other:
            assert store.get_or_claim("k", seconds=60) is True
            assert store.get_or_claim("k", seconds=60) is True
            assert not other.get_or_claim("k", seconds=60)
            assert other.get_or_claim("another", seconds=60) is True
            other.release("k")  # not its own
            assert not other.get_or_claim("k", seconds=60)
            store.release("k")
            assert other.get_or_claim("k", seconds=60) is True

    def test_a_claim_ends_with_its_time(self, store, location):
        with Store(location) as other:
            assert other.get_or_claim("k", seconds=0.05) is True
            assert not store.get_or_claim("k", seconds=60)
            time.sleep(0.06)
            assert store.get_or_claim("k", seconds=60) is True
            assert not other.get_or_claim("k", seconds=60)

    def test_an_answered_key_brings_its_answer_and_no_claim(self, store, location):
        with Store(location) as other:
            assert store.get_or_claim("k", seconds=60) is True
            store.record(CALL, ANSWER)
            assert other.get_or_claim("k", seconds=60) == ANSWER
            assert store.get_or_claim("k", seconds=60) == ANSWER

    def test_a_failed_call_does_not_end_the_claim_of_its_asker(self, store, location):
        with Store(location) as other:
            assert store.get_or_claim("k", seconds=60) is True
            store.record(FAILURE)
            assert not other.get_or_claim("k", seconds=60)

    def test_closing_a_store_ends_its_claims(self, store, location):
        with Store(location) as other:
            assert other.get_or_claim("k", seconds=60) is True
        assert store.get_or_claim("k", seconds=60) is True

    @pytest.mark.parametrize(
        ("owner", "ahead_s"),
        [
            ("another-host:1:token", 10**9),
            ("another-host:1:token", 80_000),
            ("another-host:1:token", float("inf")),
            ("another-host:1:token", "tomorrow"),
            ("nobody", 600),
            ("host:x:token", 600),
            (f"{HOST}:-1:token", 600),
            (f"{HOST}:{10**30}:token", 600),
            (b"\xff", 600),
        ],
        ids=["far", "a day", "for ever", "no number", "no owner", "no process", "below 0", "too large", "bytes"],
    )
    def test_a_claim_that_no_store_can_have_made_is_worth_nothing(self, store, location, owner, ahead_s):
        """A store of somebody else's, with a claim that never ends, kept a run waiting for ever, or for a day."""
        expires = ahead_s if isinstance(ahead_s, str) else time.time() + ahead_s
        try:
            sql(location, "INSERT INTO claims VALUES ('k', :owner, :expires)", owner=owner, expires=expires)
        except sa.exc.DBAPIError:
            pytest.skip("this engine keeps nothing of the sort")
        assert store.get_or_claim("k", seconds=60) is True

    @pytest.mark.skipif(sys.platform == "win32", reason="only time ends the claim of a dead process there")
    def test_the_claim_of_a_living_process_holds_and_that_of_a_dead_one_is_taken_over_at_once(self, store, location):
        process = worker("s = Store(sys.argv[1]); say(s.get_or_claim('k', seconds=600)); sys.stdin.read()", location)
        assert process.stdout.readline().strip() == "True"
        assert not store.get_or_claim("k", seconds=60)
        process.kill()
        process.communicate()
        assert store.get_or_claim("k", seconds=60) is True

    @needs_fork
    def test_a_forked_child_does_not_own_its_parents_claim(self, store):
        assert store.get_or_claim("k", seconds=60) is True

        def in_child():
            assert not store.get_or_claim("k", seconds=60)
            store.release("k")
            store.close()

        assert exit_status(in_fork(in_child)) == 0
        with Store(store.path) as other:
            assert not other.get_or_claim("k", seconds=60)

    def test_processes_that_want_the_same_answers_pay_for_each_once(self, location):
        code = """
store = Store(sys.argv[1])
for key in map(str, range(60)):
    while not isinstance(found := store.get_or_claim(key, seconds=60), tuple):
        if found:
            time.sleep(0.002)  # the model thinks
            say(key)
            store.record(changed(CALL, key=key), ANSWER)
        else:
            time.sleep(0.001)
"""
        paid = [key for process in [worker(code, location) for _ in range(3)] for key in finish(process)]
        assert sorted(paid, key=int) == [str(n) for n in range(60)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of its memory as Linux counts it")
def test_the_memory_of_a_run_does_not_grow_with_the_store(tmp_path):
    file = tmp_path / "teacher.sqlite"
    Store(file).close()
    with contextlib.closing(sqlite3.connect(file)) as raw, raw:
        rows = ((f"{i:064x}", ANSWER.text * 8, ANSWER.model, 0.0) for i in range(1_000_000))
        raw.executemany("INSERT INTO answers VALUES (?, ?, ?, ?)", rows)
    process = worker(
        """
import resource
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB
Store(None).get("warm"); before = peak()
store = Store(sys.argv[1])
for i in range(0, 1_000_000, 100):
    assert store.get(f"{i:064x}") is not None
store.record(CALL, ANSWER)
say(peak() - before)
""",
        file,
    )
    assert float(finish(process)[0]) < 20
