"""A store on a PostgreSQL server: what is refused, what is told of it, and what happens when it goes away."""

import json
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from lvlm2p_wrappers import Advice, Teacher
from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.store import Store
from tests.client.asking import MODEL, views
from tests.postgres import PostgresServer
from tests.store.store_samples import ANSWER, CALL, changed, sql
from tests.store.test_store_processes import worker

SECRET = "correct-horse-battery"


@pytest.fixture
def server():
    """A server of its own, for a test that ends it."""
    with PostgresServer() as server:
        yield server


class TestBadPlaces:
    @pytest.mark.parametrize(
        ("url", "told"),
        [
            ("postgresql://me@host/teacher", r"URL of postgresql: give .* postgresql\+psycopg://USER@HOST/DATABASE"),
            ("mysql://host/teacher", "URL of mysql"),
            ("postgresql+psycopg://me@host", "names no database"),
            ("postgresql+psycopg://me@host:port/teacher", "cannot be read"),
            ("://", "cannot be read"),
            ("postgresql+psycopg://me@127.0.0.1:9/teacher", "cannot be used: .*(refused|failed)"),
            ("postgresql+psycopg://me@no-such-host.invalid/teacher", "cannot be used: .*(resolve|failed)"),
        ],
    )
    def test_what_is_no_database_is_named_and_makes_no_folder(self, tmp_path, url, told):
        with pytest.raises(StoreError, match=told) as caught:
            Store(url)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_a_database_that_is_not_there_is_named_with_the_way_out(self, postgres):
        with pytest.raises(StoreError, match=r"/none.*make the database first, with `createdb`"):
            Store(postgres.url(database="none", schema="public"))

    def test_a_database_of_something_else_is_refused_and_left_alone(self, postgres):
        url = postgres.url()
        sql(url, "CREATE TABLE songs (title text)")
        for read_only in (False, True):
            with pytest.raises(StoreError, match="something else, not an lvlm2p store"):
                Store(url, read_only=read_only)
        assert sql(url, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()") == [("songs",)]

    def test_one_that_is_only_read_is_not_made(self, postgres):
        url = postgres.url()
        with pytest.raises(StoreError, match="is empty, not an lvlm2p store"):
            Store(url, read_only=True)
        assert sql(url, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()") == []

    def test_a_database_that_cannot_keep_every_text_is_refused(self, postgres):
        postgres.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        with pytest.raises(StoreError, match="createdb -E UTF8"):
            Store(postgres.url(database="latin", schema="public"))

    def test_a_user_who_may_only_read_reads(self, postgres):
        url = postgres.url()
        with Store(url) as store:
            store.record(CALL, ANSWER)
        (schema,) = sql(url, "SELECT current_schema()")[0]
        postgres.sql("CREATE ROLE reader LOGIN")
        postgres.sql(
            f"GRANT USAGE ON SCHEMA {schema} TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader"
        )
        with Store(postgres.url(user="reader", schema=schema), read_only=True) as store:
            assert store.get("k") == ANSWER
        with pytest.raises(StoreError, match="permission denied"):
            Store(postgres.url(user="reader", schema=schema))

    def test_without_its_driver_the_extra_is_named(self):
        code = """
import sys; sys.modules["psycopg"] = None
from lvlm2p_wrappers.store import Store
Store("postgresql+psycopg://me@host/teacher")
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (
            "UsageError: a store on a server needs PostgreSQL's driver: pip install 'lvlm2p[postgres]'" in done.stderr
        )


@pytest.fixture
def locked(postgres):
    """The URL of a store whose user needs a password."""
    url = postgres.url()
    (schema,) = sql(url, "SELECT current_schema()")[0]
    postgres.sql(f"DROP ROLE IF EXISTS locked; CREATE ROLE locked LOGIN PASSWORD '{SECRET}'")
    postgres.sql(f"ALTER SCHEMA {schema} OWNER TO locked")
    yield postgres.url(user="locked", schema=schema)
    postgres.sql(f"DROP SCHEMA {schema} CASCADE; DROP OWNED BY locked; DROP ROLE locked")


class TestPassword:
    """A password is nowhere but where the user has put it."""

    def test_it_is_read_from_the_environment(self, locked, monkeypatch):
        monkeypatch.setenv("PGPASSWORD", SECRET)
        with Store(locked) as store:
            store.record(changed(CALL, reply=f"you are {SECRET}"), ANSWER)
            (logged,) = stores.calls(store)
        assert logged.call.reply == "you are <PGPASSWORD>"

    def test_in_the_environments_url_it_is_used_and_told_nowhere(self, locked, monkeypatch, caplog):
        monkeypatch.setenv("LVLM2P_STORE", locked.replace("locked@", f"locked:{SECRET}@"))
        with Store() as store:
            store.record(changed(CALL, problem=f"password={SECRET}"), ANSWER)
            told = [store.path, store.how_to_drop("k"), str(stores.stats(store)), str(list(stores.calls(store)))]
        monkeypatch.setenv("LVLM2P_STORE", locked.replace("locked@", f"locked:{SECRET[:-1]}@"))
        with pytest.raises(StoreError, match=r"another password, from \$PGPASSWORD, ~/\.pgpass") as caught:
            Store()
        assert SECRET[:-1] not in f"{told} {caught.value} {caught.value.__cause__} {caplog.text}"

    @pytest.mark.parametrize("url", ["me:{}@host/teacher", "me@host/teacher?password={}", "me@host/t?sslpassword={}"])
    def test_in_an_argument_it_is_refused_unseen(self, url):
        with pytest.raises(StoreError, match=r"\$PGPASSWORD, ~/\.pgpass or \$LVLM2P_STORE") as caught:
            Store("postgresql+psycopg://" + url.format(SECRET))
        assert SECRET not in str(caught.value)

    def test_in_a_url_that_cannot_be_read_it_is_not_told(self):
        with pytest.raises(StoreError) as caught:
            Store(f"postgresql+psycopg://me:{SECRET}@host:port/teacher")
        assert SECRET not in str(caught.value)


@pytest.mark.slow
def test_a_training_run_whose_url_has_the_password_leaves_it_nowhere_and_its_answers_can_be_had_offline(
    locked, monkeypatch, tmp_path
):
    script = Path(__file__).parents[2] / "algos" / "ppo_lvlm2p.py"
    monkeypatch.setenv("LVLM2P_STORE", locked.replace("locked@", f"locked:{SECRET}@"))
    told = ""
    for flags in ([], ["--offline"]):
        flags += ["--total-timesteps", "64", "--num-envs", "2", "--num-steps", "16", "--checkpoint-every", "1"]
        done = subprocess.run(
            [sys.executable, script, *flags], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        told += done.stdout + done.stderr
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.name for file in written} >= {"checkpoint.pt", "summary.json", "curve.csv"}
    assert not [file for file in written if SECRET.encode() in file.read_bytes()]
    assert SECRET not in told
    assert "Store: postgresql+psycopg://locked@127.0.0.1" in told
    first, second = sorted(tmp_path.rglob("summary.json"), key=lambda file: file.stat().st_mtime)
    first, second = (json.loads(file.read_text())["teacher"] for file in (first, second))
    assert first["calls"] > 0
    assert (second["calls"], second["labels"]) == (0, first["labels"])


class TestServerGoesAway:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["shut down", "crash"])
    def test_what_arrived_meanwhile_is_written_once_it_is_back(self, server, how, caplog):
        caplog.set_level(logging.WARNING)
        with Store(server.url()) as store:
            store.record(changed(CALL, key="before"), ANSWER)
            assert store.get_or_claim("k", seconds=60) is True
            server.stop(how)
            writing = [threading.Thread(target=store.record, args=(changed(CALL, key=k), ANSWER)) for k in "kl"]
            for thread in writing:
                thread.start()
            time.sleep(1)
            assert all(thread.is_alive() for thread in writing)
            server.start()
            for thread in writing:
                thread.join(30)
            assert [stored.key for stored in stores.answers(store)] == ["before", "k", "l"]
            assert stores.stats(store).calls == {"ok": 3}
        assert len([record for record in caplog.records if "it is waited for 60 s" in record.message]) == 1

    def test_a_teacher_pays_for_nothing_twice(self, server, provider):
        teacher = Teacher(MODEL, store=server.url(), budget_usd=1.0, budget_scope="store", rpm=1000, rpm_scope="store")
        shown = list(views(9))
        teacher.advise(shown[0])
        provider.latency = 1.0
        rows = [teacher.submit(view) for view in shown[1:]]
        while provider.in_flight < len(rows):
            time.sleep(0.01)
        server.stop(signal.SIGQUIT)
        while provider.in_flight:  # the replies arrive meanwhile
            time.sleep(0.01)
        time.sleep(1)
        assert len(provider.log) == 2 + len(rows), "nothing new is asked"
        server.start()
        assert all(isinstance(outcome, Advice) for outcome in teacher.collect(rows, on_error="raise"))
        assert len(provider.log) == 2 * len(shown)
        assert stores.stats(teacher.store).calls == {"ok": 2 * len(shown)}
        assert stores.stats(teacher.store).shared_usd == pytest.approx(provider.cost_usd, abs=1e-6)
        teacher.close()

    def test_what_had_arrived_is_kept_in_a_file_where_it_does_not_come_back(self, server, monkeypatch, tmp_path):
        monkeypatch.setattr("lvlm2p_wrappers.store.postgres.PATIENCE_S", 0.5)
        monkeypatch.setattr("platformdirs.user_cache_path", lambda _: tmp_path / "cache")
        url = server.url()
        with Store(url) as store:
            server.stop()
            for key in "ab":
                with pytest.raises(StoreError, match=r"kept in .*unwritten-.*sqlite; once .*`lvlm2p store export"):
                    store.record(changed(CALL, key=key), ANSWER)
            server.start()
        (file,) = (tmp_path / "cache").glob("unwritten-*.sqlite")
        with Store(file) as kept, Store(url) as store, (tmp_path / "kept.jsonl").open("w+") as lines:
            stores.export(kept, lines)
            lines.seek(0)
            assert stores.load(store, lines) == (2, 2, 0)

    def test_one_that_does_not_come_back_ends_the_run(self, server, monkeypatch, tmp_path):
        monkeypatch.setattr("platformdirs.user_cache_path", lambda _: tmp_path / "cache")
        monkeypatch.setattr("lvlm2p_wrappers.store.postgres.PATIENCE_S", 1.0)
        store = Store(server.url())
        server.stop()
        started = time.monotonic()
        for ask in (lambda: store.get("k"), lambda: store.record(CALL, ANSWER), lambda: store.renew(seconds=1)):
            with pytest.raises(StoreError, match="cannot be used"):
                ask()
        store.close()
        assert 1 < time.monotonic() - started < 10  # it is waited for once, not for each
        server.start()
        assert store.get_or_claim("k", seconds=1) is True
        store.close()


class Writer:
    """A process that asks one question after another, as others do, until a file is there."""

    CODE = """
store = Store(sys.argv[1])
for key in map(str, range(int(sys.argv[2]), 10**9)):
    if os.path.exists(sys.argv[3]):
        break
    while not isinstance(found := store.get_or_claim(key, seconds=60), tuple):
        if found:
            say("asked", key)
            time.sleep(0.005)  # the model thinks
            store.record(changed(CALL, key=key), ANSWER)
            say("kept", key)
        else:
            time.sleep(0.005)
"""

    def __init__(self, url, first, stop):
        self.process, self.told = worker(self.CODE, url, first, stop), []
        self.reading = threading.Thread(target=lambda: self.told.extend(iter(self.process.stdout.readline, "")))
        self.reading.start()

    def said(self, word):
        """The keys of which it said so; a last line that was cut short says nothing."""
        return [line.split()[1] for line in list(self.told) if line.startswith(word) and line.endswith("\n")]

    def wait_until_it_asks(self):
        while not self.said("asked"):
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.01)

    def end(self):
        status = self.process.wait(60)
        self.reading.join(60)
        return status


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_writers_killed_twenty_times_and_a_server_that_crashes_lose_no_answer_and_pay_for_none_twice(server, tmp_path):
    url, stop, chance = server.url(), tmp_path / "stop", random.Random(0)
    writers, killed = [Writer(url, 0, stop) for _ in range(4)], []
    for kill in range(20):
        victim = chance.choice(writers)
        victim.wait_until_it_asks()
        time.sleep(chance.uniform(0, 0.1))
        victim.process.kill()
        victim.end()
        killed.append(victim)
        writers.remove(victim)
        done = max(int(key) for writer in writers + killed for key in writer.said("asked"))
        if kill == 10:
            for writer in writers:
                writer.wait_until_it_asks()
            server.stop(signal.SIGQUIT)
            time.sleep(1)
            server.start()
        writers.append(Writer(url, max(0, done - 8), stop))
    for writer in writers:
        writer.wait_until_it_asks()
    stop.touch()
    assert [writer.end() for writer in writers] == [0] * 4
    kept = [key for writer in writers + killed for key in writer.said("kept")]
    asked = Counter(key for writer in writers + killed for key in writer.said("asked"))
    unsure = Counter(key for writer in killed for key in set(writer.said("asked")) - set(writer.said("kept")))
    with Store(url) as store:
        stored = {answer.key for answer in stores.answers(store)}
        logged = Counter(entry.call.key for entry in stores.calls(store))
    assert len(kept) > 100
    assert set(kept) <= stored == set(logged)
    assert set(logged.values()) == {1}
    # Asked again is only what a killed writer had asked and not been able to keep.
    assert all(times <= 1 + unsure[key] for key, times in asked.items())
    assert sum(times - 1 for times in asked.values()) <= 20


@pytest.mark.slow
def test_twenty_thousand_answers_are_read_and_exported(postgres, tmp_path):
    url = postgres.url()
    with Store(url) as store, (tmp_path / "export.jsonl").open("w+") as file:
        rows = "INSERT INTO answers SELECT md5(i::text), '{}', 'm', i FROM generate_series(1, 20000) i"
        sql(url, rows)
        assert len({answer.key for answer in stores.answers(store)}) == 20_000
        assert stores.export(store, file) == 20_001
        file.seek(0)
        with Store(postgres.url()) as copy:
            assert stores.load(copy, file) == (20_000, 0, 0)
            assert stores.stats(copy).answers == {"m": 20_000}
            assert stores.prune(copy, model="m") == (20_000, 0, 0)
