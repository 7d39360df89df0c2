"""Stores and exports that somebody else has spoilt: every way of reading them ends, and in nothing but a StoreError."""

import contextlib
import io
import json
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Answer
from lvlm2p_wrappers.store import Store, tables
from tests.store.store_samples import ANSWER, CALL, FAILURE, changed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("error")]

many = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def _good():
    """A store's file and its export, as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "store.sqlite"
        with Store(file) as store:
            for number in range(8):
                store.record(changed(CALL, key=f"{number}"), ANSWER)
            store.record(FAILURE)
            store.record(changed(CALL, key="other", messages=()), Answer("{}", "m"))
            lines = io.StringIO()
            stores.export(store, lines)
        return file.read_bytes(), lines.getvalue().encode()


FILE, EXPORT = _good()


def use(file, *, read_only):
    """All that anybody does with a store; each of it may be refused."""
    for work in (
        stores.stats,
        lambda store: [store.get(str(number)) for number in range(9)],
        lambda store: list(stores.calls(store)),
        lambda store: stores.call(store, 1),
        lambda store: list(stores.answers(store)),
        lambda store: stores.export(store, io.StringIO()),
        lambda store: stores.prune(store, older_than_days=1, dry_run=True),
        lambda store: store.get_or_claim("new", seconds=1),
        lambda store: store.record(changed(CALL, key="new"), ANSWER),
        lambda store: stores.prune(store, model="m"),
        lambda store: stores.load(store, io.StringIO(EXPORT.decode())),
    ):
        with contextlib.suppress(StoreError), Store(file, read_only=read_only) as store:
            work(store)


def only_the_store_is_in(folder):
    assert {file.name for file in folder.iterdir()} <= {"store.sqlite", "store.sqlite-wal", "store.sqlite-shm"}


spoilt_bytes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True), st.sampled_from(["set", "cut", "insert", "copy"]), st.binary(max_size=40)
    ),
    min_size=1,
    max_size=12,
)


def spoilt(data, changes):
    data = bytearray(data)
    for where, how, new in changes:
        at = int(where * len(data))
        if how == "set":
            data[at : at + len(new)] = new
        elif how == "cut":
            del data[at : at + 1 + len(new)]
        elif how == "insert":
            data[at:at] = new
        else:
            data[at:at] = data[at // 2 : at // 2 + 300]
    return bytes(data)


@many
@given(spoilt_bytes)
def test_a_spoilt_export_is_imported_or_refused(changes):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "store.sqlite"
        text = spoilt(EXPORT, changes).decode(errors="surrogateescape")
        with contextlib.suppress(StoreError), Store(file) as store:
            stores.load(store, io.StringIO(text))
        with Store(file) as store:  # what was let in can be read, every row of it
            found = stores.stats(store)
            assert len(list(stores.calls(store))) == sum(found.calls.values())
            assert len(list(stores.answers(store))) == sum(found.answers.values())
        only_the_store_is_in(Path(folder))


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=20),
    st.lists(st.none(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@many
@given(st.integers(0, len(EXPORT.splitlines()) - 1), st.integers(0, 30), values)
def test_a_line_with_any_value_is_imported_or_refused(number, field, value):
    lines = [json.loads(line) for line in EXPORT.splitlines()]
    names = list(lines[number])
    lines[number][names[field % len(names)]] = value
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite") as store:
        with contextlib.suppress(StoreError):
            stores.load(store, io.StringIO("\n".join(map(json.dumps, lines))))
        found = stores.stats(store)
        assert len(list(stores.calls(store))) == sum(found.calls.values())
        assert len(list(stores.answers(store))) == sum(found.answers.values())


@many
@given(spoilt_bytes, st.booleans())
def test_a_spoilt_file_is_read_or_refused(changes, read_only):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "store.sqlite"
        file.write_bytes(spoilt(FILE, changes))
        use(file, read_only=read_only)
        only_the_store_is_in(Path(folder))


@st.composite
def statements(draw):
    """A change of some rows of the store, of some column, to some value."""
    column = draw(st.sampled_from([column for table in tables.METADATA.sorted_tables for column in table.columns]))
    of_any_type = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20), st.binary(max_size=20))
    change = f"UPDATE OR IGNORE {column.table.name} SET {column.name} = ? WHERE rowid % ? = 0"
    return change, draw(of_any_type), draw(st.integers(1, 3))


@many
@given(st.lists(statements(), min_size=1, max_size=3), st.booleans())
def test_a_store_with_any_values_is_read_or_refused(changes, read_only):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "store.sqlite"
        file.write_bytes(FILE)
        with contextlib.closing(sqlite3.connect(file)) as raw, raw:
            for statement, value, every in changes:
                with contextlib.suppress(sqlite3.IntegrityError, UnicodeEncodeError):
                    raw.execute(statement, (value, every))
        use(file, read_only=read_only)
        only_the_store_is_in(Path(folder))
