"""The store on a real SQLite file: what it keeps, what it refuses, and where it is."""

import contextlib
import json
import sqlite3
import sys
import threading
from pathlib import Path

import platformdirs
import pytest

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.errors import StoreError, UsageError
from lvlm2p_wrappers.records import Answer, Message
from lvlm2p_wrappers.store import Store
from tests.store.store_samples import ANSWER, CALL, FAILURE, changed


@pytest.fixture
def file(tmp_path):
    return tmp_path / "teacher.sqlite"


@pytest.fixture
def store(file):
    with Store(file) as opened:
        yield opened


class TestAnswers:
    def test_what_was_recorded_is_there_and_nothing_else_is(self, store):
        store.record(CALL, ANSWER)
        assert store.get("k") == ANSWER
        assert store.get("another") is None

    def test_a_new_process_finds_the_answers_of_an_old_one(self, file):
        with Store(file) as old:
            old.record(CALL, ANSWER)
        with Store(file) as new:
            assert new.get("k") == ANSWER

    def test_a_failed_call_is_logged_and_answers_nothing(self, store):
        store.record(FAILURE)
        assert store.get("k") is None
        assert [logged.call for logged in stores.calls(store)] == [FAILURE]

    def test_the_first_answer_to_a_key_stays(self, store):
        store.record(CALL, ANSWER)
        store.record(CALL, Answer("{}", "another model"))
        assert store.get("k") == ANSWER

    def test_a_closed_store_opens_again_when_it_is_used(self, store):
        store.record(CALL, ANSWER)
        store.close()
        assert store.get("k") == ANSWER

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
    def test_a_closed_store_holds_no_handle(self, tmp_path):
        """Hundreds of teachers made and closed end in "unable to open database file"."""

        def opened():
            targets = (handle.readlink() for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink())
            return [target for target in targets if tmp_path in target.parents]

        stores = [Store(tmp_path / f"{i}.sqlite") for i in range(3)]
        for store in stores:
            store.record(CALL, ANSWER)
            assert store.get_or_claim("left open", seconds=60) is True
        assert opened()
        for store in stores:
            store.close()
            store.close()
        assert opened() == []

    def test_a_store_whose_database_fails_can_be_closed(self, store, file):
        assert store.get_or_claim("k", seconds=60) is True
        store.close()
        assert store.get_or_claim("k", seconds=60) is True
        file.write_bytes(b"no database any more" * 1000)
        file.with_name(file.name + "-wal").write_bytes(b"")
        store.close()

    def test_text_that_utf8_cannot_hold_is_kept_escaped(self, store):
        store.record(changed(CALL, reply='"\ud800 \x00 é"', outcome="bad_reply"))
        (logged,) = stores.calls(store)
        assert logged.call.reply == '"\\ud800 \x00 é"'

    def test_threads_share_a_store(self, store):
        def work(name):
            for i in range(50):
                store.record(changed(CALL, key=f"{name}-{i}"), ANSWER)
                assert store.get(f"{name}-{i}") == ANSWER

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stores.stats(store).answers == {ANSWER.model: 200}


class TestPlace:
    def test_the_environment_variable_names_the_file(self, monkeypatch, tmp_path):
        monkeypatch.setenv("LVLM2P_STORE", str(tmp_path / "new" / "folder" / "mine.sqlite"))
        with Store() as store:
            assert store.path == str(tmp_path / "new" / "folder" / "mine.sqlite")
        assert Path(store.path).is_file()

    @pytest.mark.skipif(sys.platform == "win32", reason="the cache folder does not follow the environment there")
    def test_without_it_the_file_is_in_the_users_cache_folder(self, monkeypatch, tmp_path):
        monkeypatch.delenv("LVLM2P_STORE")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with Store() as store:
            assert Path(store.path) == platformdirs.user_cache_path("lvlm2p") / "teacher.sqlite"
        assert Path(store.path).is_relative_to(tmp_path)

    def test_a_store_in_memory_answers_and_writes_no_file(self, tmp_path):
        with Store(None) as store:
            assert store.get_or_claim("k", seconds=60) is True
            store.record(CALL, ANSWER)
            assert store.get("k") == ANSWER
            assert store.path == "none (in memory)"
            assert list(stores.calls(store)) == []
        assert list(tmp_path.rglob("*")) == []


