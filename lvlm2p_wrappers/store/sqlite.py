"""SQLite as a store's engine: the one file that knows it. Another engine offers the same methods."""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from lvlm2p_wrappers.errors import StoreError

log = logging.getLogger(__name__)

BUSY_S = 60.0
"""Seconds that a write waits for another process's write; an ordinary one takes less than a millisecond."""

_MOST_BYTES = 256 * 2**20  # of a value: a file from somebody else may say that it holds gigabytes
_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = re.compile(r"(fuse\.)?(nfs\d?|cifs|smb\d?|smbfs|afs|9p|lustre|gpfs|beegfs\w*|ceph\w*|glusterfs|panfs|sshfs)")

_ELSEWHERE = "Name a file that can be written with store= or LVLM2P_STORE, or keep nothing with store=None."
_CAUSES = {
    "not a database": "it is not an lvlm2p store",
    "no such column": "it is not an lvlm2p store",
    "malformed": "the file is damaged (`sqlite3 FILE .recover` may save its answers)",
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
        self._connected_to: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Where the store is, for people to read."""
        return "none (in memory)" if self.file is None else str(self.file)

    def connect(self) -> Connection:
        """Open the file, making it where there is none.

        Raises:
            StoreError: it cannot be opened, or runs code of its own.
            DBAPIError: it cannot be used.
        """
        if self.file is None or not self.read_only:
            connection = self._connect_to_write()
        else:
            connection = self._connect_to_read(self.file)
        try:
            with connection.begin():
                # A view may take for ever, and a trigger may do anything to the store; virtual tables run other code.
                code = "SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index') OR rootpage = 0 LIMIT 1"
                if connection.exec_driver_sql(code).first() is not None:
                    raise StoreError(f"{self.file} has views, triggers or virtual tables: it is not an lvlm2p store.")
        except (DBAPIError, StoreError):
            disconnect(connection)
            raise
        self._connected_to = self._identity()
        return connection

    def is_current(self) -> bool:
        """Whether the file is still the one that was opened; what is written to a deleted one would be lost."""
        return self._connected_to == self._identity()

    def begin_snapshot(self, connection: Connection) -> None:
        """Let all that the connection's transaction reads be of one moment."""
        connection.exec_driver_sql("BEGIN")

    def reclaim(self, connection: Connection) -> None:
        """Give the space of deleted rows back to the disk."""
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def size_bytes(self) -> int:
        """The size of the store's files on the disk."""
        if self.file is None:
            return 0
        return sum(file.stat().st_size for file in map(self._beside, ("", "-wal", "-shm")) if file.exists())

    def explained(self, problem: DBAPIError) -> StoreError:
        """Return the error to raise for a failure of the database: which file, why, and the way out."""
        told = str(problem.orig)
        causes = (f"{cause} ({told})" for sign, cause in _CAUSES.items() if sign in told)
        return StoreError(f"the store {self.file or 'in memory'} cannot be used: {next(causes, told)}. {_ELSEWHERE}")

    def _connect_to_write(self) -> Connection:
        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                raise StoreError(f"the store {self.file} cannot be opened: {problem}. {_ELSEWHERE}") from problem
            _warn_of_network(self.file.parent.resolve())
        # "IMMEDIATE" makes the driver take the write lock with the first statement that changes something: a
        # transaction then waits for another process's at its start and cannot fail half-way. Reading takes no lock.
        url = URL.create("sqlite", database=None if self.file is None else str(self.file))
        connection = _connect(url, isolation_level="IMMEDIATE")
        try:
            with connection.begin():
                # An answer is safe from `kill -9` once written to the log; only a power cut may take the last ones.
                connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
                _use_write_ahead_log(connection)
        except DBAPIError:
            disconnect(connection)
            raise
        return connection

    def _connect_to_read(self, file: Path) -> Connection:
        # Where its folder cannot be written either, SQLite reads a file only if told that nobody else writes it.
        for assurance in ({}, {"immutable": "1"}):
            query = {"uri": "true", "mode": "ro", **assurance}
            connection = _connect(URL.create("sqlite", database=f"file:{quote(str(file))}", query=query))
            try:
                with connection.begin():
                    connection.exec_driver_sql("SELECT name FROM sqlite_master")
            except OperationalError:
                disconnect(connection)
                if assurance:
                    raise
            else:
                break
        log_file = self._beside("-wal")
        if assurance and log_file.exists() and log_file.stat().st_size:  # SQLite would read past it
            disconnect(connection)
            raise StoreError(
                f"the store {file} was not closed: its last answers are in {log_file}, which cannot be read where "
                "nothing can be written. Copy both files to another folder, and name the copy."
            )
        return connection

    def _beside(self, end: str) -> Path:
        assert self.file is not None
        return self.file.with_name(self.file.name + end)

    def _identity(self) -> tuple[int, int] | None:
        """What tells the file from another one of the same name."""
        if self.file is None:
            return None
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def disconnect(connection: Connection) -> None:
    """Close a connection and free its handles."""
    connection.close()
    connection.engine.dispose()


def _connect(url: URL, **options: Any) -> Connection:
    options |= {"timeout": BUSY_S, "check_same_thread": False}
    connection = create_engine(url, poolclass=NullPool, connect_args=options).connect()
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    driver.execute("PRAGMA trusted_schema = OFF")
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


@lru_cache
def _warn_of_network(folder: Path) -> None:
    """Warn, once for a folder, that SQLite's locks and its shared memory need a local disk."""
    kind = _file_system(folder)
    if _NETWORK.fullmatch(kind):
        log.warning(
            "the store's folder %s is on a network file system (%s), where SQLite can lose answers once two machines "
            "write at a time. Use it from one machine only, or give each a store on its local disk (store= or "
            "LVLM2P_STORE) and join them with `lvlm2p store export` and `import`.",
            folder,
            kind,
        )


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder is on; ``""`` where that is not known."""
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    longest, kind = 0, ""
    for line in lines:  # ID PARENT MAJOR:MINOR ROOT MOUNTED-AT OPTIONS ... - TYPE SOURCE OPTIONS
        mount, _, system = line.partition(" - ")
        mounted_at = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount.split()[4])
        if folder.is_relative_to(mounted_at) and len(mounted_at) >= longest:  # the last one of equals hides the others
            longest, kind = len(mounted_at), system.split()[0]
    return kind
