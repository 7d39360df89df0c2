"""SQLite as a store's engine: the one file that knows it."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Answer, Call
from lvlm2p_wrappers.store import tables

log = logging.getLogger(__name__)

BUSY_S = 60.0
"""Seconds that a write waits for another process's write; an ordinary one takes less than a millisecond."""

_MOST_BYTES = 256 * 2**20  # of a value: a file from somebody else may say that it holds gigabytes
# A view may take for ever, and a trigger may do anything to the store; virtual tables, without a page, run other code.
_CODE = "SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index') OR rootpage = 0 LIMIT 1"
# Checks, generated columns and indexes of expressions are code, too, and run for as long as they like.
_LAYOUT = "SELECT type, sql FROM sqlite_master WHERE sql IS NOT NULL AND lower(tbl_name) IN ({})"
_COMPUTES = re.compile(r"\b(check|as|where|collate|references)\b|\bdefault\s*\(|--|/\*", re.IGNORECASE)
_PLAIN_INDEX = re.compile(r'create (unique )?index \S+ on \S+ ?\([\w", ]*\)', re.IGNORECASE)
_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = re.compile(r"(fuse\.)?(nfs\d?|cifs|smb\d?|smbfs|afs|9p|lustre|gpfs|beegfs\w*|ceph\w*|glusterfs|panfs|sshfs)")

_ELSEWHERE = "Name a file that can be written with store= or LVLM2P_STORE, or keep nothing with store=None."
_DAMAGED = "the file is damaged (`sqlite3 FILE .recover` may save its answers)"
_CAUSES = {
    "not a database": "it is not an lvlm2p store",
    "no such column": "it is not an lvlm2p store",
    "malformed": _DAMAGED,
    "can't decode": _DAMAGED,
    "is full": "the disk is full",
    "database is locked": f"another process has kept it locked for {BUSY_S:.0f} s",
    "locking protocol": "its file system cannot lock it: put it on a local disk",
}


class Sqlite:
    """A store's SQLite file.

    Args:
        file: the file; None for a database in memory.
        read_only: whether it is there, and only read.
    """

    def __init__(self, file: Path | None, *, read_only: bool = False) -> None:
        self.file = file
        self.read_only = read_only
        self.in_memory = file is None
        self.clock = None
        self._impatient_until = 0.0

    @property
    def name(self) -> str:
        """Where the store is, for people to read."""
        return "none (in memory)" if self.file is None else str(self.file)

    def connect(self) -> Connection:
        """Open the file, making it where there is none.

        Raises:
            StoreError: it cannot be opened, or is not safe to use.
            StatementError: it cannot be used.
        """
        return self._connect_to_read(self.file) if self.file and self.read_only else self._connect_to_write()

    def begin_snapshot(self, connection: Connection) -> None:
        """Let all that the connection's transaction reads be of one moment."""
        connection.exec_driver_sql("BEGIN")

    def exclude_writers(self, connection: Connection) -> None:
        """Do nothing: the first statement that changes something waits for other writers, and they for its end."""

    def reclaim(self, connection: Connection) -> None:
        """Give the space of deleted rows back to the disk."""
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def size_bytes(self, _connection: Connection, /) -> int:
        """The size of the store's files on the disk."""
        if self.file is None:
            return 0
        return sum(file.stat().st_size for file in map(self._beside, ("", "-wal", "-shm")) if file.exists())

    def error_for(self, problem: Exception) -> StoreError:
        """Return the error to raise for a failure of the database: which file, why, and the way out."""
        told = str(getattr(problem, "orig", problem))
        if "database is locked" in told:  # what waits as well, and the end of a run, shall not wait a minute each
            self._impatient_until = time.monotonic() + BUSY_S
        causes = (f"{cause} ({told})" for sign, cause in _CAUSES.items() if sign in told)
        return StoreError(f"the store {self.file or 'in memory'} cannot be used: {next(causes, told)}. {_ELSEWHERE}")

    def is_gone(self) -> bool:
        """Whether it is opened anew: while another process keeps it locked, so that the next write waits less long."""
        return self._patience_s < BUSY_S

    def is_back(self, _error: StoreError, /) -> bool:
        """No: what fails in a file fails again."""
        return False

    def rescued(self, error: StoreError, _call: Call, _answer: Answer | None, /) -> StoreError:
        """Keep nothing: where a file cannot be written, another one hardly can."""
        return error

    @property
    def _patience_s(self) -> float:
        return 1.0 if time.monotonic() < self._impatient_until else BUSY_S

    def _connect_to_write(self) -> Connection:
        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                _warn_of_network(self.file.parent.resolve())
            except OSError as problem:
                raise StoreError(f"the store {self.file} cannot be opened: {problem}. {_ELSEWHERE}") from problem
        # "IMMEDIATE" makes the driver take the write lock with the first statement that changes something: a
        # transaction then waits for another process's at its start and cannot fail half-way. Reading takes no lock.
        url = URL.create("sqlite", database=None if self.file is None else str(self.file))
        prepare = partial(_use_write_ahead_log, patience_s=self._patience_s)
        return self._open(url, prepare=prepare, isolation_level="IMMEDIATE")

    def _connect_to_read(self, file: Path) -> Connection:
        url = URL.create("sqlite", database=f"file:{quote(os.fsencode(file))}", query={"uri": "true", "mode": "ro"})
        try:
            return self._open(url)
        except OperationalError:
            # Where its folder cannot be written, SQLite reads a file only if told that nobody else writes it; and then
            # it passes over the log.
            write_ahead_log = self._beside("-wal")
            if write_ahead_log.exists() and write_ahead_log.stat().st_size:
                raise StoreError(
                    f"the store {file} was not closed: its last answers are in {write_ahead_log}, which cannot be read "
                    "where nothing can be written. Copy both files to another folder, and name the copy."
                ) from None
            return self._open(url.update_query_dict({"immutable": "1"}))

    def _open(self, url: URL, prepare: Callable[[Connection], None] | None = None, **options: Any) -> Connection:
        options |= {"timeout": self._patience_s, "check_same_thread": False}
        connection = create_engine(url, poolclass=NullPool, paramstyle="named", connect_args=options).connect()
        try:
            with connection.begin():
                driver = connection.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
                connection.exec_driver_sql("PRAGMA trusted_schema = OFF")
                if prepare is not None:
                    prepare(connection)
                _refuse_code(connection, self.name)
        except BaseException:
            disconnect(connection)
            raise
        return connection

    def _beside(self, end: str) -> Path:
        assert self.file is not None
        return self.file.with_name(self.file.name + end)


