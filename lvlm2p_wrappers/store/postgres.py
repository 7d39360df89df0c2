"""PostgreSQL as a store's engine: the one file that knows it."""

from __future__ import annotations

import logging
import secrets
import time

import platformdirs
from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from lvlm2p_wrappers.errors import StoreError, UsageError
from lvlm2p_wrappers.records import Answer, Call
from lvlm2p_wrappers.redaction import printable, without_keys
from lvlm2p_wrappers.store.statements import Statement

try:
    import psycopg
    from psycopg.types.string import StrDumper
except ImportError as problem:
    told = f"a store on a server needs PostgreSQL's driver: pip install 'lvlm2p[postgres]' ({problem})"
    raise UsageError(told) from None

log = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""Seconds that a store waits for a server that has gone away, as it does for SQLite's lock."""

# A machine that vanished says nothing: without these a statement would wait for its answer for two hours.
_CONNECTION = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
    "application_name": "lvlm2p",
}
_CAUSES = {
    "password": "the server wants another password, from $PGPASSWORD, ~/.pgpass or the URL in $LVLM2P_STORE",
    "does not exist": "make the database first, with `createdb`",
    "permission denied": "the user may not use it",
    "read-only": "it can only be read",
    "No space left": "the server's disk is full",
}
_LOCK = """
    DO $$ BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('lvlm2p ' || current_schema()));
        IF to_regclass('parts') IS NOT NULL THEN LOCK TABLE parts IN SHARE ROW EXCLUSIVE MODE; END IF;
    END $$
"""  # whoever writes an answer or a call, writes its parts first
_SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint
    FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
"""


class Postgres:
    """A store's PostgreSQL database, or one schema of it.

    Args:
        url: of the database; ``?options=-csearch_path%3DNAME`` chooses the schema.
        read_only: whether it is only read.
    """

    in_memory = False
    clock = Statement("SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)")  # those of many machines differ

    def __init__(self, url: URL, *, read_only: bool = False) -> None:
        self._url = url
        self.read_only = read_only
        self._driver: psycopg.Connection | None = None
        self._gone_since: float | None = None
        self._rescue_file = platformdirs.user_cache_path("lvlm2p") / f"unwritten-{secrets.token_hex(4)}.sqlite"

    @property
    def name(self) -> str:
        """Where the store is, for people to read; without a password."""
        return str(self._url._replace(password=None))

    def connect(self) -> Connection:
        """Open the database.

        Raises:
            StoreError: it cannot keep every text.
            StatementError: it cannot be opened.
        """
        self._driver = None
        options = {name: value for name, value in _CONNECTION.items() if name not in self._url.query}
        engine = create_engine(self._url, poolclass=NullPool, connect_args=options | {"client_encoding": "utf8"})
        connection = engine.connect()
        try:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            if driver.info.parameter_status("server_encoding") != "UTF8":
                raise StoreError(f"the database {self.name} cannot keep every text: make it with `createdb -E UTF8`.")
            driver.adapters.register_dumper(str, _StrDumper)
            driver.read_only = self.read_only
        except BaseException:
            connection.close()
            raise
        self._driver, self._gone_since = driver, None
        return connection

    def begin_snapshot(self, connection: Connection) -> None:
        """Let all that the connection's transaction reads be of one moment."""
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    def exclude_writers(self, connection: Connection) -> None:
        """Let the connection's transaction wait for those that write, and others for it."""
        connection.exec_driver_sql(_LOCK)

    def reclaim(self, connection: Connection) -> None:
        """Do nothing: the server's own vacuum does."""

    def size_bytes(self, connection: Connection, /) -> int:
        """The size of the schema's tables and indexes."""
        size: int = connection.exec_driver_sql(_SIZE).scalar_one()
        return size

    def error_for(self, problem: Exception) -> StoreError:
        """Return the error to raise for a failure of the database: which one, why, and the way out."""
        cause = problem.orig if isinstance(problem, DBAPIError) else problem
        told = " ".join(printable(without_keys(str(cause))).split())
        causes = (f"{way_out} ({told})" for sign, way_out in _CAUSES.items() if sign in told)
        message = f"the store {self.name} cannot be used: {next(causes, told)}."
        if isinstance(cause, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
            return _BusyError(message)
        if isinstance(cause, psycopg.OperationalError) and self.is_gone():
            return _GoneError(message)
        return StoreError(message)

    def is_gone(self) -> bool:
        """Whether the server has closed the connection, as far as is known."""
        return self._driver is None or self._driver.closed

    def is_back(self, error: StoreError, /) -> bool:
        """Whether what failed may work now; a server that has gone away is waited for."""
        if not isinstance(error, _GoneError):
            return isinstance(error, _BusyError)
        if self._gone_since is None:
            self._gone_since = time.monotonic()
            log.warning("%s Nothing new is asked until it is back; it is waited for %.0f s", error, PATIENCE_S)
        if time.monotonic() - self._gone_since > PATIENCE_S:
            return False
        time.sleep(0.2)
        return True

    def rescued(self, error: StoreError, call: Call, answer: Answer | None, /) -> StoreError:
        """Keep what a server that stays away should have written in a file of this machine."""
        if not isinstance(error, _GoneError):
            return error
        from lvlm2p_wrappers.store.store import Store  # which imports its engines

        try:
            with Store(self._rescue_file) as file:
                file.record(call, answer)
        except StoreError as problem:
            return StoreError(f"{error} What had arrived could not be kept either: {problem}")
        steps = f"`lvlm2p store export kept.jsonl --store {self._rescue_file}` and `lvlm2p store import kept.jsonl`"
        return StoreError(f"{error} What had arrived is kept in {self._rescue_file}; once the server is back: {steps}.")


class _BusyError(StoreError):
    """Another transaction was in the way."""


class _GoneError(StoreError):
    """There is no connection to the server."""


class _StrDumper(StrDumper):
    """PostgreSQL has no text with a zero character: it is written as in JSON."""

    def dump(self, obj: str) -> bytes | bytearray | memoryview | None:
        return super().dump(obj.replace("\0", "\\u0000"))
