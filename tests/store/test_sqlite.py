"""A store in an SQLite file: where it is, what is refused, and what another machine or a full disk does to it."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import platformdirs
import pytest

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Message
from lvlm2p_wrappers.saved_picture import SavedPicture
from lvlm2p_wrappers.store import Store
from tests.store.store_samples import ANSWER, CALL, PNG, changed


@pytest.fixture
def file(tmp_path):
    return tmp_path / "teacher.sqlite"


@pytest.fixture
def store(file):
    with Store(file) as opened:
        yield opened


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


def test_a_store_whose_database_fails_can_be_closed(store, file):
    assert store.get_or_claim("k", seconds=60) is True
    store.close()
    assert store.get_or_claim("k", seconds=60) is True
    file.write_bytes(b"no database any more" * 1000)
    file.with_name(file.name + "-wal").write_bytes(b"")
    store.close()


def test_a_store_that_waits_for_another_process_holds_up_no_other(store, tmp_path):
    begun, other = threading.Event(), Store(tmp_path / "other.sqlite")

    def wait():
        begun.set()
        store.record(CALL, ANSWER)

    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=wait)
        thread.start()
        begun.wait()
        time.sleep(0.1)
        other.record(CALL, ANSWER)
        assert Store(tmp_path / "new.sqlite").get_or_claim("k", seconds=1) is True
        assert thread.is_alive()
        raw.execute("COMMIT")
    thread.join()
    assert store.get("k") == ANSWER


def test_pruning_many_gives_their_space_back(store):
    for i in range(450):
        store.record(
            changed(CALL, key=str(i), messages=(Message("user", str(i), SavedPicture(PNG + str(i).encode())),)),
            ANSWER,
        )
    full = stores.stats(store).size_bytes
    assert stores.prune(store, model=ANSWER.model).calls == 450
    assert stores.stats(store).size_bytes < full / 4


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

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE VIEW more AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n",
            "CREATE TRIGGER spy AFTER INSERT ON calls BEGIN DELETE FROM answers; END",
            "CREATE VIRTUAL TABLE words USING fts5(word)",
            "CREATE INDEX slow ON answers (length(hex(zeroblob(100000000))))",
            "CREATE INDEX slow ON calls (key) WHERE reply LIKE '%a%a%a%a%a%b'",
            "ALTER TABLE answers ADD COLUMN more TEXT AS (hex(zeroblob(100000000)))",
            "ALTER TABLE parts ADD COLUMN more TEXT CHECK (more IS NULL OR kind LIKE '%a%a%a%a%a%b')",
            "ALTER TABLE claims ADD COLUMN more TEXT DEFAULT (hex(randomblob(9)))",
        ],
    )
    def test_a_store_that_brings_code_of_its_own_is_refused(self, file, statement):
        """A check, an index or a column of a store from somebody else could take any time and memory."""
        Store(file).close()
        with contextlib.closing(sqlite3.connect(file)) as raw, raw:
            raw.execute(statement)
        for read_only in (False, True):
            with pytest.raises(StoreError, match="(virtual tables|such an index): it is not an lvlm2p store"):
                Store(file, read_only=read_only)

    def test_an_answer_that_is_no_text_is_named_with_the_command_that_drops_it(self, store, file):
        store.record(CALL, ANSWER)
        with contextlib.closing(sqlite3.connect(file)) as raw, raw:
            raw.execute("UPDATE answers SET text = x'00'")
        for ask in (store.get, lambda key: store.get_or_claim(key, seconds=1)):
            with pytest.raises(StoreError, match="no text.*`lvlm2p store prune --key k --store .*sqlite --yes`"):
                ask("k")
        stores.prune(store, key="k")
        assert store.get_or_claim("k", seconds=1) is True

    @pytest.mark.parametrize("path", ["x" * 300, "a/" * 3000 + "x", "zero\0byte", "~nobody-of-this-name/store.sqlite"])
    def test_a_path_that_cannot_be_one_is_named(self, path):
        with pytest.raises(StoreError, match="is no path of a file|cannot be opened|cannot be used") as caught:
            Store(path)
        assert path[:200] in str(caught.value) or repr(path[:200]) in str(caught.value)

    def test_a_text_that_is_no_unicode_is_named(self, store):
        with pytest.raises(StoreError, match="surrogates not allowed"):
            stores.prune(store, key="\udcff")

    def test_a_file_name_that_is_no_unicode_will_do(self, tmp_path):
        file = tmp_path / os.fsdecode(b"caf\xe9 ?#%.sqlite")
        with Store(file) as store:
            store.record(CALL, ANSWER)
        with Store(file, read_only=True) as store:
            assert store.get("k") == ANSWER

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

    def test_a_damaged_name_of_a_table_is_a_damaged_file(self, file):
        Store(file).close()
        raw = file.read_bytes()
        assert raw.count(b"tableanswersanswers") == 1
        file.write_bytes(raw.replace(b"tableanswersanswers", b"tableanswer\x80answers"))
        for read_only in (False, True):
            with pytest.raises(StoreError, match="damaged"):
                Store(file, read_only=read_only)

    def test_a_read_only_database_is_refused_before_anything_is_paid_for(self, store, monkeypatch):
        store.close()
        monkeypatch.setattr(
            "lvlm2p_wrappers.store.sqlite._use_write_ahead_log", lambda connection, **_: _forbid_writing(connection)
        )
        with pytest.raises(StoreError, match="readonly"):
            Store(store.path)

    def test_a_store_that_is_not_there_is_not_made(self, tmp_path):
        with pytest.raises(StoreError, match="cannot be used"):
            Store(tmp_path / "none.sqlite", read_only=True)
        assert not list(tmp_path.glob("none*"))


def _forbid_writing(connection):
    connection.exec_driver_sql("PRAGMA query_only = ON")  # root may write any file, so its mode forbids nothing


@contextlib.contextmanager
def nothing_can_be_written(folder):
    """A function that runs Python code where the folder is on a file system that is only read."""
    prelude = f"import os, sys; sys.path[:0] = {sys.path!r}\nfrom lvlm2p_wrappers.store import Store\n"
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'

    def run(code):
        command = [sys.executable, "-c", prelude + code]
        if os.geteuid() == 0:
            command = ["unshare", "--mount", "sh", "-c", mount, str(folder), *command]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    if os.geteuid() == 0 and (not shutil.which("unshare") or run("").returncode):
        pytest.skip("root may write everywhere, and cannot mount here")
    folder.chmod(0o500)
    try:
        yield run
    finally:
        folder.chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="needs folders that are only read")
class TestReadOnlyFolder:
    @pytest.fixture
    def folder(self, store, tmp_path):
        """What a killed run leaves: a store with 20 answers, of which the last are in its write-ahead log."""
        for number in range(20):
            store.record(changed(CALL, key=str(number)), ANSWER)
        folder = tmp_path / "theirs"
        folder.mkdir()
        for end in ("", "-wal", "-shm"):
            shutil.copy(store.path + end, folder / f"a.sqlite{end}")
        return folder

    ASK = "print(len([n for n in range(20) if Store({file!r}, read_only=True).get(str(n))]))"

    def test_a_store_of_a_killed_run_is_read_whole_or_refused_with_the_way_out(self, folder, tmp_path):
        """Its write-ahead log was passed over in silence: 51 of 52 answers were not seen."""
        Store(folder / "b.sqlite").close()
        with nothing_can_be_written(folder) as run:
            ask = self.ASK.format(file=str(folder / "a.sqlite"))
            closed = f"Store({str(folder / 'b.sqlite')!r}, read_only=True)"
            assert run(f"{ask}; {closed}").stdout == "20\n"
        (folder / "a.sqlite-shm").unlink()  # as where both files were copied
        with nothing_can_be_written(folder) as run:
            refused = run(self.ASK.format(file=str(folder / "a.sqlite")))
            assert "a.sqlite-wal, which cannot be read where nothing can be written. Copy both" in refused.stderr
        for name in ("a.sqlite", "a.sqlite-wal"):
            shutil.copy(folder / name, tmp_path)
        with Store(tmp_path / "a.sqlite", read_only=True) as copied:
            assert all(copied.get(str(number)) == ANSWER for number in range(20))


class TestNetworkFileSystems:
    """SQLite's write-ahead log cannot be shared over a network, and nothing warned of it."""

    MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:40 / {folder} rw,relatime shared:7 - {kind} server:/export/home rw,vers=4.2
