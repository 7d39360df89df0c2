"""Stores of earlier versions: opened, migrated once, and told from newer ones and from others' databases."""

import shutil
from pathlib import Path

import pytest

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.errors import StoreError, UsageError
from lvlm2p_wrappers.store import Store, migrations
from tests.store.store_samples import ANSWER, CALL, sql
from tests.store.test_store_processes import finish, worker

STORE_OF_0_1_0 = Path(__file__).parents[1] / "teacher" / "golden_0_1_0" / "store.sqlite"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "teacher.sqlite"


@pytest.fixture
def old(file):
    """A store that version 0.1.0 wrote."""
    shutil.copy(STORE_OF_0_1_0, file)
    return file


def layout(file):
    """Tables and indexes with their columns, whatever the text that made them."""
    names = [name for (name,) in sql(file, "SELECT name FROM sqlite_master ORDER BY name")]
    return {
        name: sql(file, f"PRAGMA table_xinfo('{name}')") + sql(file, f"PRAGMA index_xinfo('{name}')") for name in names
    }


def m003_colour(connection):
    """A migration such as may come: it adds a column."""
    connection.exec_driver_sql("ALTER TABLE answers ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")


@pytest.fixture
def later(monkeypatch):
    """A later version of this package, with one migration more."""
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, m003_colour))


def test_a_store_of_0_1_0_opens_with_all_it_holds_and_gets_the_layout_of_a_new_one(old, tmp_path):
    with Store(old) as store:
        found = stores.stats(store)
        assert (sum(found.answers.values()), found.calls) == (48, {"ok": 48})
        assert len(list(stores.calls(store))) == 48
        store.record(CALL, ANSWER)
    Store(tmp_path / "new.sqlite").close()
    assert layout(old) == layout(tmp_path / "new.sqlite")
    assert sql(old, "SELECT name FROM migrations ORDER BY name") == [("m001_initial",), ("m002_shared_limits",)]


def test_a_store_of_0_1_0_that_is_only_read_stays_as_it_is(old):
    before = old.read_bytes()
    with Store(old, read_only=True) as store:
        assert len(list(stores.calls(store))) == 48
    assert old.read_bytes() == before


def test_version_0_1_0_is_told_that_a_store_is_newer(old):
    """It reads this number, and names the upgrade where it does not know it."""
    Store(old).close()
    assert sql(old, "SELECT value FROM meta WHERE name = 'schema_version'") == [("2",)]


@pytest.fixture
def known(location):
    """A store that this version wrote, on each engine."""
    with Store(location) as store:
        store.record(CALL, ANSWER)
    return location


@pytest.mark.usefixtures("later")
def test_a_migration_runs_once_and_is_recorded_by_name(known):
    for _ in range(2):
        with Store(known) as store:
            store.record(CALL, ANSWER)
    assert sql(known, "SELECT name FROM migrations ORDER BY name") == [
        ("m001_initial",),
        ("m002_shared_limits",),
        ("m003_colour",),
    ]
    assert sql(known, "SELECT value FROM meta WHERE name = 'schema_version'") == [("3",)]
    assert sql(known, "SELECT DISTINCT colour FROM answers") == [("red",)]


def test_a_migration_that_fails_leaves_the_store_as_it_was(known, monkeypatch):
    def m003_broken(connection):
        m003_colour(connection)
        raise KeyboardInterrupt

    before = [sql(known, f"SELECT * FROM {table}") for table in ("migrations", "meta", "answers")]
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, m003_broken))
    with pytest.raises(KeyboardInterrupt):
        Store(known)
    assert [sql(known, f"SELECT * FROM {table}") for table in ("migrations", "meta", "answers")] == before


def test_processes_may_migrate_a_store_at_once(known):
    code = """
from lvlm2p_wrappers.store import migrations
from tests.store.test_migrations import m003_colour
migrations.MIGRATIONS = (*migrations.MIGRATIONS, m003_colour)
sys.stdin.readline()  # until all are ready
Store(sys.argv[1]).record(changed(CALL, key=sys.argv[2]), ANSWER)
"""
    started = [worker(code, known, number) for number in range(2)]
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        finish(process)
    assert sql(known, "SELECT name FROM migrations ORDER BY name") == [
        ("m001_initial",),
        ("m002_shared_limits",),
        ("m003_colour",),
    ]
    assert sql(known, "SELECT count(*) FROM answers") == [(3,)]


@pytest.mark.usefixtures("later")
def test_a_store_of_a_newer_version_is_refused_with_both_versions_and_the_way_out(location, monkeypatch):
    Store(location).close()
    monkeypatch.undo()
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"version 3.* up to 2: upgrade with `pip install -U lvlm2p`") as caught:
            Store(location, read_only=read_only)
        assert location in str(caught.value)
        assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize("version", ["", "newest", "-1", "9" * 5000])
def test_a_version_that_is_no_number_is_no_store(location, version):
    Store(location).close()
    sql(location, "UPDATE meta SET value = :version", version=version)
    with pytest.raises(StoreError, match="not an lvlm2p store"):
        Store(location)
