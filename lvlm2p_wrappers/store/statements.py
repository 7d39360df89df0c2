"""The SQL that every label needs: an answer looked up, claimed and stored; a call logged with texts and pictures."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, text
from sqlalchemy.exc import DBAPIError

from lvlm2p_wrappers.records import Call
from lvlm2p_wrappers.store import tables


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


def add_unless_there(table: Table) -> Statement:
    """The statement that inserts a row, unless one with its key is there."""
    # "DO NOTHING" is common to SQLite and PostgreSQL, and SQLAlchemy has it for each of them only.
    names = [column.name for column in table.columns if column.name != "id"]
    values = ", ".join(f":{name}" for name in names)
    return Statement(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values}) ON CONFLICT DO NOTHING")


GET = Statement("SELECT text, model FROM answers WHERE key = :key")
CLAIMED = Statement("SELECT owner, expires FROM claims WHERE key = :key")
RENEW = tuple(
    Statement(f"UPDATE {table} SET expires = :expires WHERE owner = :owner")
    for table in ("claims", "reservations", "starts")
)
RELEASE = Statement("DELETE FROM claims WHERE key = :key AND owner = :owner")
RELEASE_ALL = Statement("DELETE FROM claims WHERE owner = :owner")
RELEASE_EXPIRED = Statement("DELETE FROM claims WHERE expires < :now")
# `gone` and `then` are of a claim that is worth nothing any more: if somebody took it over meanwhile, it is theirs.
CLAIM = Statement("""
    INSERT INTO claims (key, owner, expires) VALUES (:key, :owner, :expires)
    ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, expires = excluded.expires
    WHERE claims.owner = :owner OR (claims.owner = :gone AND claims.expires = :then)
""")

ADD_ANSWER = add_unless_there(tables.answers)
ADD_PART = add_unless_there(tables.parts)
ADD_META = add_unless_there(tables.meta)
ADD_MIGRATION = add_unless_there(tables.migrations)
ADD_SHARED = add_unless_there(tables.shared)
_ADD_CALL = add_unless_there(tables.calls)
_ADD_TURN = Statement("""
    INSERT INTO turns (call_id, position, role, text, png)
    SELECT id, :position, :role, :text, :png FROM calls WHERE uid = :uid
""")


def log_call(connection: Connection, call: Call, uid: str, at: float, clean: Callable[[str], str]) -> None:
    """Insert a call with its messages; each text and picture is kept once, under the digest of its content.

    Args:
        connection: in a transaction.
        call: what is logged.
        uid: its name in the log; one that is there already stays as it is.
        at: seconds since 1970.
        clean: what every text goes through.
    """
    layout = pack_text(clean(call.schema_text))
    needed, messages = [layout], list[dict[str, Any]]()
    for message in call.messages:
        words = pack_text(clean(message.text))
        picture = None if message.picture is None else pack_png(message.picture.png)
        needed += [words] if picture is None else [words, picture]
        messages.append({"role": message.role, "text": words.digest, "png": picture and picture.digest})
    # In one order for all: PostgreSQL would let two transactions wait for each other's.
    ADD_PART.on(connection, [part._asdict() for part in sorted(set(needed))])
    row = {name: clean(value) if isinstance(value, str) else value for name, value in vars(call).items()}
    del row["messages"], row["schema_text"]
    add_call(connection, row | {"uid": uid, "at": at, "schema": layout.digest}, messages)


def add_call(connection: Connection, row: Mapping[str, Any], messages: Iterable[Mapping[str, Any]]) -> bool:
    """Insert a row of ``calls`` and its ``turns`` (role, text and png of each); the caller adds their parts.

    Returns:
        Whether it is new; a call whose uid is there already stays as it is.
    """
    if _ADD_CALL.on(connection, row).rowcount == 0:
        return False
    _ADD_TURN.on(connection, [{"uid": row["uid"], "position": i, **turn} for i, turn in enumerate(messages)])
    return True


class Part(NamedTuple):
    """A row of ``parts``; ``kind`` is ``"text"``, ``"text+zlib"`` or ``"png"``."""

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