def disconnect(connection: Connection) -> None:
    """Close a connection and free its handles."""
    connection.close()
    connection.engine.dispose()


def _refuse_code(connection: Connection, name: str) -> None:
    if connection.exec_driver_sql(_CODE).first() is not None:
        raise StoreError(f"{name} has views, triggers or virtual tables: it is not an lvlm2p store.")
    named = ", ".join(f"'{table}'" for table in tables.METADATA.tables)
    for kind, layout in connection.exec_driver_sql(_LAYOUT.format(named)):
        if _COMPUTES.search(str(layout)) or (kind == "index" and not _PLAIN_INDEX.fullmatch(str(layout))):
            raise StoreError(f"{name} has checks, computed columns or such an index: it is not an lvlm2p store.")


def _use_write_ahead_log(connection: Connection, patience_s: float) -> None:
    # An answer is safe from `kill -9` once written to the log; only a power cut may take the last ones.
    connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
    # SQLite does not wait for other processes while it changes the mode of a new file, so we do.
    deadline = time.monotonic() + patience_s
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except OperationalError as problem:
            if "locked" not in str(problem.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@lru_cache
def _warn_of_network(folder: Path) -> None:
    """Warn, once for a folder, where SQLite's locks do not reach other machines."""
    longest, kind = 0, ""
    # Each line: ID PARENT MAJOR:MINOR ROOT MOUNTED-AT OPTIONS ... - TYPE SOURCE OPTIONS
    for line in _MOUNTS.read_text(errors="replace").splitlines() if _MOUNTS.exists() else ():
        mount, _, system = line.partition(" - ")
        mounted_at = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount.split()[4])
        if folder.is_relative_to(mounted_at) and len(mounted_at) >= longest:  # the last one of equals hides the others
            longest, kind = len(mounted_at), system.split()[0]
    if _NETWORK.fullmatch(kind):
        log.warning(
            "the store's folder %s is on a network file system (%s), where SQLite can lose answers once two machines "
            "write at a time. Use it from one machine only; or name a PostgreSQL server, or a file on a local disk "
            "(store= or LVLM2P_STORE), and join what there is with `lvlm2p store export` and `import`.",
            folder,
            kind,
        )