41 40 0:41 / {folder}/local rw,relatime - tmpfs tmpfs rw
"""

    @pytest.fixture
    def mounted(self, tmp_path, monkeypatch):
        def mounted(kind):
            folder = tmp_path / kind / "a home"
            (folder / "local").mkdir(parents=True)
            mounts = tmp_path / kind / "mountinfo"
            mounts.write_text(self.MOUNTS.format(folder=str(folder).replace(" ", "\\040"), kind=kind))
            monkeypatch.setattr("lvlm2p_wrappers.store.sqlite._MOUNTS", mounts)
            return folder

        return mounted

    @pytest.mark.parametrize(
        "kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "fuse.sshfs", "9p", "gpfs", "beegfs", "ceph"]
    )
    def test_a_store_there_is_warned_of_once_with_the_way_out(self, mounted, kind, caplog):
        folder = mounted(kind)
        for name in ("a.sqlite", "b.sqlite"):
            with Store(folder / name) as store:
                store.record(CALL, ANSWER)
        (record,) = caplog.records
        told = record.getMessage()
        assert f"{folder} is on a network file system ({kind})" in told
        assert "LVLM2P_STORE" in told

    def test_a_local_disk_mounted_below_is_not_warned_of(self, mounted, caplog):
        Store(mounted("nfs4") / "local" / "a.sqlite").close()
        Store(mounted("ext4") / "a.sqlite").close()
        assert not caplog.records

    def test_where_nothing_tells_the_mounts_nothing_is_warned_of(self, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr("lvlm2p_wrappers.store.sqlite._MOUNTS", tmp_path / "none")
        Store(tmp_path / "new" / "a.sqlite").close()
        assert not caplog.records
