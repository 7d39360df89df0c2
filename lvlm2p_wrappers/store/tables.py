"""The tables of a store, and the statements that every label needs; no engine's own SQL stands here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Double, Index, Integer, LargeBinary, MetaData, Table, Text, text
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


class Executed(NamedTuple):
    """What a statement did: how many rows it changed, and the first row that it found."""

    rowcount: int
    row: tuple[Any, ...] | None


class Statement:
    """A statement that is compiled once and handed to the driver.

    Executed through SQLAlchemy it takes five times as long, and a label needs sixteen of them.
    """

    def __init__(self, sql: str) -> None:
        self._sql = text(sql)
        self._compiled: dict[str, str] = {}

    def on(self, connection: Connection, values: Mapping[str, Any] | list[Mapping[str, Any]]) -> Executed:
        """Execute it in the connection's transaction, with named values, or once with each of a list of them.

        Raises:
            DBAPIError: as SQLAlchemy would.
        """
        dialect = connection.dialect
        sql = self._compiled.get(dialect.name) or str(self._sql.compile(dialect=dialect))
        self._compiled[dialect.name] = sql
        cursor = connection.connection.cursor()
        try:
            if isinstance(values, list):
                cursor.executemany(sql, values)
            else:
                cursor.execute(sql, values)
            return Executed(cursor.rowcount, cursor.fetchone() if cursor.description else None)
        except dialect.loaded_dbapi.Error as problem:
            raise DBAPIError.instance(None, None, problem, dialect.loaded_dbapi.Error) from problem
        finally:
            cursor.close()  # SQLite goes on showing an open one what the store was


def _add_unless_there(table: Table) -> Statement:
    # "DO NOTHING" is common to SQLite and PostgreSQL, and SQLAlchemy has it for each of them only.
    names = [column.name for column in table.columns if column.name != "id"]
    values = ", ".join(f":{name}" for name in names)
    return Statement(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values}) ON CONFLICT DO NOTHING")


ADD_ANSWER = _add_unless_there(answers)
ADD_PART = _add_unless_there(parts)
ADD_META = _add_unless_there(meta)
ADD_MIGRATION = _add_unless_there(migrations)
_ADD_CALL = _add_unless_there(calls)
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
    _ADD_TURN.on(connection, [{"uid": row["uid"], "position": i, **turn} for i, turn in enumerate(messages)])
    return True
