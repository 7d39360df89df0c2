"""Where a store is: in a file, on a server or in memory, and the engine that keeps it there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import platformdirs
from sqlalchemy import Connection
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Answer, Call
from lvlm2p_wrappers.store.sqlite import Sqlite
from lvlm2p_wrappers.store.statements import Statement

DEFAULT = "default"

DRIVER = "postgresql+psycopg"
"""What the URL of a store on a server begins with."""


class Engine(Protocol):
    """A database as a store uses it; ``sqlite`` and ``postgres`` have one each."""

    @property
    def read_only(self) -> bool:
        """Whether the store is there, and only read."""

    @property
    def in_memory(self) -> bool:
        """Whether the store ends with its process."""

    @property
    def clock(self) -> Statement | None:
        """What tells the seconds since 1970 by the one clock that decides about leases; None for this machine's."""

    @property
    def name(self) -> str:
        """Where the store is, for people to read."""

    def connect(self) -> Connection:
        """Open the database."""

    def begin_snapshot(self, connection: Connection) -> None:
        """Let all that the connection's transaction reads be of one moment."""

    def exclude_writers(self, connection: Connection) -> None:
        """Let the connection's transaction wait for those that write, and others for it, at its first statement."""

    def reclaim(self, connection: Connection) -> None:
        """Give the space of deleted rows back to the disk."""

    def size_bytes(self, connection: Connection, /) -> int:
        """The size of the store on the disk."""

    def error_for(self, problem: Exception) -> StoreError:
        """Return the error to raise for a failure of the database: which store, why, and the way out."""

    def is_gone(self) -> bool:
        """Whether the connection cannot be used any more."""

    def is_back(self, error: StoreError, /) -> bool:
        """Whether what failed may work now; where a server has gone away, waits a moment first."""

    def rescued(self, error: StoreError, call: Call, answer: Answer | None, /) -> StoreError:
        """Keep what could not be written, where there is another place; the error to raise, which names that place."""


def locate(location: str | Path | URL | None) -> Path | URL | None:
    """Return the file or the database that a store's location means; None for a store in memory.

    Raises:
        StoreError: it can be neither the name of a file nor the URL of a database.
    """
    if location is None or isinstance(location, URL):
        return location
    is_default = location == DEFAULT
    if is_default:
        location = os.environ.get("LVLM2P_STORE") or platformdirs.user_cache_path("lvlm2p") / "teacher.sqlite"
    return _url(str(location), may_have_password=is_default) if "://" in str(location) else _file(location)


def is_there(place: Path | URL | None) -> bool:
    """Whether a store may be looked for in a place: a file has to exist; of a server its connection tells."""
    return place.exists() if isinstance(place, Path) else place is not None


def engine_at(place: Path | URL | None, *, read_only: bool) -> Engine:
    """Return the engine for a place.

    Raises:
        UsageError: it needs a package that is not installed.
    """
    if not isinstance(place, URL):
        return Sqlite(place, read_only=read_only)
    from lvlm2p_wrappers.store.postgres import Postgres  # its driver is an extra

    return Postgres(place, read_only=read_only)


def _url(text: str, *, may_have_password: bool) -> URL:
    form = f"give the path of a file, {DRIVER}://USER@HOST/DATABASE, or None to keep nothing"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # not quoted: who knows where its password stands
        raise StoreError(f"the store is a URL that cannot be read: {form}.") from None
    if url.drivername != DRIVER:
        raise StoreError(f"the store {url} is a URL of {url.drivername}: {form}.")
    if any("password" in name for name in url.query) or (url.password is not None and not may_have_password):
        raise StoreError(
            f"the store {url.set(query={})} is given with a password, which would stay in shell histories, "
            "checkpoints and logs: leave it out, and put it into $PGPASSWORD, ~/.pgpass or $LVLM2P_STORE."
        )
    if not url.database:
        raise StoreError(f"the store {url} names no database: {form}.")
    return url


def _file(location: str | Path) -> Path:
    try:
        if "\0" in str(location):
            raise ValueError("it has a zero byte")
        file = Path(location).expanduser().absolute()
        is_folder = file.is_dir()
    except (OSError, ValueError, RuntimeError) as problem:  # it may be too long, or name an unknown user's home
        raise StoreError(f"the store {str(location)[:400]!r} is no path of a file: {problem}.") from None
    if is_folder:
        raise StoreError(
            f"the store {file} is a folder: give the path of a file in it, such as {file / 'teacher.sqlite'}."
        )
    return file