class TestBadPlaces:
    def test_a_path_that_cannot_be_written_is_named(self, tmp_path):
        (tmp_path / "plain").write_text("a file, not a folder")
        for path in (tmp_path / "plain" / "store.sqlite", Path("/dev/null/store.sqlite")):
            with pytest.raises(StoreError, match=r"cannot be opened.*LVLM2P_STORE") as caught:
                Store(path)
            assert str(path) in str(caught.value)

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
    def test_a_folder_in_which_nothing_can_be_made_is_named(self):
        with pytest.raises(StoreError, match=r"/proc/store\.sqlite cannot be used: .*unable to open"):
            Store("/proc/store.sqlite")

    def test_a_folder_is_refused(self, tmp_path):
        with pytest.raises(StoreError, match="is a folder"):
            Store(tmp_path)

    def test_a_url_is_refused_and_makes_no_folder(self, tmp_path):
        with pytest.raises(StoreError, match="is a URL"):
            Store("postgresql://host/teacher")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_no_database_is_refused_and_left_alone(self, file):
        file.write_text("notes of mine\n" * 100)
        with pytest.raises(StoreError, match="not an lvlm2p store") as caught:
            Store(file)
        assert str(file) in str(caught.value)
        assert file.read_text() == "notes of mine\n" * 100

    @pytest.mark.parametrize("table", ["songs (title)", "meta (other)", "meta (name, value)"])
    def test_a_database_of_something_else_is_refused_and_left_alone(self, file, table):
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.execute(f"CREATE TABLE {table}")
            other.execute("CREATE TABLE albums (title)")
        with pytest.raises(StoreError, match="not an lvlm2p store"):
            Store(file)
        with contextlib.closing(sqlite3.connect(file)) as other:
            assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (2,)

    def test_a_store_of_a_newer_schema_is_refused_with_both_versions_and_the_way_out(self, file):
        Store(file).close()
        with contextlib.closing(sqlite3.connect(file)) as raw, raw:
            raw.execute("UPDATE meta SET value = '7' WHERE name = 'schema_version'")
        with pytest.raises(StoreError, match=r"version 7.* up to 1: upgrade with `pip install -U lvlm2p`") as caught:
            Store(file)
        assert str(file) in str(caught.value)
        assert isinstance(caught.value, UsageError)

    def test_a_damaged_file_is_named_when_it_is_read(self, file):
        with Store(file) as store:
            for i in range(200):
                store.record(changed(CALL, key=str(i)), ANSWER)
        raw = bytearray(file.read_bytes())
        raw[4096:] = b"\xff" * (len(raw) - 4096)
        file.write_bytes(raw)
        with pytest.raises(StoreError, match="damaged") as caught, Store(file) as store:
            store.get("100")
        assert str(file) in str(caught.value)

    def test_a_read_only_database_is_refused_before_anything_is_paid_for(self, store, monkeypatch):
        store.close()
        monkeypatch.setattr(
            "lvlm2p_wrappers.store.sqlite._use_write_ahead_log", lambda connection: _forbid_writing(connection)
        )
        with pytest.raises(StoreError, match="readonly"):
            Store(store.path)


def _forbid_writing(connection):
    connection.exec_driver_sql("PRAGMA query_only = ON")  # root may write any file, so its mode forbids nothing


class TestReading:
    def test_a_store_that_is_only_read_is_not_changed_and_cannot_be(self, store):
        store.record(CALL, ANSWER)
        store.close()
        before = Path(store.path).read_bytes()
        reader = Store(store.path, read_only=True)
        assert reader.get(CALL.key) == ANSWER
        with pytest.raises(StoreError, match="readonly"):
            reader.get_or_claim("another", seconds=1)
        reader.close()
        assert Path(store.path).read_bytes() == before

    def test_what_another_process_writes_meanwhile_is_seen(self, store):
        reader = Store(store.path, read_only=True)
        assert reader.get(CALL.key) is None
        store.record(CALL, ANSWER)
        assert reader.get(CALL.key) == ANSWER

    def test_a_store_that_is_not_there_is_not_made(self, tmp_path):
        with pytest.raises(StoreError, match="cannot be used"):
            Store(tmp_path / "none.sqlite", read_only=True)
        assert not list(tmp_path.glob("none*"))


class TestSecrets:
    def test_no_key_of_the_environment_reaches_the_disk(self, store, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-0123456789")
        leaks = "Incorrect key sk-0123456789, or aws-0123456789"
        call = changed(CALL, messages=(Message("user", leaks),), reply=leaks, problem=leaks, options=f'["{leaks}"]')
        store.record(call, Answer(f'{{"summary": "{leaks}"}}', "m"))

        (logged,) = stores.calls(store)
        written = [logged.call.messages[0].text, logged.call.reply, logged.call.problem]
        told = "Incorrect key <OPENAI_API_KEY>, or <AWS_SECRET_ACCESS_KEY>"
        assert written == [told] * 3
        assert json.loads(store.get("k").text) == {"summary": told}
        for file in Path(store.path).parent.iterdir():
            assert b"0123456789" not in file.read_bytes()

    def test_a_short_value_is_no_secret(self, store, monkeypatch):
        monkeypatch.setenv("LOCAL_API_KEY", "lava")
        store.record(CALL)
        assert next(stores.calls(store)).call.messages[1].text == "Mission: avoid the lava"
