"""The tables of a store, and the statements that every label needs; no engine's own SQL stands here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Double, Index, Integer, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

METADATA = MetaData()

meta = Table("meta", METADATA, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

migrations = Table("migrations", METADATA, Column("name", Text, primary_key=True), Column("at", Double, nullable=False))

answers = Table(
    "answers",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("at", Double, nullable=False),
)

calls = Table(
    "calls",
    METADATA,
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
calls_by_key = Index("calls_by_key", calls.c.key)

# The messages of a call. Rows, not a JSON column, so that plain SQL finds the parts that nothing refers to any more.
turns = Table(
    "turns",
    METADATA,
    Column("call_id", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),  # a digest in parts
    Column("png", Text),  # likewise; the part is missing if the call was imported without its picture
)

parts = Table(
    "parts",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# Who asks a question now, and until when that holds: a lease.
claims = Table(
    "claims",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires", Double, nullable=False),
)


class Statement:
    """A statement that is compiled once and handed to the driver.

    Executed through SQLAlchemy it takes five times as long, and a label needs sixteen of them.
    """

    def __init__(self, sql: str) -> None:
        self._sql = text(sql)
        self._compiled: dict[str, tuple[str, Sequence[str] | None]] = {}

    def on(self, connection: Connection, values: Mapping[str, Any]) -> DBAPICursor:
        """Execute it with named values, in the connection's transaction.

        Raises:
            DBAPIError: as SQLAlchemy would.
        """
        return self._handed_over(connection, "execute", [values])

    def one(self, connection: Connection, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Execute it with named values and return its first row.

        Raises:
            DBAPIError: as SQLAlchemy would.
        """
        cursor = self.on(connection, values)
        try:
            row: tuple[Any, ...] | None = cursor.fetchone()
        except connection.dialect.loaded_dbapi.Error as problem:
            raise _translated(problem, connection.dialect) from problem
        finally:
            cursor.close()  # SQLite goes on showing an open one what the store was
        return row

    def on_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute it once for each row of named values.

        Raises:
            DBAPIError: as SQLAlchemy would.
        """
        self._handed_over(connection, "executemany", rows)

    def _handed_over(self, connection: Connection, method: str, rows: Iterable[Mapping[str, Any]]) -> DBAPICursor:
        dialect = connection.dialect
        if (compiled := self._compiled.get(dialect.name)) is None:
            made = self._sql.compile(dialect=dialect)
            compiled = self._compiled[dialect.name] = str(made), made.positiontup
        sql, names = compiled
        values: list[Any] = list(rows) if names is None else [[row[name] for name in names] for row in rows]
        cursor = connection.connection.cursor()
        try:
            getattr(cursor, method)(sql, values[0] if method == "execute" else values)
        except dialect.loaded_dbapi.Error as problem:
            raise _translated(problem, dialect) from problem
        return cursor


def _translated(problem: BaseException, dialect: Dialect) -> BaseException:
    return DBAPIError.instance(None, None, problem, dialect.loaded_dbapi.Error)


def _insert(table: Table, *, but: str = "", else_: str = "") -> Statement:
    # "DO NOTHING" is common to SQLite and PostgreSQL, and SQLAlchemy has it for each of them only.
    names = [column.name for column in table.columns if column.name != but]
    values = ", ".join(f":{name}" for name in names)
    return Statement(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values}) {else_}")


ADD_ANSWER = _insert(answers, else_="ON CONFLICT DO NOTHING")
ADD_PART = _insert(parts, else_="ON CONFLICT DO NOTHING")
ADD_META = _insert(meta, else_="ON CONFLICT DO NOTHING")
ADD_MIGRATION = _insert(migrations, else_="ON CONFLICT DO NOTHING")
_ADD_CALL = _insert(calls, but="id", else_="ON CONFLICT DO NOTHING")
_ADD_TURN = Statement("""
    INSERT INTO turns (call_id, position, role, text, png)
    SELECT id, :position, :role, :text, :png FROM calls WHERE uid = :uid
""")


def add_call(connection: Connection, row: Mapping[str, Any], messages: Iterable[Mapping[str, Any]]) -> bool:
    """Insert a row of ``calls`` and its ``turns`` (role, text and png of each); the caller adds their parts.

    Returns:
        Whether it is new; a call whose uid is there already stays as it is.
    """
    if _ADD_CALL.on(connection, row).rowcount == 0:
        return False
    _ADD_TURN.on_many(connection, [{"uid": row["uid"], "position": i, **turn} for i, turn in enumerate(messages)])
    return True
