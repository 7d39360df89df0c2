"""The tables of a store, their version, and the one place that knows SQLite."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from lvlm2p_wrappers.errors import StoreError

SCHEMA_VERSION = 1
BUSY_S = 60.0
"""Seconds that a write waits for another process's write; an ordinary one takes less than a millisecond."""

_DIALECT = SQLiteDialect_pysqlite(dbapi=SQLiteDialect_pysqlite.import_dbapi())
_METADATA = MetaData()

meta = Table("meta", _METADATA, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

answers = Table(
    "answers",
    _METADATA,
    Column("key", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("at", Double, nullable=False),
)

calls = Table(
    "calls",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),  # stays the same through export and import
    Column("at", Double, nullable=False),
    Column("key", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("env_id", Text, nullable=False),
    Column("requested_model", Text, nullable=False),
    Column("schema", Text, nullable=False),  # a digest in parts
    Column("options", Text, nullable=False),
    Column("reply", Text),
    Column("answered_model", Text),
    Column("outcome", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("status", Integer),
    Column("attempt", Integer, nullable=False),
    Column("latency_s", Double, nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cost_usd", Double),
)
_calls_by_key = Index("calls_by_key", calls.c.key)

# The messages of a call. Rows, not a JSON column, so that plain SQL finds the parts that nothing refers to any more.
turns = Table(
    "turns",
    _METADATA,
    Column("call_id", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),  # a digest in parts
    Column("png", Text),  # likewise
)

parts = Table(
    "parts",
    _METADATA,
    Column("digest", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

claims = Table(
    "claims",
    _METADATA,
    Column("key", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires", Double, nullable=False),
)


class Statement:
    """A statement that every label needs: compiled once and handed to the driver.

    Executed through SQLAlchemy it takes five times as long, and a label needs sixteen of them.
    """

    def __init__(self, statement: str) -> None:
        compiled = text(statement).compile(dialect=_DIALECT)
        self._text, self._names = str(compiled), tuple(compiled.positiontup or ())

    def on(self, connection: Connection, values: Mapping[str, Any]) -> DBAPICursor:
        """Execute it with named values, in the connection's transaction.

        Raises:
            DBAPIError: as SQLAlchemy would.
        """
        return self._handed_over(connection, "execute", [values[name] for name in self._names])

    def one(self, connection: Connection, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Execute it with named values and return its first row.

        Raises:
            DBAPIError: as SQLAlchemy would.
        """
        cursor = self.on(connection, values)
        row: tuple[Any, ...] | None = cursor.fetchone()
        cursor.close()  # SQLite goes on showing an open one what the store was
        return row

    def on_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute it once for each row of named values.

        Raises:
            DBAPIError: as SQLAlchemy would.
        """
        self._handed_over(connection, "executemany", [[row[name] for name in self._names] for row in rows])

    def _handed_over(self, connection: Connection, method: str, values: list[Any]) -> DBAPICursor:
        cursor = connection.connection.cursor()
        try:
            getattr(cursor, method)(self._text, values)
        except _DIALECT.loaded_dbapi.Error as problem:
            raise DBAPIError.instance(self._text, None, problem, _DIALECT.loaded_dbapi.Error) from problem
        return cursor


def _insert(table: Table, *, but: str = "", else_: str = "") -> Statement:
    # "DO NOTHING" is common to SQLite and PostgreSQL, and SQLAlchemy has it for each of them only.
    names = [column.name for column in table.columns if column.name != but]
    values = ", ".join(f":{name}" for name in names)
    return Statement(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values}) {else_}")


ADD_ANSWER = _insert(answers, else_="ON CONFLICT DO NOTHING")
ADD_PART = _insert(parts, else_="ON CONFLICT DO NOTHING")
_ADD_META = _insert(meta, else_="ON CONFLICT DO NOTHING")
_ADD_CALL = _insert(calls, but="id")
_ADD_TURN = _insert(turns)


def add_call(connection: Connection, row: Mapping[str, Any], messages: Iterable[Mapping[str, Any]]) -> None:
    """Insert a row of ``calls`` and its ``turns`` (role, text and png of each); the caller adds their parts."""
    number = _ADD_CALL.on(connection, row).lastrowid
    _ADD_TURN.on_many(connection, ({"call_id": number, "position": i, **turn} for i, turn in enumerate(messages)))


class Part(NamedTuple):
    """A text or a picture, kept once under its digest. ``kind`` is ``"text"``, ``"text+zlib"`` or ``"png"``."""

    digest: str
    kind: str
    data: bytes


def digest(raw: bytes) -> str:
    """Return the address of a part: BLAKE2b of its uncompressed bytes, 128 bits, in hexadecimal."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


@lru_cache(maxsize=64)  # system prompts and schemas come back with every call
def pack_text(value: str) -> Part:
    """Return the part that holds a text, compressed where that pays."""
    raw = value.encode()
    small = zlib.compress(raw)
    return Part(digest(raw), "text", raw) if len(small) >= len(raw) else Part(digest(raw), "text+zlib", small)


def pack_png(png: bytes) -> Part:
    """Return the part that holds a picture."""
    return Part(digest(png), "png", png)


def unpack_text(kind: str, data: bytes) -> str:
    """Return the text that a part holds."""
    return (zlib.decompress(data) if kind == "text+zlib" else data).decode()


def open_database(file: Path | None, *, read_only: bool = False) -> Connection:
    """Open a store, making it where there is none.

    Args:
        file: the SQLite file; None for a database in memory.
        read_only: whether the file is there, and only read.

    Raises:
        StoreError: the file cannot be read or written, is no store, or was written by a newer version.
    """
    connection: Connection | None = None
    try:
        if file is not None and not read_only:
            file.parent.mkdir(parents=True, exist_ok=True)
        connection = _connect_sqlite(file) if file is None or not read_only else _connect_sqlite_to_read(file)
        with connection.begin():
            _check_version(connection, file, read_only=read_only)
        if not read_only:
            with connection.begin():
                # Old claims go out, which proves, before anything is paid for, that the file can be written.
                connection.execute(claims.delete().where(claims.c.expires < time.time()))
    except OSError as problem:
        raise StoreError(f"the store {file} cannot be opened: {problem}. {_ELSEWHERE}") from problem
    except DBAPIError as problem:
        if connection is not None:
            close(connection)
        raise explained(problem, file) from problem
    except StoreError:
        if connection is not None:
            close(connection)
        raise
    return connection


def close(connection: Connection) -> None:
    """Close a connection and its engine."""
    connection.close()
    connection.engine.dispose()


def _check_version(connection: Connection, file: Path | None, *, read_only: bool) -> None:
    tables = set(inspect(connection).get_table_names())
    version = None
    if "meta" in tables:
        version = connection.execute(select(meta.c.value).where(meta.c.name == "schema_version")).scalar()
    if version is None:
        # Another process may be making the same store at this moment: everything here may be done twice.
        if read_only and not tables:
            raise StoreError(f"{file} is empty, not an lvlm2p store. {_ELSEWHERE}")
        if not tables <= set(_METADATA.tables):
            raise StoreError(f"{file} is a database of something else, not an lvlm2p store. {_ELSEWHERE}")
        for table in _METADATA.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
        connection.execute(CreateIndex(_calls_by_key, if_not_exists=True))
        _ADD_META.on(connection, {"name": "schema_version", "value": str(SCHEMA_VERSION)})
    elif not str(version).isdecimal():
        raise StoreError(f"{file} is a database of something else, not an lvlm2p store. {_ELSEWHERE}")
    elif int(version) > SCHEMA_VERSION:
        raise StoreError(
            f"the store {file} has schema version {version}, and this lvlm2p knows versions up to {SCHEMA_VERSION}: "
            f"upgrade with `pip install -U lvlm2p`, or name another file with store= or LVLM2P_STORE."
        )


_ELSEWHERE = "Name a file that can be written with store= or LVLM2P_STORE, or keep nothing with store=None."
_CAUSES = {
    "not a database": "it is not an lvlm2p store",
    "no such column": "it is not an lvlm2p store",
    "malformed": "the file is damaged (`sqlite3 FILE .recover` may save its answers)",
    "is full": "the disk is full",
    "locked": f"another process has kept it locked for {BUSY_S:.0f} s",
}


def explained(problem: DBAPIError, file: Path | None) -> StoreError:
    """Return the error to raise for a failure of the database: which file, why, and the way out."""
    told = str(problem.orig)
    causes = (f"{cause} ({told})" for sign, cause in _CAUSES.items() if sign in told)
    return StoreError(f"the store {file or 'in memory'} cannot be used: {next(causes, told)}. {_ELSEWHERE}")


# --- SQLite from here on: a server's database would need its own of these. ---


def _connect_sqlite(file: Path | None) -> Connection:
    # "IMMEDIATE" makes the driver take the write lock with the first statement that changes something: a transaction
    # then waits for another process's at its start and cannot fail half-way. Reading takes no lock.
    options: dict[str, Any] = {"timeout": BUSY_S, "isolation_level": "IMMEDIATE", "check_same_thread": False}
    url = URL.create("sqlite", database=None if file is None else str(file))
    connection = create_engine(url, poolclass=NullPool, connect_args=options).connect()
    try:
        with connection.begin():
            # An answer is safe from `kill -9` once written to the log; only a power cut may take the last ones.
            connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
            _use_write_ahead_log(connection)
    except DBAPIError:
        close(connection)
        raise
    return connection


def _connect_sqlite_to_read(file: Path) -> Connection:
    # Where its folder cannot be written either, SQLite reads a file only if told that nobody else writes it.
    for assurance in ({}, {"immutable": "1"}):
        query = {"uri": "true", "mode": "ro", **assurance}
        url = URL.create("sqlite", database=f"file:{quote(str(file))}", query=query)
        options = {"timeout": BUSY_S, "check_same_thread": False}
        connection = create_engine(url, poolclass=NullPool, connect_args=options).connect()
        try:
            with connection.begin():
                connection.exec_driver_sql("SELECT name FROM sqlite_master")
        except OperationalError:
            close(connection)
            if assurance:
                raise
        else:
            break
    return connection


def _use_write_ahead_log(connection: Connection) -> None:
    # SQLite does not wait for other processes while it changes the mode of a new file, so we do.
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except OperationalError as problem:
            if "locked" not in str(problem.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def reclaim(connection: Connection) -> None:
    """Give the space of deleted rows back to the disk."""
    connection.exec_driver_sql("VACUUM")
    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
